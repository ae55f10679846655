"""Files are read with clear errors and written whole."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from citepipe.data.check import check
from citepipe.data.example import Document, Example
from citepipe.data.files import (
    atomic_writer,
    read_answers,
    read_examples,
    read_jsonl,
    write_examples,
    write_jsonl,
    write_result,
)
from citepipe.errors import InputError

EXAMPLES = [Example("0", "asqa", "Who?", (Document("T", "é"),), output="Me [1].")]
OWN = '{"question": "a?", "docs": ["x"]}'


def test_a_result_file_is_what_alce_reads(tmp_path: Path) -> None:
    path = tmp_path / "asqa-result.json"
    write_result(path, {"model": "m"}, EXAMPLES)
    written = json.loads(path.read_text())
    assert written["args"] == {"model": "m"}
    assert written["data"][0]["output"] == "Me [1]."
    assert read_examples(path) == EXAMPLES
    write_examples(path, EXAMPLES)
    assert read_examples(path) == EXAMPLES


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.json", f"[{OWN}, {OWN}]", 2),
        ("a.jsonl", f"[{OWN},\n {OWN}]", 2),
        ("a.json", f"{OWN}\n\n{OWN}\n", 2),
        ("a.jsonl", f"{OWN}\r\n{OWN}", 2),
        ("a.json", OWN, 1),
        ("a.json", OWN.replace(",", ",\n"), 1),
        ("a.json", f'{{"data": [{OWN}], "args": {{}}}}', 1),
        ("a.json", f"\ufeff[{OWN}]", 1),
        ("a.json", f"[{OWN}]".replace("a?", r"a\ud83d\udeb2?"), 1),
    ],
)
def test_what_a_file_holds_decides_how_it_is_read(
    tmp_path: Path, name: str, content: str, rows: int
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    examples = read_examples(tmp_path / name, own_as="eli5")
    question = "a🚲?" if "udeb2" in content else "a?"
    assert [(e.id, e.question) for e in examples] == [(str(n), question) for n in range(rows)]


@pytest.mark.parametrize(
    ("name", "dataset"),
    [("QAMPARI_eval_gtr_top100.json", "qampari"), ("qampari-model_trained_on_asqa.json", None)],
)
def test_the_dataset_is_the_one_in_the_name_of_the_file(
    tmp_path: Path, name: str, dataset: str | None
) -> None:
    path = tmp_path / name
    path.write_text(f"[{OWN}]")
    assert read_examples(path, "eli5", own_as="qampari")[0].dataset == "eli5"
    assert read_examples(path, own_as="asqa")[0].dataset == (dataset or "asqa")
    with pytest.raises(InputError, match="dataset nq: expected one of asqa"):
        check(path, "nq")
    if dataset is None:
        for read in (read_examples, lambda path: read_answers(path, None)):
            with pytest.raises(InputError, match=r"row 0, field dataset: missing, .*--dataset"):
                read(path)


def test_what_a_files_arguments_say_goes_before_its_name(tmp_path: Path) -> None:
    for name in ("qampari-trained_on_asqa.json", "eli5.json"):
        path = tmp_path / name
        path.write_text(json.dumps({"args": {"dataset_name": "qampari"}, "data": [_answer()]}))
        assert read_answers(path, None).examples[0].dataset == "qampari"


LISTS = """['One.', "It's two."]"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.csv",
            f'Query,Contexts,Answer,Reference\nWhy?,"{LISTS.replace(chr(34), chr(34) * 2)}",So,R',
        ),
        ("a.csv", "user input;passage_2;passage 1;response;reference\nWhy?;It's two.;One.;So;R\n"),
        # As numpy prints it.
        ("a.tsv", 'query\tdocs\tanswer\treference\nWhy?\t"[\'One.\'\n ""It\'s two.""]"\tSo\tR'),
        ("a.tsv", f"\tquestion\tdocs\tanswer\tground_truth\n0\tWhy?\t{LISTS}\tSo\tR\n"),
        (
            "a.jsonl",
            '{"input": "Why?", "retrieval_context": ["One.", "It\'s two."], '
            '"actual_output": "So", "expected_output": "R"}',
        ),
    ],
)
def test_rows_of_ones_own_need_no_dataset_and_have_common_names(
    tmp_path: Path, name: str, content: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    [example] = read_answers(path, None).examples
    assert (example.dataset, example.question, example.output) == ("own", "Why?", "So")
    assert ([doc.text for doc in example.docs], example.answer) == (["One.", "It's two."], "R")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,answer\n", "expected at least one row, got none"),
        ('question,answer\n"a,b', "line 2: expected a row of a table: unexpected end of data"),
        ("question,docs,answer\na,b", "line 2: expected 3 cells as in the first line, got 2"),
        ("q,docs,answer\na,b,c", r"line 2, field question: missing \(also read as query"),
    ],
)
def test_a_broken_table_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_answers(tmp_path / "a.csv", None)


def test_parquet_is_read_or_the_package_named_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("PAR1")

    def missing(_: Path) -> None:
        raise ImportError

    monkeypatch.setattr(pd, "read_parquet", missing)
    with pytest.raises(InputError, match=r"a.parquet: Parquet is read with pyarrow: pip install"):
        read_answers(path, None)
    monkeypatch.undo()
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match=r"a.parquet: cannot be read as Parquet: "):
        read_answers(path, None)
    rows = [{"question": "Why?", "docs": [{"text": "One."}], "answer": "So"}]
    pd.DataFrame(rows).to_parquet(path)
    [example] = read_answers(path, None).examples
    assert (example.output, example.docs) == ("So", (Document("", "One."),))


def test_records_are_read_whatever_characters_they_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read: No such file"):
        read_jsonl(tmp_path / "a.jsonl")
    records = [{"a": "line\u2028separator\x85next\x0cpage"}, {"a": "🚲"}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert read_jsonl(tmp_path / "a.jsonl") == records


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail_half_way() -> None:
        with atomic_writer(path) as stream:
            stream.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def _answer(**fields: Any) -> dict[str, Any]:
    doc = {"title": "Oslo", "text": "Oslo is big."}
    return {"question": "Where?", "docs": [doc], "output": " Oslo [1].\n", **fields}


def _result(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps({"args": {}, "data": rows}))
    return path


def test_answers_are_kept_as_they_were_written(tmp_path: Path) -> None:
    path = _result(tmp_path / "eli5_test.json", _answer(), _answer(output="", docs=[]))
    file = read_answers(path, None)
    assert file.outputs == [" Oslo [1].\n", ""]
    assert [example.dataset for example in file.examples] == ["eli5", "eli5"]
    assert file.sha256 == sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (_answer(output=None), "row 1, field output: missing"),
        (_answer(output=float("nan")), "row 1, field output: expected a string .*got a number"),
        (_answer(docs=None), "row 1, field docs: missing"),
        (_answer(dataset="asqa"), "row 1, field dataset: expected eli5, got asqa"),
        ([], "row 1: expected an object, got a list"),
    ],
)
def test_a_bad_answer_is_named_or_left_out(tmp_path: Path, bad: Any, message: str) -> None:
    path = _result(tmp_path / "answers.json", _answer(), bad, _answer())
    with pytest.raises(InputError, match=message):
        read_answers(path, "eli5")
    file = read_answers(path, "eli5", skip_bad=True)
    assert [example.id for example in file.examples] == ["0", "2"]
    assert len(file.left_out) == 1


def test_answers_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = _result(tmp_path / "answers.json", {}, {})
    with pytest.raises(InputError, match=r"no row can be used; the first complaint: .*row 0"):
        read_answers(path, "eli5", skip_bad=True)
    with pytest.raises(InputError, match="dataset 'nq': expected one of asqa, qampari"):
        read_answers(path, "nq")
