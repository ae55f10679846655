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
        (
            {"docs": [5]},
            "train.json, row 3, field docs[0]: expected an object or a string, got int",
        ),
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


def test_shorter_texts_of_a_document_come_back() -> None:
    doc = {"id": "7", "title": "T", "text": "Some.", "summary": "S.", "extraction": "E."}
    example = Example.from_row(ROW | {"docs": [doc]}, "f")
    assert (example.docs[0].summary, example.docs[0].extraction) == ("S.", "E.")
    assert example.to_row()["docs"] == [doc]


@pytest.mark.parametrize("name", ["docs", "documents", "passages", "contexts"])
def test_documents_of_ones_own_may_be_strings_or_lack_titles(name: str) -> None:
    row = {
        "question": "Who?",
        name: ["One.", {"text": "Two."}, {"title": "T", "content": "Three."}],
    }
    example = Example.from_row(row, "f", own_as="eli5")
    assert example.docs == (Document("", "One."), Document("", "Two."), Document("T", "Three."))
    assert (example.dataset, dict(example.extra)) == ("eli5", {})
    assert Example.from_row(example.to_row(), "f") == example


def test_the_first_list_that_holds_documents_is_read() -> None:
    row = {"question": "Who?", "docs": [], "passages": ["One."], "contexts": ["Two."]}
    example = Example.from_row(row, "f", own_as="eli5")
    assert example.docs == (Document("", "One."),)
    assert dict(example.extra) == {"docs": [], "contexts": ["Two."]}


def test_a_question_may_stand_alone_if_documents_are_found_later() -> None:
    example = Example.from_row({"question": "Who?"}, "f", "eli5", needs_documents=False)
    assert example.docs == ()
    with pytest.raises(InputError, match="f, field docs: missing"):
        Example.from_row({"question": "Who?"}, "f", "eli5")


@pytest.mark.parametrize(
    ("row", "dataset"),
    [
        ({}, "qampari"),
        ({"dataset": "eli5"}, "eli5"),
        ({"qa_pairs": [{"short_answers": ["a"]}]}, "asqa"),
        ({"qa_pairs": []}, "qampari"),
    ],
)
def test_own_rows_count_as_what_is_said_unless_they_have_readings(
    row: dict[str, Any], dataset: str
) -> None:
    own = {"question": "Who?", "docs": []} | row
    assert Example.from_row(own, "f", own_as="qampari").dataset == dataset


def test_gold_answers_of_ones_own_may_be_strings() -> None:
    row = {"question": "Who?", "docs": [], "answers": ["a", ["b", "c"]]}
    example = Example.from_row(row, "f", "qampari")
    assert example.answers == (("a",), ("b", "c"))
    assert example.qa_pairs == ()
    # Like ASQA, each is a reading of the question.
    example = Example.from_row(row, "f", "asqa")
    assert [pair.short_answers for pair in example.qa_pairs] == [("a",), ("b", "c")]
    assert Example.from_row(example.to_row(), "f") == example


def test_all_complaints_about_a_row_are_collected() -> None:
    complaints: list[str] = []
    Example.from_row({"docs": [1, {}], "claims": 2}, "f", "eli5", complaints=complaints)
    assert complaints == [
        "f, field question: missing",
        "f, field docs[0]: expected an object or a string, got int",
        "f, field docs[1], field text: missing",
        "f, field claims: expected a list, got int",
    ]
