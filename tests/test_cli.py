import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from citepipe.cli import main

DOCS = [
    {"title": "Anna Berg", "text": "Anna Berg was born in Oslo in 1970."},
    {"title": "Oslo", "text": "Oslo is the capital of Norway."},
]


def row(output: Any = "Anna Berg was born in Oslo [1].", **fields: Any) -> dict[str, Any]:
    answers = {"qa_pairs": [{"question": "Where?", "short_answers": ["Oslo"]}]}
    return (
        {"question": "Where was Anna Berg born?", "docs": DOCS, "output": output} | answers | fields
    )


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "asqa_system.json"
    rows = [row(), row("Anna Berg was born in Rome [1]. She lives."), row("")]
    path.write_text(json.dumps({"args": {}, "data": rows}))
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr with which a command ends with status 1."""
    assert main(list(map(str, arguments))) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("citepipe: ")
    assert written.err.count("\n") == 1
    return written.err


def test_score_prints_a_table_and_writes_json(
    answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "new" / "scores.json"
    assert main(["score", str(answers), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "3 answers, 3 statements, 2 citations; verifier lexical" in printed
    assert "citation_rec                50.00   [0.00, 100.00]" in printed
    result = json.loads(out.read_text())
    # Of two answers with statements one has all supported, the other none; the empty one is left.
    assert result["metrics"]["citation_rec"] == 50
    assert result["metrics"]["citation_prec"] == 50
    assert result["metrics"]["str_em"] == pytest.approx(100 / 3)
    assert set(result) >= {"metrics", "per_example", "provenance"}
    assert [own["id"] for own in result["per_example"]] == ["0", "1", "2"]


def test_sane_rules_count_the_empty_answer(answers: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["score", str(answers), "--rules", "sane", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["citation_rec"] == pytest.approx(100 / 3)
    assert result["provenance"]["switches"]["zero_is_last"] is False
    assert result["provenance"]["switches"]["skip_empty"] is False


def test_metrics_without_a_verifier_load_none(answers: Path, capsys: pytest.CaptureFixture[str]):
    command = ["score", str(answers), "--metrics", "length,str_em", "--verifier", "no-such-model"]
    assert main([*command, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"] == {
        "length": pytest.approx(14 / 3),
        "str_em": pytest.approx(100 / 3),
    }
    assert result["provenance"]["verifier"] is None


def test_bad_rows_stop_or_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "asqa.jsonl"
    path.write_text("\n".join([json.dumps(row()), json.dumps(row(output=3)), '{"question', "", ""]))
    assert "asqa.jsonl, line 2, field output: expected a string" in fails(capsys, "score", path)
    assert main(["score", str(path), "--skip-bad", "--json", "-"]) == 0
    written = capsys.readouterr()
    assert written.err.splitlines()[-1] == "2 bad rows were left out"
    result = json.loads(written.out)
    assert result["counts"]["examples"] == 1
    assert len(result["left_out"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nq"], "dataset 'nq': expected one of asqa"),
        (["--dataset", "eli5"], "row 0, field dataset: expected eli5, got asqa"),
        (["--metrics", "bleu"], "metric 'bleu'"),
        (["--splitter", "commas"], "splitter 'commas'"),
        (["--verifier", "{tmp}"], "not a model directory"),
        (["--verifier", "lexical?x=1"], "lexical takes no argument"),
        (["--json", "{tmp}"], "it is a directory"),
        (["--json", "{tmp}/asqa_system.json/x"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line(
    answers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    rows = [row(dataset="asqa")]
    answers.write_text(json.dumps(rows))
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert message in fails(capsys, "score", answers, *given)


def test_nothing_is_left_half_written(
    answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fails(capsys, "score", answers, "--json", tmp_path / "out.json", "--verifier", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asqa_system.json"]


def test_a_wrong_usage_ends_with_2(answers: Path):
    for wrong in (["score"], ["reward", str(answers)], ["score", str(answers), "--resamples", "0"]):
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2


def test_reward_prints_totals(answers: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["reward", str(answers), "--verifier", "lexical", "--correctness", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "0", "1", "2", "mean"]
    assert lines[1].split()[1:] == ["+0.20", "+0.20", "+0.00", "+0.40"]
    assert lines[2].split()[1:] == ["-0.40", "-0.20", "+0.00", "-0.60"]


def test_two_systems_are_compared(
    answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    assert main(["score", str(answers), "--json", str(first)]) == 0
    better = [row(), row(), row("")]
    answers.write_text(json.dumps(better))
    assert main(["score", str(answers), "--json", str(second)]) == 0
    capsys.readouterr()
    assert main(["compare", str(first), str(second), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    assert found["n"] == 3
    assert found["metrics"]["citation_rec"]["difference"] == 50
    assert main(["compare", str(first), str(second)]) == 0
    assert "citation_rec                50.00   100.00   +50.00" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from citepipe.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'nltk', 'pydantic', 'spacy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout


def test_check_says_what_is_wrong_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good_eli5.jsonl"
    good.write_text('{"question": "Why?", "docs": ["So."], "claims": ["So."]}\n')
    assert main(["check", str(good)]) == 0
    assert f"{good}: JSON lines of 1 row (eli5 1)" in capsys.readouterr().out
    bad = tmp_path / "bad_eli5.jsonl"
    bad.write_text('{"question": 3, "docs": ["So."]}\n{"docs": 1}\n')
    assert main(["check", str(bad), "--json", "-"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["uses"]["bad"] == 2
    assert said.err == f"citepipe: {bad}: not usable as it is\n"


def test_fetch_refuses_a_folder_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "https://host/a.json", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"citepipe: {tmp_path}: expected a new folder, it is there already\n"
    )
    assert main(["fetch", "https://host/a.json", str(tmp_path / "o"), "--sha256", "12"]) == 1
    assert "--sha256: expected 64 hexadecimal digits" in capsys.readouterr().err


def test_merge_tells_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", str(tmp_path / "no"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"citepipe: {tmp_path}/no: no such directory or archive\n"
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": null}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert main(["merge", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "it names no base model; say --base" in capsys.readouterr().err


def test_merge_records_what_the_configuration_says(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    trained = tmp_path / "results" / "models" / "mine" / "seed3"
    shutil.copytree(tiny_base, trained)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model: {{base: {tiny_base}, adapter: null}}\n"
        "data: {train: [a.json], dev: [a.json], test: {asqa: a.json}}\n"
        "verifiers: {train: lexical, report: {lexical: lexical}}\n"
        "systems: {mine: {train: sft, data: teacher, options: {epochs: 7}}}\n"
    )
    arguments = ["merge", str(trained), str(tmp_path / "out"), "--configfile", str(config)]
    assert main(arguments) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    record = json.loads(card.partition("```json")[2].partition("```")[0])
    assert (record["system"], record["seed"]) == ("mine", 3)
    assert record["options"]["epochs"] == 7
    assert record["data"]["train"] == ["a.json"]
    capsys.readouterr()
    arguments[1:3] = [str(tiny_base), str(tmp_path / "other")]
    assert main(arguments) == 1
    assert "expected the model of a system of" in capsys.readouterr().err
