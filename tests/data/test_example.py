"""Rows in and out: the authors', ALCE's, EXPERTQA's own, and a user's. Bad ones: test_check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples
from citepipe.data.validate import RowError
from citepipe.scoring.expertqa import write_expertqa
from citepipe.text.sentences import load_splitter

ROW: dict[str, Any] = {
    "id": "a1",
    "dataset": "asqa",
    "question": "Who?",
    "docs": [{"id": "7", "title": "T", "text": "Some text.", "summary": "S.", "extraction": "E."}],
    "output": ["It was T [1]."],
    "answer": None,
    "annotations": [{"long_answer": "Long one."}, {"long_answer": "Long two."}],
    "qa_pairs": [{"question": "Who first?", "short_answers": ["T", "Tee"]}],
    "answers": None,
    "claims": None,
    "score": 3,
}


def test_a_row_of_the_authors_comes_back_as_it_went_in() -> None:
    example = Example.from_row(ROW, "f")
    assert example.output == "It was T [1]."
    assert example.long_answers == ("Long one.", "Long two.")
    assert example.qa_pairs[0].short_answers == ("T", "Tee")
    assert (example.docs[0].summary, example.docs[0].extraction) == ("S.", "E.")
    assert example.to_row() == ROW


def test_rows_of_alce_name_no_dataset_and_hold_the_output_as_a_string() -> None:
    row = {"question": "Who?", "docs": [], "output": "Me.", "answers": [["Me"], ["You", "Ye"]]}
    example = Example.from_row(row, "f", dataset="qampari", number=4)
    assert (example.id, example.dataset, example.output) == ("4", "qampari", "Me.")
    assert example.answers == (("Me",), ("You", "Ye"))


SPLIT = [{"text": "It\nis. So.", "citations": ["b", 0]}, {"text": "No.", "citations": ["7" * 5000]}]


@pytest.mark.parametrize(
    ("fields", "texts", "cited"),
    [
        # Places, or ids, in the list of references, whose passages come first.
        ({"references": ["b", "a", "c"]}, ["B", "A", "", "D"], ["[1][1]", "[5]"]),
        # Without it, of the documents themselves.
        ({}, ["A", "B", "D"], ["[2][1]", "[4]"]),
        ({"docs": None, "references": ["Text one.", "b"]}, ["Text one.", "b"], ["[3][1]", "[3]"]),
    ],
)
def test_an_answer_may_come_as_a_list_of_statements(
    fields: dict[str, Any], texts: list[str], cited: list[str]
) -> None:
    docs = [{"docid": name, "segment": name.upper()} for name in "abd"]
    row = {"topic": "Who?", "topic_id": 7, "docs": docs, "answer": SPLIT} | fields
    example = Example.from_row(row, "f", own_as="own")
    assert [doc.text for doc in example.docs] == texts
    assert example.parts == (f"It is. So. {cited[0]}", f"No. {cited[1]}")
    assert (example.id, example.output) == ("7", " ".join(example.parts))
    read = example.read(example.output, load_splitter()).statements
    assert [statement.text for statement in read] == list(example.parts)


@pytest.mark.parametrize(
    ("fields", "output", "answer"),
    [
        ({"answer": "A"}, None, "A"),
        ({"answer": "A", "reference": "R"}, "A", "R"),
        ({"answer": "A", "ground_truths": ["R", "S"]}, "A", None),
        ({"answer": "A", "response": ""}, "", "A"),
    ],
)
def test_answer_is_a_systems_where_something_else_is_the_reference(
    fields: dict[str, Any], output: str | None, answer: str | None
) -> None:
    example = Example.from_row({"query": "Who?", "docs": [], **fields}, "f", "eli5")
    assert (example.output, example.answer) == (output, answer)
    assert example.long_answers == tuple(fields.get("ground_truths", ()))
    one = Example.from_row({"query": "Who?", "context": "A."}, "f", "eli5")
    assert one.docs == (Document("", "A."),)
    own = Example.from_row({"query": "Who?", "docs": [], **fields}, "f", own_as="own")
    assert own.output == ("A" if output is None else output)


def test_an_extract_takes_the_place_of_the_text() -> None:
    assert Document("T", "text").passage == "Title: T\ntext"
    assert Document("T", "text", sent="extract").passage == "Title: T\nextract"
    row = {"question": "Who?", "docs": [{"title": "T", "sent": "extract"}]}
    assert Example.from_row(row, "f", "eli5").docs[0].text == "extract"


@pytest.mark.parametrize("name", ["docs", "documents", "passages", "contexts"])
def test_documents_of_ones_own_may_be_strings_or_lack_titles(name: str) -> None:
    with pytest.raises(RowError, match="f, field docs: missing"):
        Example.from_row({"question": "Who?"}, "f", "eli5")
    docs = ["One.", {"text": "Two.", "id": 2}, {"title": "T", "text": None, "content": "Three."}]
    example = Example.from_row({"docs": [], "question": "Who?", name: docs}, "f", own_as="eli5")
    first, second, third = example.docs
    assert (first, second) == (Document("", "One."), Document("", "Two.", id="2"))
    assert third == Document("T", "Three.")
    assert dict(example.extra) == ({} if name == "docs" else {"docs": []})
    assert Example.from_row(example.to_row(), "f") == example


def test_own_rows_count_as_the_option_says_unless_they_have_readings() -> None:
    readings = [{"short_answers": ["a"]}]
    for row, dataset in (({}, "qampari"), ({"qa_pairs": readings}, "asqa")):
        own: dict[str, Any] = {"question": "Who?", "docs": []} | row
        assert Example.from_row(own, "f", own_as="qampari").dataset == dataset


def test_gold_answers_of_ones_own_may_be_strings() -> None:
    row = {"question": "Who?", "docs": [], "answers": ["a", ["b", "c"]]}
    example = Example.from_row(row, "f", "qampari")
    assert (example.answers, example.qa_pairs) == ((("a",), ("b", "c")), ())
    # Like ASQA, each is a reading of the question.
    example = Example.from_row(row, "f", "asqa")
    assert [pair.short_answers for pair in example.qa_pairs] == [("a",), ("b", "c")]
    assert Example.from_row(example.to_row(), "f") == example


def _claim(text: str, *evidence: str, revised: str | None = None) -> dict[str, Any]:
    return {"claim_string": text, "evidence": list(evidence), "revised_claim": revised}


ANSWER = {
    "answer_string": "Ice is cold [2]. It melts [4][9]. So what [2].",
    "attribution": ["[1] a.org", "[2] b.org", "[3] c.org", "[4] d.org"],
    "claims": [
        _claim("Ice is cold [2].", "[2] b.org\n\nCold ice.", revised="Ice is very cold [2]."),
        _claim("It melts [4][9].", "[4] d.org\n\nIt melts.\nOften.", revised="It melts [4]."),
        _claim("So what [2].", "[2] b.org\n\nCold ice.", revised=""),
    ],
    "revised_answer_string": "Ice is very cold [2].\nIt melts [4].\n",
}


def _expertqa(*answers: dict[str, Any], **more: Any) -> Example:
    named = {f"system {n}": answer for n, answer in enumerate(answers)}
    row = {"question": "Ice?", "annotator_id": "x", "answers": named, "metadata": {"a": "b"}}
    return Example.from_row(row | more, "f, line 1", number=3)


def test_passages_of_the_evidence_become_documents_and_citations_follow() -> None:
    example = _expertqa(ANSWER)
    assert (example.id, example.dataset, example.question) == ("3", "expertqa", "Ice?")
    assert example.docs == (Document("b.org", "Cold ice."), Document("d.org", "It melts.\nOften."))
    # [9] stands for no passage, and for no document afterwards.
    assert example.output == "Ice is cold [1]. It melts [2][12]. So what [1]."
    assert example.answer == "Ice is very cold. It melts."
    assert example.claims == ("Ice is very cold.", "It melts.")
    assert dict(example.extra) == {"annotator_id": "x", "metadata": {"a": "b"}}
    assert Example.from_row(example.to_row(), "f") == example


def test_a_cited_address_without_a_passage_is_a_document_without_text() -> None:
    claims = [_claim("A [1].", "[1] a.org\n\nA."), _claim("B [3].", "[3] c.org")]
    example = _expertqa({"answer_string": "A [1]. B [3].", "claims": claims})
    assert example.docs == (Document("a.org", "A."), Document("c.org", ""))
    assert example.output == "A [1]. B [2]."
    assert (example.answer, example.claims) == (None, ())


def test_the_answer_that_was_revised_is_taken() -> None:
    # Addresses without passages are no documents.
    other = {"answer_string": "Other.", "claims": [_claim("A [1].", "[1] a.org")]}
    assert _expertqa(other, ANSWER).answer is not None
    assert (_expertqa(other).output, _expertqa(other).docs) == ("Other.", ())
    assert _expertqa().output is None


def test_documents_of_the_row_itself_go_first() -> None:
    example = _expertqa(ANSWER, passages=["Mine."])
    assert example.docs == (Document("", "Mine."),)
    # The system's answer cites others.
    assert example.output is None
    assert example.claims == ("Ice is very cold.", "It melts.")


def test_what_is_written_for_expertqas_programs_is_read_again(tmp_path: Path) -> None:
    docs = (Document("T", "One."), Document("U", "Two."))
    example = Example("7", "expertqa", "What?", docs, extra={"annotator_id": "x"})
    text = "It is one [1]. And two [2]."
    answer = example.read(text, load_splitter())
    write_expertqa(tmp_path / "a.jsonl", [example], [answer], "ours")
    (again,) = read_examples(tmp_path / "a.jsonl")
    # Nobody has revised it yet.
    assert (again.docs, again.output, again.answer, again.claims) == (docs, text, None, ())
