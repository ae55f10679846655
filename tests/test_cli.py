"""The commands: what they print and write, and the one line with which they fail."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from citepipe.cli import main, shared
from citepipe.verify.lexical import LexicalVerifier

Patch = pytest.MonkeyPatch

DOCS = [
    {"title": "Anna Berg", "text": "Anna Berg was born in Oslo in 1970."},
    {"title": "Oslo", "text": "Oslo is the capital of Norway."},
]
Captured = pytest.CaptureFixture[str]


def row(output: Any = "Anna Berg was born in Oslo [1].", **fields: Any) -> dict[str, Any]:
    answers = [{"question": "Where?", "short_answers": ["Oslo"]}]
    return {"question": "Where?", "docs": DOCS, "output": output, "qa_pairs": answers} | fields


@pytest.fixture(scope="module", autouse=True)
def _noticed() -> None:
    """What lexical says once in a process is said, whichever test comes first."""
    LexicalVerifier().entails([])


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "asqa_system.json"
    outputs = ["Anna Berg was born in Oslo [1].", "Anna Berg was born in Rome [1]. She lives.", ""]
    rows = [row(output, question=f"{n}?") for n, output in enumerate(outputs)]
    path.write_text(json.dumps({"args": {}, "data": rows}))
    return path


def printed(capsys: Captured, *arguments: object) -> str:
    """What a command that succeeds prints."""
    assert main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def fails(capsys: Captured, *arguments: object) -> str:
    """The one line on stderr with which a command ends with status 1."""
    assert main(list(map(str, arguments))) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("citepipe: ")
    assert written.err.count("\n") == 1
    return written.err.removeprefix("citepipe: ")


def test_score_prints_a_table_or_json_under_chosen_rules_and_metrics(
    answers: Path, tmp_path: Path, capsys: Captured
):
    out = tmp_path / "new" / "scores.json"
    lines = printed(capsys, "score", answers, "--json", out)
    assert "3 answers, 3 statements, 2 citations; verifier lexical" in lines
    assert "citation_rec                50.00   [0.00, 100.00]" in lines
    result = json.loads(out.read_text())
    # Of two answers with statements one has all supported, the other none; the empty one is left.
    assert result["metrics"]["citation_rec"] == 50
    assert [own["id"] for own in result["per_example"]] == ["0", "1", "2"]
    # Rules and metrics can be chosen.
    result = json.loads(printed(capsys, "score", answers, "--rules", "sane", "--json", "-"))
    # The empty answer counts.
    assert result["metrics"]["citation_rec"] == pytest.approx(100 / 3)
    assert result["provenance"]["rules"] == "sane"
    # Metrics without a verifier load none.
    chosen = ["--metrics", "length,str_em", "--verifier", "nobody/model"]
    result = json.loads(printed(capsys, "score", answers, *chosen, "--json", "-"))
    assert result["metrics"] == pytest.approx({"length": 14 / 3, "str_em": 100 / 3})
    assert result["provenance"]["verifier"] is None


def test_bad_rows_stop_or_are_left_out_and_counted(tmp_path: Path, capsys: Captured):
    path = tmp_path / "asqa.jsonl"
    path.write_text("\n".join([json.dumps(row()), json.dumps(row(output=3)), '{"question', "", ""]))
    assert "asqa.jsonl, line 2, field output: expected a string" in fails(capsys, "score", path)
    assert main(["score", str(path), "--skip-bad", "--json", "-"]) == 0
    written = capsys.readouterr()
    assert written.err.splitlines()[-1] == f"{path}: 2 bad rows were left out"
    result = json.loads(written.out)
    assert (result["counts"]["examples"], len(result["left_out"])) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nq"], "dataset 'nq': expected one of asqa"),
        (["--dataset", "eli5"], "row 0, field dataset: expected eli5, got asqa"),
        (["--metrics", "bleu"], "metric 'bleu'"),
        (["--verifier", "{tmp}", "--json", "{tmp}/out.json"], "not a model directory"),
        (["--verifier", "lexical?x=1"], "lexical takes no argument"),
        # Without looking for it anywhere.
        (["--verifier", "lexcial"], "verifier 'lexcial': expected lexical, a model's directory"),
        (["--verifier", "google/t5_xl_true_nli_mixture"], "; is google/t5_xxl_true_nli_mixture m"),
        (["--verifier", "{tmp}/asqa_sytem.json"], "; is {tmp}/asqa_system.json meant?"),
        (["--json", "{tmp}"], "it is a directory"),
        (["--json", "{tmp}/asqa_system.json/x"], "cannot be written"),
        (["--json", "/dev/full"], "/dev/full: cannot be written: No space left on device"),
    ],
)
def test_bad_input_is_one_line(
    answers: Path, tmp_path: Path, capsys: Captured, arguments: list[str], message: str
):
    answers.write_text(json.dumps([row(dataset="asqa")]))
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert message.replace("{tmp}", str(tmp_path)) in fails(capsys, "score", answers, *given)
    # Nothing is left half written, and no device replaced.
    assert list(tmp_path.iterdir()) == [answers]
    assert Path("/dev/full").is_char_device()


def test_wrong_usage_ends_with_2_and_an_interrupt_with_130(
    answers: Path, capsys: Captured, monkeypatch: Patch
):
    for wrong in (["score"], ["reward"], ["score", str(answers), "--resamples", "0"]):
        with pytest.raises(SystemExit, match=r"^2$"):
            main(wrong)
    capsys.readouterr()

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shared, "answers_of", interrupt)
    assert main(["score", str(answers)]) == 130
    assert capsys.readouterr().err.startswith("citepipe: interrupted")


def test_several_files_of_ones_own_stand_in_one_table(tmp_path: Path, capsys: Captured):
    table, split = tmp_path / "mine.csv", tmp_path / "trec.jsonl"
    table.write_text(
        "Query;Doc 1;Doc 2;Answer;Reference\n"
        "When?;It opened in 1820.;Rain fell.;It opened in 1820 [1].;It opened in 1820.\n"
        "Where?;It opened in 1820.;Rain fell.;;\n"
    )
    parts = [
        {"text": "The mill was built in 1820. It still stands.", "citations": [1]},
        {"text": "Snow."},
    ]
    docs = [{"docid": "x", "segment": parts[0]["text"]}, {"docid": "y", "text": "Rain fell."}]
    row = {"topic": "When?", "references": ["y", "x"], "answer": parts, "docs": docs}
    split.write_text(json.dumps(row) + "\n")
    lines = printed(capsys, "score", table, split, "--resamples", 1).splitlines()
    assert "mine: 2 answers, 1 statements, 1 citations; verifier lexical" in lines[0]
    assert "rules sane" in lines[0]
    # Two sentences that came as one statement are one.
    assert "trec: 1 answers, 2 statements, 1 citations" in lines[3]
    assert lines[4:6] == ["  statements: 1 supported, 1 cites nothing", "  citations: 1 supports"]
    found = {line.split()[0]: line for line in lines}
    assert re.findall(r" (\S+)   \[", found["citation_rec"]) == ["50.00", "50.00"]
    # One of the two answers has a reference, none of the other file's.
    assert found["rougeLsum"].split() == [
        "rougeLsum",
        "100.00",
        "[100.00,",
        "100.00]",
        *("of", "1", "-"),
    ]
    assert lines[6] == "trec has other questions than mine: 1 of 1 the same"
    result = json.loads(printed(capsys, "score", table, split, "--json", "-"))
    assert list(result["files"]) == ["mine", "trec"]
    rewarded = printed(capsys, "reward", table, split).splitlines()
    assert [line.split("  ")[0] for line in rewarded[1:]] == [
        *("mine 0", "mine 1", "mine mean", "trec 0", "trec mean")
    ]
    assert f"{table}: rows 2 (eli5 2)" in printed(capsys, "check", table, split)


def test_links_and_pipes_are_written_through(answers: Path, tmp_path: Path, capsys: Captured):
    target, link, pipe = tmp_path / "target.json", tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(target)
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    # What a killed writer of the same file has left goes with the next write.
    left = tmp_path / ".target.json.partial"
    left.touch()
    for path in (link, pipe):
        printed(capsys, "score", answers, "--json", path)
    reader.join()
    assert (link.is_symlink(), pipe.is_fifo()) == (True, True)
    assert received == [target.read_text()]
    assert not left.exists()


@pytest.mark.parametrize(("place", "status"), [("full", 1), ("closed", 1), ("gone", 0)])
def test_a_standard_output_that_takes_nothing(
    answers: Path, capsys: Captured, monkeypatch: Patch, place: str, status: int
):
    if place == "gone":
        end, output = os.pipe()
        os.close(end)
    else:
        output = os.open("/dev/full", os.O_WRONLY)
    with open(output, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", None if place == "closed" else stream)
        assert main(["score", str(answers), "--json", "-"]) == status
    assert capsys.readouterr().err.count("\n") == status


def test_json_is_readable_whatever_standard_output_can_encode(tmp_path: Path, monkeypatch: Patch):
    (tmp_path / "eli5.json").write_text(json.dumps([row("Zürich [1].", id="é")]))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    command = ["reward", str(tmp_path / "eli5.json")]
    assert main([*command, "--json", "-"]) == 0
    assert json.loads(stream.buffer.getvalue())["per_example"][0]["id"] == "é"
    assert main(command) == 0
    assert b"\\xe9" in stream.buffer.getvalue()


def test_reward_prints_totals(answers: Path, capsys: Captured):
    lines = printed(capsys, "reward", answers, "--correctness", "0").splitlines()
    assert [line.split()[0] for line in lines] == ["id", "0", "1", "2", "mean"]
    assert lines[1].split()[1:] == ["+0.20", "+0.20", "+0.00", "+0.40"]
    assert lines[2].split()[1:] == ["-0.40", "-0.20", "+0.00", "-0.60"]


def failures(junit: Path) -> dict[str, list[str]]:
    cases = ElementTree.parse(junit).getroot()
    assert cases.get("failures") == str(len(cases.findall("testcase/failure")))
    return {
        f"{case.get('classname')} {case.get('name')}": [f.get("message") for f in case]
        for case in cases
    }


def test_systems_are_compared_and_one_that_is_worse_fails(
    answers: Path, tmp_path: Path, capsys: Captured
):
    rows = [row(question=f"{n}?") for n in range(20)]
    first, second, junit = (tmp_path / name for name in ("a.json", "b.json", "checks.xml"))
    answers.write_text(json.dumps(rows))
    printed(capsys, "score", answers, "--json", first)
    wrong = row("Anna Berg was born in Rome [1].")
    answers.write_text(json.dumps([wrong | {"question": own["question"]} for own in rows[::-1]]))
    printed(capsys, "score", answers, "--json", second)
    chosen = ["--metrics", "citation_rec,length", "--resamples", "999"]
    [found] = json.loads(printed(capsys, "compare", first, second, *chosen, "--json", "-"))
    assert found["n"] == 20
    recall = found["metrics"]["citation_rec"]
    assert (recall["difference"], recall["p"], recall["p_holm"]) == (-100, 0.001, 0.002)
    for form, line in (
        ("text", "asqa  citation_rec  b       100.00   0.00     -100.00"),
        ("markdown", "| asqa | citation_rec | b | 100.00 | 0.00 | -100.00 | [-100.00, -100.00] |"),
        ("latex", "asqa & citation\\_rec & b & 100.00 & 0.00 & -100.00 & [-100.00, -100.00] &"),
        ("csv", "asqa,citation_rec,b,100.0000,0.0000,-100.0000,-100.0000,-100.0000,0.001,0.002"),
    ):
        assert line in printed(capsys, "compare", first, second, *chosen, "--format", form)
    gate = [*chosen, "--fail-if-worse", "--junit", junit]
    printed(capsys, "compare", second, first, *gate)
    assert failures(junit) == {"a asqa citation_rec": []}
    assert main(list(map(str, ["compare", first, second, *gate]))) == 1
    said = "expected no worse than 100.00 of a, actual 0.00 (p = 0.0020 by Holm)"
    assert failures(junit) == {"b asqa citation_rec": [said]}
    error = capsys.readouterr().err
    assert error == f"b, asqa citation_rec: {said}\ncitepipe: 1 of 1 checks failed\n"
    assert "metric 'bleu'" in fails(capsys, "compare", first, second, "--metrics", "bleu")


def test_a_terminal_is_not_obeyed_to(answers: Path, capsys: Captured):
    output = "A\x1b[2J \u202emill stands\x9b here [1].\tIt is old [1]."
    answers.write_text(json.dumps([row(dataset="own", output=output)]))
    assert main(["show", str(answers), "--colour", "never"]) == 0
    shown = capsys.readouterr().out
    assert "+ A\ufffd[2J" in shown or "- A\ufffd[2J" in shown
    assert not set("\x1b\u202e\x9b") & set(shown)
    odd = answers.rename(answers.with_name("a\x1b[2J.json"))
    main(["check", str(odd)])
    main(["check", str(odd.with_name("\x1b]0;no.json"))])
    main(["show", str(odd.with_name("\x1b]0;no.json"))])
    assert not set("\x1b") & set("".join(capsys.readouterr()))


def test_a_score_below_its_minimum_fails(answers: Path, tmp_path: Path, capsys: Captured):
    junit = tmp_path / "checks.xml"
    gate = ["--junit", junit, "--min", "citation_rec=50,str_em=34"]
    assert main(list(map(str, ["score", answers, *gate]))) == 1
    said = "expected at least 34, actual 33.33"
    line = f"asqa_system, str_em: {said}\ncitepipe: 1 of 2 checks failed\n"
    assert capsys.readouterr().err == line
    assert failures(junit) == {"asqa_system citation_rec": [], "asqa_system str_em": [said]}
    printed(capsys, "score", answers, "--min", "str_em=33")
    assert "'bleu' is no metric" in fails(capsys, "score", answers, "--min", "bleu=1")


def test_a_package_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: Patch, capsys: Captured
):
    monkeypatch.setitem(sys.modules, "filelock", None)
    line = fails(capsys, "fetch", "https://host.invalid/a.json", tmp_path / "out")
    assert line == "filelock is not installed; run `pip install 'citepipe[train]'`\n"


def test_every_command_has_help(capsys: Captured):
    with pytest.raises(SystemExit):
        main(["?"])
    commands = re.findall("'([a-z-]+)'", capsys.readouterr().err)
    assert "judges" in commands
    for command in commands:
        with pytest.raises(SystemExit, match=r"^0$"):
            main([command, "--help"])


def test_each_command_imports_what_it_runs(answers: Path):
    code = (
        "import atexit, sys; from citepipe.cli import main\n"
        "atexit.register(lambda: print('imported', *sys.modules)); main(sys.argv[1:])"
    )

    def imported(*arguments: object) -> set[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        printed = subprocess.check_output(command, text=True, cwd=answers.parent)
        return set(printed.rpartition("imported")[2].split())

    # NLTK would take a file of this name that lies where the command is run.
    (answers.parent / "norm.py").write_text("raise SystemExit('norm.py was run')")

    heavy = {"torch", "transformers", "scipy", "sklearn", "pandas", "matplotlib", "spacy"}
    light = {"numpy", "nltk", "pydantic"}
    assert imported("--help").isdisjoint(heavy | light)
    assert imported("score", answers) & (heavy | light) == light
    assert imported("score", answers, "--metrics", "rougeLsum") & heavy == set()


def test_check_says_what_is_wrong_and_ends_with_1(tmp_path: Path, capsys: Captured):
    good, bad = tmp_path / "good_eli5.jsonl", tmp_path / "bad_eli5.jsonl"
    good.write_text('{"question": "Why?", "docs": ["So."], "claims": ["So."]}\n')
    assert f"{good}: rows 1 (eli5 1)" in printed(capsys, "check", good)
    bad.write_text('{"question": 3, "docs": ["So."]}\n{"docs": 1}\n')
    assert main(["check", str(bad), "--json", "-"]) == 1
    written = capsys.readouterr()
    assert json.loads(written.out)["uses"]["bad"] == 2
    assert written.err == f"citepipe: {bad}: not usable as it is\n"


def test_fetch_and_merge_say_what_is_missing(tmp_path: Path, capsys: Captured):
    address, out = "https://host/a.json", tmp_path / "out"
    line = f"{tmp_path}: expected a new folder, it is there already\n"
    assert fails(capsys, "fetch", address, tmp_path) == line
    line = fails(capsys, "fetch", address, out, "--sha256", "12")
    assert "--sha256: expected 64 hexadecimal digits" in line
    line = f"{tmp_path}/no: no such directory or archive\n"
    assert fails(capsys, "merge", tmp_path / "no", out) == line
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": null}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "it names no base model; say --base" in fails(capsys, "merge", tmp_path, out)


def test_merge_records_what_the_configuration_says(
    tiny_base: Path, tmp_path: Path, capsys: Captured
):
    trained, out = tmp_path / "results" / "models" / "mine" / "seed3", tmp_path / "out"
    shutil.copytree(tiny_base, trained)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model: {{base: {tiny_base}, adapter: null}}\n"
        "data: {train: [a.json], dev: [a.json], test: {asqa: a.json}}\n"
        "verifiers: {train: lexical, report: {lexical: lexical}}\n"
        "systems: {mine: {train: sft, data: teacher, options: {epochs: 7}}}\n"
    )
    printed(capsys, "merge", trained, out, "--configfile", config)
    card = (out / "README.md").read_text()
    record = json.loads(card.partition("```json")[2].partition("```")[0])["training"]
    assert (record["system"], record["seed"], record["options"]["epochs"]) == ("mine", 3, 7)
    assert record["data"]["train"] == ["a.json"]
    line = fails(capsys, "merge", tiny_base, tmp_path / "other", "--configfile", config)
    assert "expected the model of a system of" in line
