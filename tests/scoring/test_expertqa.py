import json
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.errors import InputError
from citepipe.scoring.expertqa import write_expertqa
from citepipe.text.sentences import load_splitter

DOCS = (
    Document("Soil", "Peat holds water."),
    Document("Water", "A long passage.", sent="Water is wet."),
    Document("Air", "Air is thin."),
)
LABELS = {
    *("support", "reason_missing_support", "informativeness", "worthiness", "correctness"),
    *("reliability", "revised_claim", "revised_evidence", "atomic_claims", "atomic_evidences"),
    *("fact_score", "autoais_label"),
}


def example(**extra: object) -> Example:
    return Example("3", "expertqa", "Why is peat wet?", DOCS, extra=extra)


def written(path: Path, examples: list[Example], texts: list[str]) -> list[dict]:
    answers = [e.read(text, load_splitter()) for e, text in zip(examples, texts, strict=True)]
    write_expertqa(path, examples, answers, "fg_rl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_row(tmp_path: Path):
    text = "Peat holds water [1][2]. It is thin [2][9][0][2]. Nobody knows."
    metadata = {"field": "Geology", "question_type": "Why", "more": 1}
    row = example(annotator_id=12, metadata=metadata, other="x")
    [found] = written(tmp_path / "out.jsonl", [row], [text])
    claims = found["answers"]["fg_rl"].pop("claims")
    empty = ("revised_answer_string", "usefulness", "annotation_time", "annotator_id")
    titles = ["[1] Soil", "[2] Water", "[3] Air"]
    answer = {"answer_string": text, "attribution": titles, **dict.fromkeys(empty)}
    assert found == {
        "question": "Why is peat wet?",
        "annotator_id": "12",
        "answers": {"fg_rl": answer},
        "metadata": {"question_type": "Why", "field": "Geology", "specific_field": ""},
    }
    peat, water = "[1] Soil\n\nPeat holds water.", "[2] Water\n\nWater is wet."
    assert [(claim["claim_string"], claim["evidence"]) for claim in claims] == [
        ("Peat holds water [1][2].", [peat, water]),
        ("It is thin [2][9][0][2].", [water]),
        ("Nobody knows.", []),
    ]
    for claim in claims:
        assert set(claim) == {"claim_string", "evidence"} | LABELS
        assert {claim[label] for label in LABELS} == {None}


def test_rows_without_metadata_and_answers_without_words(tmp_path: Path):
    first, second = written(
        tmp_path / "out.jsonl", [example(field="Law"), example()], ["", "Peat. [1]"]
    )
    assert first["annotator_id"] == ""
    assert first["metadata"] == {"question_type": "", "field": "Law", "specific_field": ""}
    assert first["answers"]["fg_rl"]["claims"] == []
    [claim] = second["answers"]["fg_rl"]["claims"]
    assert (claim["claim_string"], len(claim["evidence"])) == ("Peat. [1]", 1)


def test_what_cannot_be_written(tmp_path: Path):
    path, answer = tmp_path / "out.jsonl", example().read("x", load_splitter())
    for name in ("gpt4", "bing_chat", " "):
        with pytest.raises(InputError, match="system name"):
            write_expertqa(path, [example()], [answer], name)
    other = Example("5", "asqa", "q", DOCS)
    with pytest.raises(InputError, match="example 5, field dataset: expected expertqa, got asqa"):
        write_expertqa(path, [example(), other], [answer] * 2, "fg_rl")
    assert not path.exists()
