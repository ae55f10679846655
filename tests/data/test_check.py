"""What is said of files: broken ones, odd ones and good ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.check import check
from citepipe.data.files import read_examples
from citepipe.errors import InputError

DOC = {"title": "Oslo", "text": "Oslo is in Norway."}
ROW: dict[str, Any] = {
    "id": "a",
    "dataset": "asqa",
    "question": "Where is Oslo?",
    "docs": [DOC],
    "output": ["In Norway [1]."],
    "qa_pairs": [{"question": "", "short_answers": ["Norway"]}],
}
GOOD = json.dumps(ROW)


LOST = "expected JSON, EOF while parsing an object at column 1"
# The file's name, its content, and the line that follows its name.
BROKEN_FILES: list[tuple[str, str | bytes, str]] = [
    ("a.jsonl", " \n\n", ": expected at least one row, got an empty file"),
    ("a.json", "[]", ": expected at least one row, got none"),
    ("a.json", "{}", ": expected a list of rows, or an object with the list as `data`"),
    ("a.json", "[1, 2", ", line 1: expected JSON, EOF while parsing a list at column 5"),
    ("a.json", b"\x1f\x8b\x08\x00", ": expected UTF-8 text, byte 1 is not"),
    ("a.jsonl", f"{GOOD}\n{{\n", f", line 2: {LOST}"),
    ("a.json", f"{GOOD}\n{{\n", f", line 2: {LOST}"),
    ("a.jsonl", f"[1]\n{GOOD}", ", line 1: expected an object, got a list"),
    ("a.json", f'[{GOOD}, "x"]', ", row 1: expected an object, got a string"),
    (
        "a.json",
        '[\n"\\udez2"]',
        ", line 2: expected JSON, invalid escape at column 6",
    ),
    ("a.json", "[" * 300, ", line 1: expected JSON, recursion limit exceeded at column 202"),
]

# The fields of a row that are other than in a good one, and the line that names the row's field.
BROKEN_ROWS: list[tuple[dict[str, Any], str]] = [
    (
        {"question": "gone"},
        "question: missing (also read as query, user_input, input, topic, narrative)",
    ),
    ({"docs": "text"}, "docs: expected a list, got a string"),
    ({"docs": [DOC | {"extraction": {}}]}, "docs[0].extraction: expected a string, got an object"),
    (
        {"docs": "gone", "passages": [{"content": 1}]},
        "passages[0].content: expected a string, got a number",
    ),
    (
        {"output": [{"text": "a", "citations": 5}]},
        "output[0].citations: expected a list, got a number",
    ),
    ({"answer": ["x"]}, "answer: expected a string, got a list"),
    ({"annotations": [{}]}, "annotations[0]: expected an object with long_answer"),
    ({"qa_pairs": {}}, "qa_pairs: expected a list, got an object"),
    ({"qa_pairs": [{"question": "x"}]}, "qa_pairs[0].short_answers: missing"),
    ({"answers": [["x", None]]}, "answers[0][1]: expected a string, got null"),
    (
        {"answers": {"gpt4": {"claims": [{"evidence": [1]}]}}},
        "answers.gpt4.claims[0].evidence[0]: expected a string, got a number",
    ),
]


def _check_broken(path: Path, line: str) -> None:
    """`check` finds just the one error that `read_examples` refuses the file for."""
    report = check(path)
    errors = [found.lines for found in report.findings if found.level == "error"]
    assert errors == [[f"{path}{line}"]]
    assert not report.is_usable
    assert f"error: {path}{line}" in report.lines()
    with pytest.raises(InputError) as error:
        read_examples(path)
    assert str(error.value) == f"{path}{line}"


@pytest.mark.parametrize(("name", "content", "line"), BROKEN_FILES)
def test_a_broken_file_is_one_line(
    tmp_path: Path, name: str, content: str | bytes, line: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    _check_broken(path, line)


@pytest.mark.parametrize(("change", "line"), BROKEN_ROWS)
def test_a_broken_row_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    path = tmp_path / "a.json"
    row = {key: value for key, value in (ROW | change).items() if value != "gone"}
    path.write_text(f"[{GOOD}, {json.dumps(row)}]")
    _check_broken(path, f", row 1, field {line}")


def _checked(tmp_path: Path, *rows: Any, name: str = "a.json", **settings: Any) -> Any:
    path = tmp_path / name
    path.write_text(json.dumps(rows))
    return check(path, **settings)


def _said(report: Any, level: str = "warning") -> list[str]:
    lines = [line for found in report.findings if found.level == level for line in found.lines]
    return [line.removeprefix(f"{report.file}, ") for line in lines]


def test_a_good_file_has_no_findings(tmp_path: Path) -> None:
    report = _checked(tmp_path, ROW)
    assert report.is_usable
    assert report.lines() == [
        f"{tmp_path}/a.json: rows 1 (asqa 1)",
        "distilled, with a cited answer in `output`: 1",
        "sampled from, trained on by RL, tested: 1",
        "tested with gold answers: 1",
        "scored as they stand (`citepipe score`): 1",
    ]
    values = report.as_json()
    assert json.loads(json.dumps(values)) == values
    assert (values["is_usable"], values["findings"]) == (True, [])


def test_every_problem_of_every_row_is_found(tmp_path: Path) -> None:
    bad = {"question": 1, "dataset": "nq", "docs": [{}, 3], "output": {}, "claims": [2]}
    report = _checked(tmp_path, bad, ROW, bad, *[{"question": "Who?", "docs": ["a"]}] * 9, lines=2)
    complaints = [
        "field dataset: expected one of asqa, qampari, eli5, expertqa, own, got 'nq'",
        "field question: expected a string, got a number",
        "field docs[0].text: missing",
        "field docs[1]: expected an object or a string, got a number",
        "field output: expected a string or a list of them, got an object",
        "field claims[0]: expected a string, got a number",
    ]
    assert _said(report, "error") == [f"row {n}, {line}" for line in complaints for n in (0, 2)]
    assert (report.uses["bad"], report.uses["asked"], report.uses["repeated"]) == (2, 2, 8)
    assert "warning: … and 7 more: field claims: no gold answers" in report.lines()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"question": " "}, "question: empty"),
        ({"docs": []}, "docs: no documents"),
        ({"docs": [DOC, {"text": " "}]}, "docs[1]: a document without text"),
        ({"docs": [DOC, DOC]}, "docs[1]: the same document as docs[0]"),
        ({"qa_pairs": []}, "qa_pairs: no gold answers, so no correctness of asqa is computed"),
        (
            {"qa_pairs": [{"short_answers": ["Norway", "!"]}]},
            "qa_pairs[0]: a gold answer without letters and digits",
        ),
        ({"output": [" "]}, "output: an empty answer"),
        ({"output": ["A [1].", "B."]}, "output: others in the same row, which are not read"),
        ({"output": "A [1].\nB."}, "output: several lines, of which alce reads the first"),
        ({"output": "In Norway."}, "output: no citation that alce reads"),
        ({"output": "word " * 200 + "[1]."}, "output: an answer of more than 200 words, 201"),
        ({"output": "In Norway [1][4]."}, "output: cites what is no document, [4] of 1"),
        (
            {"output": "A [7].", "docs": [DOC | {"text": str(n)} for n in range(9)]},
            "output: cites documents behind the first 5, which are kept: [7]",
        ),
        ({"question": "Where\x07?"}, "question: an unusual character, U+0007"),
        ({"docs": [DOC | {"title": "\ufffd"}]}, "docs[0]: an unusual character, U+FFFD"),
    ],
)
def test_what_is_odd_is_a_warning(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    report = _checked(tmp_path, ROW | change)
    assert _said(report) == [f"row 0, field {line}"]
    assert report.is_usable


def test_half_of_a_character_is_read_as_what_stands_for_one(tmp_path: Path) -> None:
    lines = [
        json.dumps(ROW | {"output": text}) for text in ("A \ud83d\ude00 [1].", "A \ud83d [1].")
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    whole, half = read_examples(path)
    assert (whole.output, half.output) == ("A \U0001f600 [1].", "A \ufffd [1].")
    assert any("output: an unusual character, U+FFFD" in line for line in _said(check(path)))


def test_rows_that_nothing_assigns_are_looked_at_as_they_are_scored(tmp_path: Path) -> None:
    row = {"question": "1?", "docs": ["a"], "output": "A [1].\n\nA b [1].", "claims": ["A."]}
    assert not _said(_checked(tmp_path, row))
    [line] = _said(_checked(tmp_path, row | {"dataset": "eli5"}))
    assert "several lines, of which alce reads the first" in line


def test_rows_are_compared_with_those_before(tmp_path: Path) -> None:
    other = ROW | {"question": "where is  OSLO", "docs": [DOC | {"title": "Other"}]}
    report = _checked(tmp_path, ROW, ROW | {"id": "b"}, other)
    assert _said(report) == [
        "row 1, field question: as in an earlier row, row 0, with the same documents, and left out",
        "row 2, field question: as in an earlier row, row 0, other documents",
    ]
    assert (report.uses["repeated"], report.uses["asked"]) == (1, 2)


def test_rows_are_counted_by_what_becomes_of_them(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "1?", "docs": ["a"], "output": "A [1].", "claims": ["A."]},
        {"question": "2?", "docs": ["a", "b", "c"], "answer": "A.", "claims": ["A."]},
        {"question": "3?", "passages": ["a"]},
        {"question": "4?", "answer": "A."},
        {"question": "3", "contexts": ["a"]},
    ]
    uses = _checked(tmp_path, *rows, documents=2).uses
    names = ["attributed", "cut", "repeated", "taught", "without_documents"]
    # `score` takes a row's `answer` for a system's where nothing says otherwise.
    assert uses == dict.fromkeys(names, 1) | {"asked": 3, "tested": 2, "scored": 3, "own": 3}
    # A name with two datasets is asked about.
    assert "scored" not in _checked(tmp_path, *rows, name="asqa_or_eli5.json").uses


def test_fields_that_nothing_reads_are_named_once(tmp_path: Path) -> None:
    row = ROW | {"anwser": "x", "prompt": "z", "docs": [DOC | {"score": 1}]}
    report = _checked(tmp_path, row, row | {"id": "b", "question": "b?"})
    assert [
        f"warning: {tmp_path}/a.json, field {line}"
        for line in (
            "anwser: nothing reads it (in 2 places); answer is read",
            "docs[].score: nothing reads it (in 2 places)",
            "prompt: nothing reads it (in 2 places)",
        )
    ] == report.lines()[1:4]


def test_mutated_files_are_never_more_than_complaints(tmp_path: Path) -> None:
    """A file is usable exactly if it can be read, whatever was done to it."""
    rng = random.Random(0)
    odd = [None, 0, 1.5, "", "\x00", [], {}, [[]], {"a": {}}, ["x"], "asqa", [None], True]
    usable = 0
    for _ in range(300):
        row = json.loads(GOOD) | {"claims": ["a"], "answers": [["b"]]}
        for _ in range(rng.choice((1, 2))):
            place: Any = rng.choice((row, row["docs"][0] if row.get("docs") == [DOC] else row))
            place[rng.choice((*place, "new", "sent"))] = rng.choice(odd)
        content = bytearray(json.dumps([row]).encode())
        if rng.random() < 0.3:
            content[rng.randrange(len(content))] = rng.randrange(256)
        path = tmp_path / rng.choice(("a.json", "a.jsonl"))
        path.write_bytes(content)
        report = check(path)
        assert all(line.isprintable() for line in report.lines())
        try:
            read_examples(path, needs_documents=False, own_as="eli5")
            complaint = None
        except InputError as error:
            complaint = str(error)
        assert report.is_usable == (complaint is None)
        assert complaint is None or complaint.isprintable()
        usable += report.is_usable
    assert 30 < usable < 270
