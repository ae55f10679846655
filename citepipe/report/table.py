"""The table of all systems: a row per system, and every score of every run in tidy form."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from citepipe.data.files import atomic_writer, read_json
from citepipe.errors import InputError
from citepipe.progress import say
from citepipe.score.alce import asks_verifier

COLUMNS = {
    "str_em": "em_recall",
    "qampari_prec": "precision",
    "qampari_rec_top5": "recall_top5",
    "qampari_f1_top5": "f1_top5",
    "claims_nli": "claim_recall",
    "citation_rec": "citation_recall",
    "citation_prec": "citation_precision",
    "citation_f1": "citation_f1",
    "length": "length",
}
"""The table's metrics: ALCE's name, and the column's after `{dataset}_`."""

CORRECTNESS = {
    "asqa": "str_em",
    "qampari": "qampari_rec_top5",
    "eli5": "claims_nli",
    "expertqa": "claims_nli",
}
"""What counts as the correctness of a dataset's answers."""

CITATION_F1 = dict.fromkeys(CORRECTNESS, "citation_f1")

AVERAGED = ("asqa", "qampari", "eli5")
"""The datasets of the means; EXPERTQA is for inference only and stays out."""


@dataclass(frozen=True, slots=True)
class Score:
    """One figure of one run; `verifier` is empty where none was asked."""

    system: str
    seed: int
    dataset: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    verifier: str


def run(scores: Sequence[tuple[str, int, Path]], out_table: Path, out_scores: Path) -> str:
    """Write both tables and show the first on stderr.

    Args:
        scores: system, seed and score file of every run, in the order of the table.
        out_table: a row per system, the mean over its seeds. Figures by the first verifier have
            plain names, those by another end in `_{verifier}`.
        out_scores: a row per figure, with its bootstrap interval over examples.

    Returns:
        A line that says what was written.

    Raises:
        InputError: a score file is not one.
    """
    figures = [score for system, seed, path in scores for score in read_scores(system, seed, path)]
    with atomic_writer(out_scores) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Score.__slots__)
        for figure in figures:
            writer.writerow([_text(getattr(figure, name)) for name in Score.__slots__])
    rows = table(figures)
    with atomic_writer(out_table) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns := _columns(rows))
        for row in rows:
            writer.writerow([_text(row.get(column)) for column in columns])
    for line in show(figures):
        say(line)
    return f"table: {len(rows)} systems, {len(figures)} figures, {out_table}"


def read_scores(system: str, seed: int, path: Path) -> list[Score]:
    """The figures of one score file, `{verifier: {dataset: {"metrics": …, "intervals": …}}}`.

    A metric that needs no verifier is the same under each and is taken once.
    """
    figures: dict[tuple[str, str, str], Score] = {}
    try:
        for verifier, datasets in read_json(path).items():
            for dataset, result in datasets.items():
                for metric, value in result["metrics"].items():
                    if value is None:
                        continue
                    asked = verifier if asks_verifier(metric) else ""
                    low, high = result["intervals"].get(metric) or (None, None)
                    n = result["counts"]["examples"]
                    figures.setdefault(
                        (dataset, metric, asked),
                        Score(system, seed, dataset, metric, value, low, high, n, asked),
                    )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a score file, broken at {error}") from None
    return list(figures.values())


def table(figures: Sequence[Score]) -> list[dict[str, Any]]:
    """The rows of the table: per system the means over seeds, of single figures and over datasets.

    A column is there where a system has the figure. A mean over datasets takes those of
    `AVERAGED` that the system was scored on.
    """
    verifiers = _distinct(f.verifier for f in figures if f.verifier)
    rows = []
    for system in _distinct(f.system for f in figures):
        own = [f for f in figures if f.system == system]
        means = _means(own)
        row: dict[str, Any] = {"system": system, "seeds": len({f.seed for f in own})}
        for name, choice in (("citation_f1", CITATION_F1), ("correctness", CORRECTNESS)):
            for verifier in verifiers:
                value = _average(means, choice, verifier)
                if value is not None:
                    row[f"mean_{name}{_suffix(verifier, verifiers)}"] = value
        for verifier in verifiers:
            for dataset in _distinct(f.dataset for f in own):
                for metric, column in COLUMNS.items():
                    asked = verifier if asks_verifier(metric) else ""
                    if (dataset, metric, asked) in means:
                        suffix = _suffix(asked, verifiers)
                        row[f"{dataset}_{column}{suffix}"] = means[dataset, metric, asked]
        rows.append(row)
    return rows


def show(figures: Sequence[Score]) -> list[str]:
    """The table as lines to read: citation F1 and correctness by dataset, a block per verifier.

    Correctness is left out where no question has a gold answer.
    """
    systems = _distinct(f.system for f in figures)
    datasets = _distinct(f.dataset for f in figures)
    metrics = {f.metric for f in figures}
    width = max(map(len, ["system", *systems])) + 2
    head = "".join(f"{name:>9}" for name in ["mean", *datasets])
    parts = [("citation F1", CITATION_F1)]
    if metrics & set(CORRECTNESS.values()):
        parts.append(("correctness", CORRECTNESS))
    lines = []
    for verifier in _distinct(f.verifier for f in figures if f.verifier):
        lines += [
            "",
            f"By verifier {verifier}:",
            f"{'':<{width}}" + "  |".join(f"{name:>{len(head)}}" for name, _ in parts),
            f"{'system':<{width}}" + "  |".join([head] * len(parts)),
        ]
        for system in systems:
            means = _means(f for f in figures if f.system == system)
            blocks = []
            for _, choice in parts:
                cells = [_average(means, choice, verifier)]
                for dataset in datasets:
                    asked = verifier if asks_verifier(choice[dataset]) else ""
                    cells.append(means.get((dataset, choice[dataset], asked)))
                blocks.append("".join("        -" if c is None else f"{c:9.1f}" for c in cells))
            lines.append(f"{system:<{width}}" + "  |".join(blocks))
    counts = {f.dataset: f.n for f in figures}
    questions = ", ".join(f"{name} {counts[name]}" for name in datasets)
    averaged = ", ".join(name for name in AVERAGED if name in datasets) or "none of these"
    legend = [
        f"Percent, means over seeds; questions: {questions}. mean: over {averaged}.",
        "citation F1: of citation recall (statements that their citations support) and citation",
        "precision (citations that are right).",
    ]
    if len(parts) > 1:
        legend[-1] += " correctness: gold answers found; for eli5 and"
        legend.append("expertqa, claims that the answer supports, as the verifier judges.")
    return [*lines, "", *legend, ""]


def _means(figures: Iterable[Score]) -> dict[tuple[str, str, str], float]:
    """Means over seeds, by dataset, metric and verifier."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for f in figures:
        values.setdefault((f.dataset, f.metric, f.verifier), []).append(f.value)
    return {key: fmean(listed) for key, listed in values.items()}


def _average(
    means: Mapping[tuple[str, str, str], float],
    choice: Mapping[str, str],
    verifier: str,
) -> float | None:
    """The mean over datasets of the metric that `choice` has for each."""
    values = []
    for dataset in AVERAGED:
        asked = verifier if asks_verifier(choice[dataset]) else ""
        if (dataset, choice[dataset], asked) in means:
            values.append(means[dataset, choice[dataset], asked])
    return fmean(values) if values else None


def _suffix(verifier: str, verifiers: Sequence[str]) -> str:
    return "" if verifier in ("", verifiers[0]) else f"_{verifier}"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return _distinct(column for row in rows for column in row)


def _text(value: Any) -> Any:
    """A number as it should stand in a CSV file; nothing for None."""
    return f"{value:.4f}" if isinstance(value, float) else value
