"""Rows of EXPERTQA's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples
from citepipe.errors import InputError
from citepipe.score.expertqa import write_expertqa
from citepipe.text.sentences import load_splitter


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
ROW = {"question": "Ice?", "annotator_id": "x", "answers": {"rr": ANSWER}, "metadata": {"a": "b"}}


def test_passages_of_the_evidence_become_documents_and_citations_follow() -> None:
    example = Example.from_row(ROW, "f", number=3)
    assert (example.id, example.dataset, example.question) == ("3", "expertqa", "Ice?")
    assert example.docs == (Document("b.org", "Cold ice."), Document("d.org", "It melts.\nOften."))
    # [9] stands for no passage, and for no document afterwards.
    assert example.output == "Ice is cold [1]. It melts [2][12]. So what [1]."
    assert example.answer == "Ice is very cold. It melts."
    assert example.claims == ("Ice is very cold.", "It melts.")
    assert dict(example.extra) == {"annotator_id": "x", "metadata": {"a": "b"}}
    assert Example.from_row(example.to_row(), "f") == example


def test_a_cited_address_without_a_passage_is_a_document_without_text() -> None:
    answer = {
        "answer_string": "A [1]. B [3].",
        "claims": [_claim("A [1].", "[1] a.org\n\nA."), _claim("B [3].", "[3] c.org")],
    }
    example = Example.from_row(ROW | {"answers": {"rr": answer}}, "f")
    assert example.docs == (Document("a.org", "A."), Document("c.org", ""))
    assert example.output == "A [1]. B [2]."
    assert (example.answer, example.claims) == (None, ())


def test_addresses_alone_are_no_documents() -> None:
    answer = ANSWER | {"claims": [_claim("A [1].", "[1] a.org", revised="A [1].")]}
    example = Example.from_row(ROW | {"answers": {"bing_chat": answer}}, "f")
    assert example.docs == ()
    assert example.output == ANSWER["answer_string"]
    assert example.claims == ("A.",)


def test_the_answer_that_was_revised_is_taken() -> None:
    other = {"answer_string": "Other.", "claims": [], "revised_answer_string": None}
    assert Example.from_row(ROW | {"answers": {"a": other, "rr": ANSWER}}, "f").answer is not None
    assert Example.from_row(ROW | {"answers": {"a": other}}, "f").output == "Other."
    assert Example.from_row(ROW | {"answers": {}}, "f").output is None


def test_documents_of_the_row_itself_go_first() -> None:
    example = Example.from_row(ROW | {"passages": ["Mine."]}, "f")
    assert example.docs == (Document("", "Mine."),)
    # The system's answer cites others.
    assert example.output is None
    assert example.claims == ("Ice is very cold.", "It melts.")


def test_what_is_bad_is_named() -> None:
    for answer, line in (
        ({"claims": {}}, "field claims: expected a list, got an object"),
        ({"answer_string": 1}, "field answer_string: expected a string, got int"),
        ({"revised_answer_string": []},
         "field revised_answer_string: expected a string, got a list"),
        ({"claims": [_claim("a") | {"evidence": "x"}]},
         "field claims[0], field evidence: expected a list of strings, got a string"),
        ({"claims": [_claim("a") | {"evidence": [1]}]},
         "field claims[0], field evidence[0]: expected a string, got int"),
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            Example.from_row(ROW | {"answers": {"rr": answer}}, "f, line 1")
        assert str(error.value) == f"f, line 1, field answers.rr, {line}"


def test_what_is_written_for_its_programs_is_read_again(tmp_path: Path) -> None:
    docs = (Document("T", "One."), Document("U", "Two."))
    asked = Example("7", "expertqa", "What?", docs, extra={"annotator_id": "x"})
    splitter = load_splitter("punkt-rules")
    write_expertqa(tmp_path / "a.jsonl", [asked], ["It is one [1]. And two [2]."], splitter, "ours")
    (example,) = read_examples(tmp_path / "a.jsonl")
    assert example.docs == docs
    assert example.output == "It is one [1]. And two [2]."
    # Nobody has revised it yet.
    assert (example.answer, example.claims) == (None, ())


def test_lines_in_a_file_called_json_are_read(tmp_path: Path) -> None:
    (tmp_path / "domain_lfqa.json").write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n")
    assert [e.id for e in read_examples(tmp_path / "domain_lfqa.json")] == ["0", "1"]
