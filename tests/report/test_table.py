"""The table of systems, from score files with figures chosen by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.report.table import run


def result(ids: str = "abcd", **metrics: float | None) -> dict[str, Any]:
    """A dataset's part of a score file; every interval is the value and 1 to each side, and the
    first answer has no statements."""
    intervals = {name: [x - 1, x + 1] for name, x in metrics.items() if x is not None}
    judged = {"citation_rec": 1.0, "citation_prec": 1.0}
    rows = [{"id": i, **metrics, **(judged if i != "a" else {})} for i in ids]
    return {"metrics": metrics, "intervals": intervals, "per_example": rows}


def written(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def runs(tmp_path: Path) -> list[tuple[str, int, Path]]:
    """`late` with two seeds on three datasets, `early` with one on ASQA; two verifiers."""

    def judged(asqa: float, qampari: float, eli5: float, claims: float) -> dict[str, Any]:
        return {
            "asqa": result(citation_f1=asqa, str_em=30.0),
            "qampari": result(citation_f1=qampari, qampari_rec_top5=60.0, mauve=None),
            "eli5": result(citation_f1=eli5, claims_nli=claims),
        }

    files = {
        ("late", 0): {"lexical": judged(10, 20, 60, 90), "oracle": judged(1, 2, 3, 30)},
        ("late", 1): {"lexical": judged(30, 20, 60, 90), "oracle": judged(3, 2, 3, 30)},
        ("early", 0): {"lexical": {"asqa": result(citation_f1=50, str_em=40)}},
    }
    paths = []
    for (system, seed), content in files.items():
        path = tmp_path / f"{system}{seed}.json"
        path.write_text(json.dumps(content))
        paths.append((system, seed, path))
    return paths


def test_rows_are_means_over_seeds_in_the_given_order(
    runs: list[tuple[str, int, Path]], tmp_path: Path
) -> None:
    run(runs, tmp_path / "table.csv", tmp_path / "scores.csv")
    late, early = written(tmp_path / "table.csv")
    assert (late["system"], late["seeds"]) == ("late", "2")
    assert (early["system"], early["seeds"]) == ("early", "1")
    assert float(late["asqa_citation_f1"]) == 20
    assert float(late["asqa_citation_f1_oracle"]) == 2
    assert float(late["eli5_claim_recall_oracle"]) == 30
    assert float(early["asqa_em_recall"]) == 40
    assert early["qampari_citation_f1"] == ""


def test_means_over_datasets(runs: list[tuple[str, int, Path]], tmp_path: Path) -> None:
    run(runs, tmp_path / "table.csv", tmp_path / "scores.csv")
    late, early = written(tmp_path / "table.csv")
    assert float(late["mean_citation_f1"]) == pytest.approx((20 + 20 + 60) / 3, abs=1e-3)
    assert float(late["mean_correctness"]) == (30 + 60 + 90) / 3
    assert float(late["mean_correctness_oracle"]) == (30 + 60 + 30) / 3
    assert float(early["mean_citation_f1"]) == 50


def test_expertqa_stays_out_of_the_means(tmp_path: Path) -> None:
    content = {"v": {"asqa": result(citation_f1=10), "expertqa": result(citation_f1=90)}}
    (tmp_path / "s.json").write_text(json.dumps(content))
    run([("s", 0, tmp_path / "s.json")], tmp_path / "table.csv", tmp_path / "scores.csv")
    (row,) = written(tmp_path / "table.csv")
    assert float(row["mean_citation_f1"]) == 10
    assert float(row["expertqa_citation_f1"]) == 90


def test_scores_are_tidy_and_name_a_verifier_only_where_one_was_asked(
    runs: list[tuple[str, int, Path]], tmp_path: Path
) -> None:
    run(runs, tmp_path / "table.csv", tmp_path / "scores.csv")
    rows = written(tmp_path / "scores.csv")
    assert list(rows[0]) == [
        "system", "seed", "dataset", "metric", "value", "low", "high", "n", "verifier"
    ]  # fmt: skip
    em = [r for r in rows if (r["system"], r["seed"], r["metric"]) == ("late", "0", "str_em")]
    assert [(r["verifier"], float(r["low"]), r["n"]) for r in em] == [("", 29, "4")]
    f1 = [r for r in rows if (r["system"], r["seed"], r["dataset"]) == ("late", "1", "asqa")]
    f1 = [(r["verifier"], float(r["value"]), r["n"]) for r in f1 if r["metric"] == "citation_f1"]
    # Of four answers one has no statements.
    assert f1 == [("lexical", 30, "3"), ("oracle", 3, "3")]
    assert not any(r["metric"] == "mauve" for r in rows)


def test_the_table_is_shown(
    runs: list[tuple[str, int, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(runs, tmp_path / "table.csv", tmp_path / "scores.csv")
    lines = capsys.readouterr().err.splitlines()
    assert summary.startswith("table: 2 systems")
    late = next(line for line in lines if line.startswith("late"))
    assert " ".join(late.split()) == "late 33.3 20.0 20.0 60.0 | 60.0 30.0 60.0 90.0"


def test_systems_scored_on_other_questions_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [("s", 0, "abc"), ("t", 0, "bcde"), ("u", 1, "cba")]
    for system, _, ids in runs:
        content = {"v": {"asqa": result(ids, str_em=10)}}
        (tmp_path / system).write_text(json.dumps(content))
    scores = [(system, seed, tmp_path / system) for system, seed, _ in runs]
    run(scores, tmp_path / "table.csv", tmp_path / "scores.csv")
    [line] = [line for line in capsys.readouterr().err.splitlines() if "scored on" in line]
    assert line.startswith("asqa: t seed 0 was scored on 4 questions, s seed 0 on 3, 2 of them")


def test_a_file_without_scores(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"lexical": {"asqa": {}}}')
    with pytest.raises(
        InputError, match=r"s\.json: expected a score file, broken at 'per_example'"
    ):
        run([("s", 0, tmp_path / "s.json")], tmp_path / "table.csv", tmp_path / "scores.csv")
