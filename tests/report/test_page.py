"""The report: what is in it, in words and in its data; the page itself is in test_browser.py."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from citepipe.cli import main
from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.report import page
from citepipe.scoring.results import Scored, results_of

Captured = pytest.CaptureFixture[str]

DOCS = [
    {"title": "Arle Mill", "text": "It stopped work. Arle Mill was built in 1820 by John Hart."},
    {"title": "John Hart", "text": "John Hart was a miller. John Hart owned three mills."},
    {"title": "Arle", "text": "Arle is a village on the river Lune."},
]
GOLD = {"mill": ["1820", "John Hart", "1931"], "hart": ["three mills"]}
ANSWERS = {
    "long": [
        "Arle Mill was built in 1820 by John Hart [1][3]. John Hart owned four mills [2].",
        "John Hart owned three mills [2]. John Hart owned three mills [2]. "
        "He liked Arle. It is old [1][9].",
    ],
    "short": ["Arle Mill was built in 1820 by John Hart [1].", ""],
}


def score(folder: Path, answers: dict[str, list[str]] = ANSWERS, dataset: str = "asqa") -> Path:
    """Answers of systems to the two questions, scored in one call: the file of scores."""
    for system, outputs in answers.items():
        rows = [
            {"id": name, "question": f"{name}?", "docs": DOCS, "output": output, "answers": gold}
            for (name, gold), output in zip(GOLD.items(), outputs, strict=True)
        ]
        (folder / f"{system}.json").write_text(json.dumps(rows))
    files = [str(folder / f"{system}.json") for system in answers]
    scores = folder / "scores.json"
    options = ["--dataset", dataset, "--no-cache", "--resamples", "50", "--json", str(scores)]
    assert main(["score", *files, *options]) == 0
    return scores


def data_of(path: Path) -> dict[str, Any]:
    """What the script of a page reads."""
    found = re.search(r'id="data">([^<]*)<', path.read_text())
    assert found
    content: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return content


def answers_of(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [answer for question in data["questions"] for answer in question["answers"]]


def test_a_page_has_the_result_in_words_and_every_verdict(tmp_path: Path, capsys: Captured):
    out = tmp_path / "page.html"
    scores = score(tmp_path)
    assert main(["report", str(scores), "--against", "long", "--out", str(out)]) == 0
    assert f"4 answers of 2 systems, {out}" in capsys.readouterr().out
    # Recall 50 and 50, precision 1/3 and 1; against one answer that is right (the other is empty).
    words = re.findall(r"<p>(.*?)</p>", out.read_text())
    assert words[0] == "short has the highest citation F1."
    assert words[1].startswith("By lexical, the mean of the datasets: 100.0 (100.0 to 100.0); ")
    assert "+42.9 against long" in words[1]
    data = data_of(out)
    assert [data["systems"], data["datasets"]] == [["long", "short"], ["asqa"]]
    assert [question["id"] for question in data["questions"]] == ["mill", "hart"]
    # In full where they come first.
    own = [[doc["title"], doc["text"]] for doc in DOCS]
    assert [question["docs"] for question in data["questions"]] == [own, [0, 1, 2]]
    mill, short, hart, empty = answers_of(data)
    assert mill["by"] == [["nu", "snw", "110", 50, 33.3, 66.7]]
    spans, _, _, decisive = json.loads(mill["places"])
    assert mill["text"][slice(*spans[1])] == "John Hart owned four mills [2]."
    # The sentences that decide.
    texts = [DOCS[n - 1]["text"][a:b] for n, a, b in decisive]
    assert texts == ["Arle Mill was built in 1820 by John Hart.", "John Hart owned three mills."]
    # By ALCE's rules a repetition counts, and citations beside one out of range do not.
    assert hart["by"] == [["ssco", "ss", "1", 50, 100, 100]]
    assert (hart["again"], json.loads(hart["places"])[1]) == ([1], [[2], [2], [], [1, 9]])
    assert short["by"] == [["s", "s", "110", 100, 100, 66.7]]
    assert empty["by"] == [["", "", "0", None, None, 0]]
    counts = {(system, name): n for _, system, _, name, n in data["counts"]}
    assert counts == {
        **{(0, letter): n for letter, n in zip("nusco", (1, 1, 2, 1, 1), strict=True)},
        **{(0, "gold"): 4, (0, "missing"): 1, (0, "again"): 1, (0, "answers"): 2},
        **{(1, "s"): 1, (1, "gold"): 4, (1, "missing"): 2, (1, "answers"): 2, (1, "empty"): 1},
    }


def test_score_files_of_either_form_and_answers_from_elsewhere(tmp_path: Path, capsys: Captured):
    """The workflow's form, by verifier and dataset; systems from folders, and names."""
    content = read_json(score(tmp_path))
    for system, seed in (("long", 0), ("long", 1), ("short", 0)):
        path = tmp_path / f"scores/{system}/seed{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = content["files"][system]
        path.write_text(json.dumps({"first": {"asqa": part}, "second": {"asqa": part}}))
    out = str(tmp_path / "page.html")
    files = [str(path) for path in sorted(tmp_path.glob("scores/*/*.json"))]
    assert main(["report", *files, "--out", out]) == 1
    line = capsys.readouterr().err
    assert "seed0.json: expected the answers that were scored, long.json (sha256" in line
    answers = [str(tmp_path / f"{name}.json") for name in ANSWERS]
    assert main(["report", *files, *answers, "--out", out]) == 0
    data = data_of(Path(out))
    assert [data["systems"], data["verifiers"]] == [["long", "short"], ["first", "second"]]
    assert [answer["seed"] for answer in answers_of(data)] == [0, 1, 0, 0, 1, 0]
    first, second = answers_of(data)[0]["by"]
    assert first == second
    # Where the workflow has them.
    for (name, seed), file in zip((("long", 0), ("long", 1), ("short", 0)), files, strict=True):
        place = tmp_path / f"predictions/{name}/seed{seed}/{name}.json"
        place.parent.mkdir(parents=True)
        place.write_bytes((tmp_path / f"{name}.json").read_bytes())
        assert main(["report", f"one={file}", "--out", out]) == 0
        assert data_of(Path(out))["systems"] == ["one"]
    alone = "<p>Citation F1 by first, the mean of the datasets: 100.0 (100.0 to 100.0).</p>"
    assert alone in Path(out).read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["long.json"], "long.json: expected a file of scores: citepipe score --json FILE"),
        (["none.json"], "none.json: cannot be read: No such file or directory"),
        (["scores.json", "--against", "x"], "--against: expected one of long, short"),
    ],
)
def test_what_is_no_score_file_is_refused(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
):
    score(tmp_path)
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 1
    assert capsys.readouterr().err == f"citepipe: {line}\n"


@pytest.mark.parametrize("name", ["statements", "citations", "gold", "documents", "id"])
def test_a_damaged_score_file_is_one_line(tmp_path: Path, capsys: Captured, name: str):
    scores = score(tmp_path)
    content = read_json(scores)
    del content["files"]["long"]["per_example"][0][name]
    scores.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["report", str(scores), "--out", str(tmp_path / "page.html")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "scores.json: expected " in line
    assert line.endswith(f"broken at '{name}'")
    assert not (tmp_path / "page.html").exists()


def test_what_a_page_cannot_hold_is_left_out_and_counted(tmp_path: Path):
    content = results_of(read_json(score(tmp_path)), tmp_path / "scores.json")
    files = [Scored(name, 0, tmp_path, own) for name, own in content.items()]
    collected = page.collect(files, [tmp_path / f"{name}.json" for name in ANSWERS])
    whole, left_out = page.packed(collected)
    assert left_out == 0
    part, left_out = page.packed(collected, cap=len(whole) - 10)
    assert left_out == 1
    kept = json.loads(gzip.decompress(base64.b64decode(part)))
    assert [question["id"] for question in kept["questions"]] == ["mill"]
    assert kept["counts"] == [list(own) for own in collected["counts"]]
    assert page.packed(collected, cap_raw=10)[1] == 2


def test_samples_are_shown_by_reward_with_the_chosen_and_the_greedy_one(tmp_path: Path):
    def drawn(text: str, reward: float) -> dict[str, Any]:
        end = len(text)
        return {"text": text, "reward": reward, "standing": [[end, end, {"correctness": reward}]]}

    answers, candidates = tmp_path / "answers.json", tmp_path / "candidates.jsonl"
    rows = [{"dataset": "asqa", "id": i, "question": "Who?", "output": ["good"]} for i in "ac"]
    answers.write_text(json.dumps(rows))
    records: list[dict[str, Any]] = [
        {"candidates": [drawn("bad", -1), drawn("good", 1), drawn("bad", -1)]},
        # Nothing was learnt from it.
        {"candidates": [drawn("bad", -1)], "greedy": drawn("bad", -1)},
        # It is not one of the first.
        {"candidates": [{"text": "good", "reward": 1}]},
    ]
    records[0]["greedy"] = drawn("fair", 0.5)
    lines = [{"dataset": "asqa", "id": i} | own for i, own in zip("abc", records, strict=True)]
    candidates.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shown = page.sampled("rs", 2, answers, candidates)
    about = "1 of 2 questions that were learnt from"
    assert (shown["run"], shown["about"]) == ("rs seed 2", about)
    [question] = shown["questions"]
    assert (question["id"], question["text"]) == ("a", "Who?")
    assert question["samples"] == [
        ("good", 1, [[4, 4, {"correctness": 1}]], "chosen", True),
        ("fair", 0.5, [[4, 4, {"correctness": 0.5}]], "greedy", False),
        ("bad", -1, [[3, 3, {"correctness": -1}]], "drawn 2 times", False),
    ]
    null = drawn("good", 1) | {"text": None}
    for own, says in (([null], "field .* expected a string, got null"), ([], "broken at list")):
        candidates.write_text(json.dumps(lines[0] | {"candidates": own, "greedy": None}))
        with pytest.raises(InputError, match=rf"candidates\.jsonl.* {says}"):
            page.learnt(candidates, page.sampled, ("rs", 2, answers, candidates))
