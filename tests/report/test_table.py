"""The table of systems, from score files with figures chosen by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.report.table import run

Rows = list[dict[str, str]]
Captured = pytest.CaptureFixture[str]


def result(ids: str = "abcd", **metrics: float | None) -> dict[str, Any]:
    """A dataset's part of a score file; every interval is the value and 1 to each side, and the
    first answer has no statements."""
    intervals = {name: [x - 1, x + 1] for name, x in metrics.items() if x is not None}
    judged = {"citation_rec": 1.0, "citation_prec": 1.0}
    rows = [{"id": i, **metrics, **(judged if i != "a" else {})} for i in ids]
    return {"metrics": metrics, "intervals": intervals, "per_example": rows}


def judged(asqa: float, qampari: float, eli5: float, claims: float) -> dict[str, Any]:
    return {
        "asqa": result(citation_f1=asqa, str_em=30.0),
        "qampari": result(citation_f1=qampari, qampari_rec_top5=60.0, mauve=None),
        "eli5": result(citation_f1=eli5, claims_nli=claims),
    }


FILES = {
    ("late", 0): {"lexical": judged(10, 20, 60, 90), "oracle": judged(1, 2, 3, 30)},
    ("late", 1): {"lexical": judged(30, 20, 60, 90), "oracle": judged(3, 2, 3, 30)},
    ("early", 0): {"lexical": {"asqa": result(citation_f1=50, str_em=40)}},
}
"""`late` with two seeds on three datasets, `early` with one on ASQA; two verifiers."""


def tables(folder: Path, files: dict[tuple[str, int], Any]) -> tuple[Rows, Rows]:
    """The rows of the table, and those of all scores."""
    scores = []
    for (system, seed), content in files.items():
        scores.append((system, seed, folder / f"{system}{seed}.json"))
        scores[-1][2].write_text(json.dumps(content))
    outs = folder / "table.csv", folder / "scores.csv"
    assert run(scores, *outs).startswith("table: ")
    table, tidy = (list(csv.DictReader(out.read_text().splitlines())) for out in outs)
    return table, tidy


def test_rows_are_means_over_seeds_in_the_given_order(tmp_path: Path, capsys: Captured):
    (late, early), _ = tables(tmp_path, FILES)
    assert [(r["system"], r["seeds"]) for r in (late, early)] == [("late", "2"), ("early", "1")]
    assert float(late["asqa_citation_f1"]) == 20
    assert float(late["asqa_citation_f1_oracle"]) == 2
    assert float(late["eli5_claim_recall_oracle"]) == 30
    assert float(early["asqa_em_recall"]) == 40
    assert early["qampari_citation_f1"] == ""
    # Shown on stderr, without the second verifier's.
    line = next(x for x in capsys.readouterr().err.splitlines() if x.startswith("late"))
    assert " ".join(line.split()) == "late 33.3 20.0 20.0 60.0 | 60.0 30.0 60.0 90.0"


def test_means_over_datasets_are_without_expertqa(tmp_path: Path):
    (late, early), _ = tables(tmp_path, FILES)
    assert float(late["mean_citation_f1"]) == pytest.approx((20 + 20 + 60) / 3, abs=1e-3)
    assert float(late["mean_correctness"]) == (30 + 60 + 90) / 3
    assert float(late["mean_correctness_oracle"]) == (30 + 60 + 30) / 3
    assert float(early["mean_citation_f1"]) == 50
    both = {"asqa": result(citation_f1=10), "expertqa": result(citation_f1=90)}
    [row], _ = tables(tmp_path, {("s", 0): {"v": both}})
    assert float(row["mean_citation_f1"]) == 10
    assert float(row["expertqa_citation_f1"]) == 90


def test_scores_are_tidy_and_name_a_verifier_only_where_one_was_needed(tmp_path: Path):
    _, rows = tables(tmp_path, FILES)
    assert " ".join(rows[0]) == "system seed dataset metric value low high n verifier"
    keys = ("system", "seed", "dataset", "metric", "verifier")
    found = {tuple(row[key] for key in keys): row for row in rows}
    em = found["late", "0", "asqa", "str_em", ""]
    assert (float(em["value"]), float(em["low"]), float(em["high"]), em["n"]) == (30, 29, 31, "4")
    # Of four answers one has no statements.
    for verifier, value in (("lexical", 30), ("oracle", 3)):
        f1 = found["late", "1", "asqa", "citation_f1", verifier]
        assert (float(f1["value"]), f1["n"]) == (value, "3")
    assert not any(r["metric"] == "mauve" for r in rows)


def test_systems_scored_on_other_questions_are_named(tmp_path: Path, capsys: Captured):
    questions = {("s", 0): "abc", ("t", 0): "bcde", ("u", 1): "cba"}
    tables(tmp_path, {k: {"v": {"asqa": result(i, str_em=10)}} for k, i in questions.items()})
    [line] = [line for line in capsys.readouterr().err.splitlines() if "scored on" in line]
    assert line.startswith("asqa: t seed 0 was scored on 4 questions, s seed 0 on 3, 2 of them")


def test_a_file_without_scores(tmp_path: Path):
    with pytest.raises(InputError, match=r"s0\.json: expected a score file, broken at 'per_"):
        tables(tmp_path, {("s", 0): {"lexical": {"asqa": {}}}})
