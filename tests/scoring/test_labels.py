"""Sentences drawn for people to judge, and scores corrected by what these say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from citepipe.cli import main
from citepipe.data.files import read_json, read_jsonl, write_json, write_jsonl
from citepipe.scoring.labels import Sentences, estimate, shares

Captured = pytest.CaptureFixture[str]

DOCS = ["Anna Berg was born in Oslo.", "Rome is the capital of Italy."]
RIGHT, NEEDLESS = "Anna Berg was born in Oslo [1].", "Anna Berg was born in Oslo [1][2]."
WRONG, BARE = "Anna Berg was born in Rome [1].", "Nothing is cited."
# By lexical: recall 1, 1/2, 1/2, 0, precision 1/2, 1/2, 1, 0.
OUTPUTS = [NEEDLESS, f"{RIGHT} {WRONG}", f"{RIGHT} {BARE}", WRONG]


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    write_json(
        tmp_path / "mine.json",
        [{"question": f"{n}?", "docs": DOCS, "output": text} for n, text in enumerate(OUTPUTS)],
    )
    answers, scores = str(tmp_path / "mine.json"), tmp_path / "scores.json"
    chosen = ["--metrics", "citation_f1", "--json", str(scores)]
    assert main(["score", answers, "--dataset", "eli5", *chosen]) == 0
    return scores


def drawn(scores: Path, *more: str) -> list[dict[str, Any]]:
    out = scores.parent / "labels.jsonl"
    out.unlink(missing_ok=True)
    assert main(["sample-labels", str(scores), "--out", str(out), *more]) == 0
    return read_jsonl(out)


def corrected(scores: Path, labels: list[dict[str, Any]]) -> dict[str, Any]:
    write_jsonl(scores.parent / "said.jsonl", labels)
    out = scores.parent / "corrected.json"
    said = ["--labels", str(scores.parent / "said.jsonl"), "--json", str(out)]
    assert main(["correct", str(scores), *said]) == 0
    [found] = read_json(out)
    return dict(found)


def test_what_is_drawn_has_the_verdict_and_the_passages_that_are_cited(scores: Path):
    lines = drawn(scores, "--n", "4")
    # Of three supported sentences and two others; what cites nothing no person need judge.
    reasons = sorted(line["verdicts"]["lexical"] for line in lines)
    assert reasons == ["not supported"] * 2 + ["supported"] * 2
    assert lines == drawn(scores, "--n", "4") != drawn(scores, "--n", "4", "--seed", "1")
    both = next(line for line in drawn(scores) if line["text"] == NEEDLESS)
    assert both == {
        **{"dataset": "eli5", "id": "0", "question": "0?", "system": "scores", "seed": 0},
        **{"statement": 0, "text": NEEDLESS, "cited": [1, 2]},
        "passages": [f"[1] {DOCS[0]}", f"[2] {DOCS[1]}"],
        **{"verifier": "lexical", "verdicts": {"lexical": "supported"}, "label": "", "comment": ""},
    }


def test_sentences_are_shared_out_by_number_with_a_least_number():
    assert shares([900, 100], 200) == [20 + 147, 20 + 13]  # 160 * 880 / 960 and 160 * 80 / 960
    assert shares([5, 1000], 200) == [5, 195]
    assert shares([3, 4], 200) == [3, 4]
    assert shares([10, 10, 10], 2) == [1, 1, 0]


def test_recall_and_precision_follow_from_what_people_accept(scores: Path, capsys: Captured):
    labels = drawn(scores)
    for line in labels:
        line["label"] = "agree"
    found = corrected(scores, labels)
    assert (found["sentences"], found["by_rules"], found["agreement"]) == (5, 1, 100)
    for own in found["metrics"].values():
        assert own["corrected"] == pytest.approx(own["plain"])
    assert found["metrics"]["citation_rec"]["plain"] == 50
    # Of the weights 1, 1/2 and 1/2 (recall) and 1/2, 1/2 and 1 (precision) of what lexical accepts
    # people have judged 1 and 1/2, and 1/2 and 1/2, and accept the first: 2/3 and 1/2 of all. Of
    # what it refuses, they accept the one that they have judged: all of 1/2 + 1.
    said = {("0", 0): "agree", ("1", 0): "disagree", ("1", 1): "disagree", ("2", 0): "unsure"}
    for line in labels:
        line["label"] = said.get((line["id"], line["statement"]), "")
    found = corrected(scores, labels)
    figures = {name: own["corrected"] for name, own in found["metrics"].items()}
    recall, precision = 100 * (2 * 2 / 3 + 1.5) / 4, 100 * (2 * 1 / 2 + 1.5) / 4
    f1 = 2 * recall * precision / (recall + precision)
    assert list(figures.values()) == pytest.approx([recall, precision, f1])
    assert (found["supported"], found["not_supported"]) == ([1, 2], [1, 1])
    assert (found["unsure"], found["unlabelled"]) == (1, 1)
    # Three sentences half of which it has right, two of which none.
    assert found["agreement"] == pytest.approx(100 * 1.5 / 5)
    printed = capsys.readouterr().out
    assert "people call supported 1 of 2 that lexical calls so, and 1 of 1" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "Anna Berg was born in Oslo [2]."}, "field text: expected 'Anna Berg was"),
        ({"id": "7"}, "no statement 0 of scores, seed 0, eli5, id '7' by lexical"),
        ({"verdicts": {"lexical": "cites nothing"}}, "field verdicts: expected 'supported' of lex"),
        ({"label": "yes"}, "field label: Input should be 'agree', 'disagree', 'unsure' or ''"),
        ({"verifier": "other"}, "seed 0, eli5, id '0' by other"),
        ({}, "eli5: expected labels of sentences that lexical calls not supported, none of 2 has"),
    ],
)
def test_labels_of_something_else_are_refused(
    scores: Path, capsys: Captured, change: dict[str, Any], message: str
):
    line = next(line for line in drawn(scores) if line["text"] == NEEDLESS)
    path = scores.parent / "said.jsonl"
    write_jsonl(path, [line | {"label": "agree"} | change])
    assert main(["correct", str(scores), "--labels", str(path)]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_interval_covers_the_truth_that_a_biased_judge_misses():
    """200 labels of 600 sentences, of which 6 in 10 are right; the judge refuses half of these."""
    held, widths, rng = 0, [], np.random.default_rng(0)
    for seed in range(100):
        truth = (rng.random(600) < 0.6).astype(float)
        verdict = (truth * (rng.random(600) < 0.5)).astype(int)
        person = np.where(rng.permutation(600) < 200, truth, np.nan)
        own = Sentences(np.arange(600), verdict, np.ones((600, 2)), person)
        low, high = estimate(own, np.ones(600), 200, 0.95, seed)["citation_rec"]["interval"]
        held += low <= 60 <= high
        widths.append(high - low)
    assert 90 <= held <= 99
    # Of what the judge refuses, 0.7 of all, people accept 3 in 7; 140 of it have labels. So the
    # variance is 0.7^2 * 3/7 * 4/7 / 140 of the labels, and 0.3 * 0.7 * (4/7)^2 / 600 of the rest.
    assert np.mean(widths) == pytest.approx(100 * 2 * 1.96 * 0.0312, rel=0.05)
