"""Files are read with clear errors and written whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import (
    atomic_writer,
    read_examples,
    read_jsonl,
    write_examples,
    write_jsonl,
    write_result,
)
from citepipe.errors import InputError

EXAMPLES = [Example("0", "asqa", "Who?", (Document("T", "é"),), output="Me [1].")]


def test_examples_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_examples(tmp_path / "a.json", EXAMPLES)
    write_jsonl(tmp_path / "a.jsonl", [e.to_row() for e in EXAMPLES])
    assert read_examples(tmp_path / "a.json") == EXAMPLES
    assert read_examples(tmp_path / "a.jsonl") == EXAMPLES


def test_a_result_file_is_what_alce_reads(tmp_path: Path) -> None:
    path = tmp_path / "asqa-result.json"
    write_result(path, {"model": "m"}, EXAMPLES)
    written = json.loads(path.read_text())
    assert written["args"] == {"model": "m"}
    assert written["data"][0]["output"] == "Me [1]."
    assert read_examples(path)[0].output == "Me [1]."


def test_the_dataset_is_taken_from_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "QAMPARI_eval_gtr_top100.json"
    path.write_text('[{"question": "Which?", "docs": []}]')
    assert read_examples(path)[0].dataset == "qampari"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[{]", "a.json, line 1: expected JSON, "),
        ("a.json", "{}", "a.json: expected a list of rows"),
        ("a.json", "[]", "a.json: expected at least one row"),
        ("a.jsonl", '\n{"a":\n', "a.jsonl, line 2: expected JSON"),
        ("eli5.jsonl", '\n{"docs": 1}\n', "eli5.jsonl, line 2, field docs: expected a list"),
    ],
)
def test_a_broken_file_is_one_clear_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        read_examples(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(error.value)


def test_what_was_written_is_read_whatever_characters_it_has(tmp_path: Path) -> None:
    records = [{"a": "line\u2028separator\x85next\x0cpage"}, {"a": "🚲"}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert read_jsonl(tmp_path / "a.jsonl") == records


def test_half_a_character_is_one_clear_line(tmp_path: Path) -> None:
    row = '{"question": "whole \\ud83d\\udeb2", "docs": []}'
    (tmp_path / "asqa.json").write_text(f"[{row}, {row.replace('udeb2', 'u0041')}]")
    with pytest.raises(InputError, match=r"asqa\.json, row 1: expected Unicode text, got half"):
        read_examples(tmp_path / "asqa.json")
    (tmp_path / "asqa.json").write_text(f"[{row}]")
    assert read_examples(tmp_path / "asqa.json")[0].question == "whole 🚲"


def test_json_beyond_all_depth_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match=r"a\.json: expected JSON of ordinary size and depth"):
        read_examples(tmp_path / "a.json")


def test_bytes_that_are_not_utf8_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    with pytest.raises(InputError, match="expected UTF-8 text, byte 2 is not"):
        read_examples(tmp_path / "a.json")


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        read_examples(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read"):
        read_jsonl(tmp_path / "none.jsonl")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
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


def test_bad_rows_are_left_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "eli5.jsonl"
    path.write_text('{"question": "a?", "docs": []}\n[1]\n{"que\n\n{"question": "b?", "docs": []}')
    bad: list[str] = []
    assert [(e.id, e.question) for e in read_examples(path, bad=bad)] == [("0", "a?"), ("3", "b?")]
    assert bad[0] == f"{path}, line 2: expected an object, got a list"
    assert bad[1].startswith(f"{path}, line 3: expected JSON")
    with pytest.raises(InputError, match="line 2"):
        read_examples(path)


OWN = '{"question": "a?", "docs": ["x"]}'


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
        ("a.jsonl", f"\ufeff{OWN}", 1),
        ("a.txt", f"{OWN}\n{OWN}", 2),
    ],
)
def test_what_a_file_holds_decides_how_it_is_read(
    tmp_path: Path, name: str, content: str, rows: int
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    examples = read_examples(tmp_path / name, own_as="eli5")
    assert [(e.id, e.question) for e in examples] == [(str(n), "a?") for n in range(rows)]


def test_rows_of_no_dataset_are_refused_unless_told(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(OWN)
    with pytest.raises(InputError, match=r"mine\.jsonl, line 1, field dataset: missing"):
        read_examples(tmp_path / "mine.jsonl")
    assert read_examples(tmp_path / "mine.jsonl", own_as="qampari")[0].dataset == "qampari"
    assert read_examples(tmp_path / "mine.jsonl", "eli5", own_as="qampari")[0].dataset == "eli5"
