"""Rows in and out, and every way in which a row can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from citepipe.data.example import Document, Example
from citepipe.errors import InputError

ROW: dict[str, Any] = {
    "id": "a1",
    "dataset": "asqa",
    "question": "Who?",
    "docs": [{"id": "7", "title": "T", "text": "Some text."}],
    "output": ["It was T [1]."],
    "answer": None,
    "annotations": [{"long_answer": "Long one."}, {"long_answer": "Long two."}],
    "qa_pairs": [{"question": "Who first?", "short_answers": ["T", "Tee"]}],
    "answers": None,
    "claims": None,
    "score": 3,
}


def test_a_row_comes_back_as_it_went_in() -> None:
    assert Example.from_row(ROW, "f").to_row() == ROW


def test_fields_of_the_authors_files_are_read() -> None:
    example = Example.from_row(ROW, "f")
    assert example.output == "It was T [1]."
    assert example.long_answers == ("Long one.", "Long two.")
    assert example.qa_pairs[0].short_answers == ("T", "Tee")
    assert example.docs[0].passage == "Title: T\nSome text."


def test_rows_of_alce_name_no_dataset_and_hold_the_output_as_a_string() -> None:
    row = {"question": "Who?", "docs": [], "output": "Me.", "answers": [["Me"], ["You", "Ye"]]}
    example = Example.from_row(row, "f", dataset="qampari", number=4)
    assert (example.id, example.dataset, example.output) == ("4", "qampari", "Me.")
    assert example.answers == (("Me",), ("You", "Ye"))


def test_an_extract_takes_the_place_of_the_text() -> None:
    assert Document("T", "text", sent="extract").passage == "Title: T\nextract"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": None}, "train.json, row 3, field question: missing"),
        ({"question": 5}, "train.json, row 3, field question: expected a string, got int"),
        ({"docs": None}, "train.json, row 3, field docs: missing"),
        ({"docs": ["x"]}, "train.json, row 3, field docs[0]: expected an object, got a string"),
        ({"docs": [{"title": "T"}]}, "train.json, row 3, field docs[0], field text: missing"),
        (
            {"output": 4},
            "train.json, row 3, field output: expected a string or a list of them, got int",
        ),
        (
            {"dataset": "nq"},
            "train.json, row 3, field dataset: expected one of asqa, qampari, eli5, expertqa, "
            "got 'nq'",
        ),
        (
            {"qa_pairs": [{"short_answers": [1]}]},
            "train.json, row 3, field qa_pairs[0].short_answers[0]: expected a string, got int",
        ),
        (
            {"claims": "c"},
            "train.json, row 3, field claims: expected a list, got a string",
        ),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Example.from_row({**ROW, **change}, "train.json, row 3")
    assert str(error.value) == message


def test_a_row_that_is_no_object_is_named() -> None:
    with pytest.raises(InputError, match="row 0: expected an object, got a list"):
        Example.from_row([], "f, row 0")
