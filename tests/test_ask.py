"""Questions to a folder of documents: what is found, answered, judged and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citepipe.cli import main
from citepipe.data.files import write_json
from citepipe.models.load import trained_with
from citepipe.options import ModelOptions, PromptOptions, resolved
from tests.generate.loopback_server import ChatServer, chat, status
from tests.models.tiny import adapted, lora

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def notes(tmp_path: Path) -> str:
    folder = tmp_path / "notes"
    folder.mkdir()
    mill = "# Arle Mill\n\nThe mill dates from 1820. It has two wheels.\n\nIts roof is of slate."
    (folder / "mill.md").write_text(mill)
    (folder / "hart.txt").write_text("John Hart\n\nJohn Hart \033c owned the mill.")
    (folder / "walks.md").write_text("# Walks\n\nBoots are advised.")
    return str(folder)


def test_without_a_model_the_answer_is_what_the_documents_say(
    notes: str, tmp_path: Path, capsys: Captured
):
    asked, out = tmp_path / "asked.csv", tmp_path / "verdicts.json"
    asked.write_text("question\nDoes Mr Hart own the mill?\n")
    arguments = ["--questions", str(asked), "--docs", notes, "--json", str(out)]
    answers = tmp_path / "answers.json"
    assert main(["ask", "How many wheels?", *arguments, "--out", str(answers)]) == 0
    written = capsys.readouterr()
    assert "no model: the answers are sentences of the passages" in written.err
    first, second = written.out.split("\n\n")[1:3]
    assert written.out.startswith("answered by: extract (sentences that BM25 finds, no model); ")
    assert first.splitlines()[:2] == ["1: How many wheels?", "  + It has two wheels [1]."]
    # The best sentence first; a terminal gets nothing to obey.
    said = "John Hart \N{REPLACEMENT CHARACTER}c owned the mill"
    assert second.splitlines()[:2] == ["0: Does Mr Hart own the mill?", f"  + {said} [1]."]
    assert "\033" not in written.out
    assert written.out.endswith("2 answers: 4 of 4 sentences supported by what they cite\n")
    # Both files are what other commands read.
    row = json.loads(out.read_text())["per_example"][0]
    assert row["output"] == "It has two wheels [1]."
    assert [doc["id"] for doc in row["docs"]] == ["mill.md#1"]
    for command in (["show", out], ["score", answers], ["report", out, answers, "--out", out]):
        assert main(list(map(str, command))) == 0
    assert "  + It has two wheels [1]." in capsys.readouterr().out.splitlines()


def test_a_server_answers_and_what_is_unsupported_ends_with_1(
    notes: str, tmp_path: Path, capsys: Captured
):
    with ChatServer() as server:
        answer = chat("The mill dates from 1820 [1]. John Hart owned the mill [1]. It burnt [9].")
        server.answer = lambda body: answer if body else {"data": [{"id": "big"}]}
        arguments = ["--docs", notes, "--server", server.url]
        assert main(["ask", "Who owned the mill from 1820?", "Xyzzy?", *arguments]) == 1
        # Of a question that finds nothing, nothing is asked.
        [(_, _, body)] = server.requests
        assert (body["model"], body["temperature"]) == ("big", 0)
        assert "Document [1](Title: Arle Mill)" in body["messages"][1]["content"]
        written = capsys.readouterr()
        assert written.out.splitlines()[2:-2] == [
            "1: Who owned the mill from 1820?",
            "  + The mill dates from 1820 [1].",
            "      supported",
            "      [1] Arle Mill: The mill dates from 1820.",
            "  - John Hart owned the mill [1].",
            "      supported elsewhere by [2]; [1] not supported",
            "      [2] John Hart: John Hart \N{REPLACEMENT CHARACTER}c owned the mill.",
            "  - It burnt [9].",
            "      out of range",
            "      [1] Arle Mill: It has two wheels.",
            "",
            "2: Xyzzy?",
            "  (no statements)",
        ]
        line = "citepipe: 2 sentences not supported, 1 questions without an answer\n"
        assert written.err.endswith(line)
        # What it answered before it refuses is for this command only.
        server.wrong += [status(200, answer), status(401, {"error": {"message": "no"}})]
        assert main(["ask", "Who owned the mill?", "How many wheels?", *arguments]) == 1
        assert capsys.readouterr().err.endswith("/v1: answered 401: no\n")


def test_a_trained_model_knows_its_base_and_its_prompt(
    notes: str, tiny_base: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "base").symlink_to(tiny_base)
    trained = tmp_path / "results" / "models" / "mine" / "seed0"
    adapted(tiny_base, trained, lora())
    prompt = PromptOptions(instruction="", demo_prompt="{Q} {D}", max_input_tokens=64)
    model = ModelOptions(base="base", dtype="float32")
    about = {"step": 3, "model": resolved(model), "prompt": resolved(prompt)}
    write_json(trained / "citepipe.json", about)
    monkeypatch.chdir(notes)
    # From any folder: the base lies where it lay when the model was trained.
    found = model.model_copy(update={"base": str(tmp_path / "base")})
    assert trained_with(trained) == (found, prompt)
    main(["ask", "How many wheels?", "--docs", ".", "--model", str(trained), "--json", "-"])
    written = capsys.readouterr()
    assert json.loads(written.out)["answered_by"] == str(trained)
    assert "predict: answers 1" in written.err
    assert "not trained here" not in written.err
    main(["ask", "How many wheels?", "--docs", ".", "--model", str(tiny_base), "--json", "-"])
    assert "asked with ALCE's instruction, and perhaps never taught it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "expected a question, or --questions FILE"),
        (["Who?"], "1 questions have no documents: expected --docs FOLDER"),
        (["Mill?", "--docs", "nowhere"], "nowhere: expected a folder, or a file that ends in .txt"),
        (
            ["Mill?", "--docs", "{notes}", "--server", "host"],
            "--server, field url: expected an http",
        ),
        (["Mill?", "--docs", "{notes}", "--model", "./no"], "model.base ./no: no such directory"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], line: str, notes: str, capsys: Captured):
    assert main(["ask", *(argument.replace("{notes}", notes) for argument in arguments)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"citepipe: {line}")
