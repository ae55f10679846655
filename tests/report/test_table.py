"""The table of systems, from score files with figures chosen by hand."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.options import ScoreOptions
from citepipe.report.files import run

Rows = list[dict[str, str]]
Captured = pytest.CaptureFixture[str]
COUNTS = {"statements": 1, "citations": 1, "gold": 1, "gold_top5": 1, "items": 1}


def result(ids: str = "abcd", **metrics: float | Sequence[float] | None) -> dict[str, Any]:
    """A dataset's part of a score file, a metric the same for every answer or given for each;
    recall and precision are as F1, and the first answer has no statements."""
    rows: list[dict[str, Any]] = [{"id": i, "question": f"{i}?", "counts": COUNTS} for i in ids]
    means: dict[str, float | None] = {}
    for name, given in metrics.items():
        values = list(given) if isinstance(given, Sequence) else [given] * len(ids)
        shown = values[1:] if name == "citation_f1" else values
        means[name] = None if given is None else sum(shown) / len(shown)
        for row, value in list(zip(rows, values, strict=True))[-len(shown) :]:
            parts = ("citation_rec", "citation_prec") if name == "citation_f1" else (name,)
            row |= dict.fromkeys(parts, value)
    for part in ("citation_rec", "citation_prec") if "citation_f1" in means else ():
        means[part] = means["citation_f1"]
    intervals = {name: [x - 1, x + 1] for name, x in means.items() if x is not None}
    return {"metrics": means, "intervals": intervals, "per_example": rows}


def judged(asqa: float, qampari: float, eli5: float, claims: float) -> dict[str, Any]:
    return {
        "asqa": result(citation_f1=asqa, str_em=30.0, copied=50, length=9),
        "qampari": result(citation_f1=qampari, qampari_rec_top5=60.0, mauve=None, length=3),
        "eli5": result(citation_f1=eli5, claims_nli=claims, copied=100),
    }


FILES = {
    ("late", 0): {"lexical": judged(10, 20, 60, 90), "oracle": judged(1, 2, 3, 30)},
    ("late", 1): {"lexical": judged(30, 20, 60, 90), "oracle": judged(3, 2, 3, 30)},
    ("early", 0): {"lexical": {"asqa": result(citation_f1=50, str_em=40)}},
}
"""`late` with two seeds on three datasets, `early` with one on ASQA; two verifiers."""


def tables(
    folder: Path, files: Mapping[tuple[str, int], Any], **starts: str
) -> tuple[dict[str, dict[str, str]], Rows]:
    """The rows of the table by system, and those of all scores; `dist` is what counts."""
    scores = []
    for (system, seed), content in files.items():
        scores.append((system, seed, folder / f"{system}{seed}.json"))
        scores[-1][2].write_text(json.dumps(content))
    outs = folder / "table.csv", folder / "scores.csv"
    assert run(scores, starts, "dist", ScoreOptions(), *outs).startswith("table: ")
    table, tidy = (list(csv.DictReader(out.read_text().splitlines())) for out in outs)
    return {row["system"]: row for row in table}, tidy


def test_rows_are_means_over_seeds_in_the_given_order(tmp_path: Path, capsys: Captured):
    rows, _ = tables(tmp_path, FILES)
    late, early = rows.values()
    assert [(r["system"], r["seeds"]) for r in (late, early)] == [("late", "2"), ("early", "1")]
    assert float(late["asqa_citation_f1"]) == 20
    assert float(late["asqa_citation_f1_oracle"]) == 2
    assert float(late["eli5_claim_recall_oracle"]) == 30
    assert float(early["asqa_em_recall"]) == 40
    assert early["qampari_citation_f1"] == ""
    # Of two seeds, 10 and 30, a quarter of the draws has only the one, a quarter only the other;
    # no question is other than the rest.
    assert [float(late[f"asqa_citation_f1_{end}"]) for end in ("low", "high")] == [10, 30]
    assert [float(early[f"asqa_citation_f1_{end}"]) for end in ("low", "high")] == [50, 50]
    shown = capsys.readouterr().err.splitlines()
    assert max(map(len, shown)) <= 110
    lines = [" ".join(line.split()) for line in shown if line.startswith("late")]
    f1 = "late 33.3 ±3.3 20.0 ±10.0 20.0 ±0.0 60.0 ±0.0 75.0 ±0.0 6.0 ±0.0"
    assert lines[:2] == [f1, "late 60.0 ±0.0 30.0 ±0.0 60.0 ±0.0 90.0 ±0.0"]


def test_means_over_datasets_are_without_expertqa(tmp_path: Path):
    rows, _ = tables(tmp_path, FILES)
    late = rows["late"]
    assert float(late["mean_citation_f1"]) == pytest.approx((20 + 20 + 60) / 3, abs=1e-3)
    assert float(late["mean_correctness"]) == (30 + 60 + 90) / 3
    assert float(late["mean_correctness_oracle"]) == (30 + 60 + 30) / 3
    assert (float(late["mean_copied"]), float(late["mean_length"])) == (75, 6)
    assert float(rows["early"]["mean_citation_f1"]) == 50
    both = {"asqa": result(citation_f1=10), "expertqa": result(citation_f1=90)}
    rows, _ = tables(tmp_path, {("s", 0): {"v": both}})
    assert float(rows["s"]["mean_citation_f1"]) == 10
    assert float(rows["s"]["expertqa_citation_f1"]) == 90


def em(*values: float, ids: str = "abcd") -> dict[str, Any]:
    return {"v": {"asqa": result(ids, str_em=values)}}


def test_what_differs_in_pairs_is_marked(tmp_path: Path, capsys: Captured):
    """Pairs show what the spread would hide: each interval has the means of both systems inside."""
    runs = {
        ("dist", 0): em(10, 20, 90, 80),
        ("dist", 1): em(0, 10, 80, 70),
        # Better than dist by one point in every question and with both seeds; its child is worse.
        ("better", 0): em(11, 21, 91, 81),
        ("better", 1): em(1, 11, 81, 71),
        ("child", 0): em(10, 21, 90, 81),
        ("child", 1): em(0, 11, 80, 71),
        ("once", 0): em(10, 100, 0, 75),
        # The same figures, in another order of their questions; and those of other questions.
        ("turned", 0): em(80, 90, 20, 10, ids="dcba"),
        ("others", 0): em(99, 99, 99, 99, ids="abce"),
    }
    rows, _ = tables(tmp_path, runs, better="dist", child="better", once="child", turned="dist")
    marks = {
        system: (row["asqa_em_recall_vs_dist"], row["asqa_em_recall_vs_start"])
        for system, row in rows.items()
    }
    assert marks == {
        "dist": ("", ""),
        "better": ("+", "+"),
        # Half of its questions are those of each; a draw may have only one of the halves.
        "child": ("", ""),
        "once": ("", ""),
        "turned": ("", ""),
        "others": ("", ""),
    }
    assert float(rows["better"]["asqa_em_recall_low"]) < float(rows["dist"]["asqa_em_recall"])
    assert rows["better"]["start"] == "dist"
    assert [row["same_as"] for row in rows.values()] == ["", "", "", "", "dist (seed 0)", ""]
    shown = capsys.readouterr().err.splitlines()
    [line] = [line for line in shown if "scored on" in line]
    assert line.startswith("asqa: others seed 0 was scored on 4 questions, dist seed 0 on 4, 3 of")
    # Half of an interval of all the draws of four questions that there are is 35 or 36.
    assert [" ".join(x.split()[:3]) for x in shown if "*" in x][:1] == ["better 46.0 ±35.0*"]


def test_rows_that_are_equal_say_so(tmp_path: Path, capsys: Captured):
    runs = {("dist", seed): em(1, 2, 3, seed) for seed in (0, 1)}
    runs |= {("kept", seed): em(1, 2, 3, seed) for seed in (0, 1)}
    runs |= {("once", seed): em(1, 2, 3, seed + seed) for seed in (0, 1)}
    rows, _ = tables(tmp_path, runs | {("again", 0): em(1, 2, 3, 2)}, once="kept", again="once")
    assert [row["same_as"] for row in rows.values()] == ["", "dist", "kept (seed 0)", ""]
    assert "kept = dist" in capsys.readouterr().err


def test_tables_to_read_have_the_layout_of_the_paper(tmp_path: Path):
    tables(tmp_path, FILES | {("my_own", 0): {"oracle": judged(70, 20, 60, 90)}}, late="early")
    text = (tmp_path / "table.md").read_text()
    head = "| system | asqa correct | asqa recall | asqa precision | asqa F1 | qampari correct |"
    assert text.startswith(f"Scores by lexical:\n\n{head}")
    early = "| early | 40.0 ±0.0 | 50.0 ±0.0 | 50.0 ±0.0 | 50.0 ±0.0 | - | - |"
    assert sum(line.startswith(early) for line in text.splitlines()) == 1
    lines = (tmp_path / "table.tex").read_text().splitlines()
    groups = [f"\\multicolumn{{4}}{{c}}{{{name}}}" for name in ("asqa", "qampari", "eli5")]
    groups += ["\\multicolumn{2}{c}{mean}"]
    assert lines[:4] == [
        "% Scores by lexical",
        "\\begin{tabular}{lrrrrrrrrrrrrrr}",
        "\\hline",
        f" & {' & '.join(groups)} \\\\",
    ]
    assert any(line.startswith(r"my\_own & 30.0 $\pm$0.0") for line in lines)
    lines = (tmp_path / "table.html").read_text().splitlines()
    assert "<table><caption>Scores by lexical</caption>" in lines
    assert any(line.startswith("<tr><td>my_own<td>30.0 ±0.0<td>") for line in lines)


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


def test_a_file_without_scores(tmp_path: Path):
    with pytest.raises(InputError, match=r"s0\.json: expected a score file, broken at 'per_"):
        tables(tmp_path, {("s", 0): {"lexical": {"asqa": {}}}})
