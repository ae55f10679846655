"""Copying as a system, against answers written by hand."""

import json
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_answers, write_examples
from citepipe.options import ScoreOptions
from citepipe.sample.extract import run
from citepipe.scoring.files import Scorer
from citepipe.verify.load import load_verifier

DOCS = (
    Document("Arle Mill, Lune", "The U.S. owner\nbuilt the mill [2] in 1820. It closed in 1931."),
    Document("", ""),
    Document("[1] Hart", "Who was John Hart? A miller."),
    Document("Arle", "Passed over", sent="Arle is a village"),
)


@pytest.mark.parametrize(
    ("dataset", "output"),
    [
        (
            "asqa",
            "The U.S. owner built the mill in 1820 [1]. Who was John Hart [3]? Arle is a village "
            "[4].",
        ),
        ("qampari", "Arle Mill Lune [1], Hart [3], Arle [4]."),
    ],
)
def test_each_document_gives_its_first_sentence_or_title(tmp_path: Path, dataset: str, output: str):
    examples = [Example(str(n), dataset, "?", docs) for n, docs in enumerate((DOCS, DOCS[1:2]))]
    write_examples(tmp_path / "test.json", examples)
    outs = {dataset: tmp_path / "answers.json"}
    assert run({dataset: tmp_path / "test.json"}, outs, "punkt-rules") == "extract: answers 2"
    rows = json.loads(outs[dataset].read_text())["data"]
    assert [row["output"] for row in rows] == [output, ""]
    scorer = Scorer(read_answers(outs[dataset], None), ScoreOptions())
    scores = scorer.under(load_verifier("lexical", None))
    first = scores["per_example"][0]
    assert [statement["cited"] for statement in first["statements"]] == [[1], [3], [4]]
    assert scores["metrics"].get("copied") == (None if dataset == "qampari" else 100)
