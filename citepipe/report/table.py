"""The rows of the table: means over seeds with intervals, and which systems differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from citepipe.data.example import DATASETS
from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.options import ScoreOptions
from citepipe.provenance import digest_of
from citepipe.scoring.alce import AVERAGED, CORRECTNESS, MEANS, asks_verifier, computed
from citepipe.scoring.means import Floats, columns, drawn_seeds, percentiles, resampled_means

COLUMNS = {
    "str_em": "em_recall",
    "qampari_prec": "precision",
    "qampari_rec_top5": "recall_top5",
    "qampari_f1_top5": "f1_top5",
    "claims_nli": "claim_recall",
    "citation_rec": "citation_recall",
    "citation_prec": "citation_precision",
    "citation_f1": "citation_f1",
    "copied": "copied",
    "length": "length",
}
"""The table's metrics: ALCE's name, and the column's after `{dataset}_`."""

Key = tuple[str, str, str]
"""A figure: of a dataset or the `mean`; its metric; its verifier, empty if it needs none."""


class Score(NamedTuple):
    """One figure of one run, over the `n` answers that have it; `verifier` is empty if unneeded."""

    system: str
    seed: int
    dataset: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    verifier: str


class Run(NamedTuple):
    """The scores of one run, and of those that the table shows the `values`, and what these are for
    questions `drawn` anew, (resamples,); ids and texts of `questions`; a digest of `verdicts`."""

    scores: dict[Key, Score]
    values: dict[Key, float]
    drawn: dict[Key, Floats]
    questions: dict[str, frozenset[tuple[str, str]]]
    verdicts: str


class Cell(NamedTuple):
    """A mean with its interval, and `+` or `-` if it is above or below that of the system that all
    are held against, and that of the system's start, by an interval without 0."""

    value: float
    low: float
    high: float
    against: str
    start: str


class Row(NamedTuple):
    """A system, how many seeds it has, what it starts from, and whether its verdicts are all those
    of its start or of a row above, by that one's name (with the seeds, if not in all)."""

    system: str
    seeds: int
    start: str
    same_as: str
    cells: dict[Key, Cell]


def key(place: str, metric: str, verifier: str) -> Key:
    """Where a figure is: a verifier counts only where the metric needs one; a dataset has another
    metric for its correctness."""
    metric = CORRECTNESS.get(place, metric) if metric == "correctness" else metric
    needed = asks_verifier(metric) or metric == "correctness"
    return place, metric, verifier if needed else ""


def read(system: str, seed: int, path: Path, options: ScoreOptions) -> Run:
    """The scores in one file, `{verifier: {dataset: {"metrics": …, "intervals": …, …}}}`."""
    return run_of(system, seed, path, read_json(path), options)


def run_of(system: str, seed: int, path: Path, content: Any, options: ScoreOptions) -> Run:
    """The scores in what a file holds; InputError if these are none."""
    run, verdicts, parts = Run({}, {}, {}, {}, ""), [], computed(COLUMNS)
    try:
        for verifier, datasets in content.items():
            for dataset, result in datasets.items():
                # In one order, so that the same questions are drawn for every run.
                rows = sorted(result["per_example"], key=lambda row: row["id"])
                verdicts.append([verifier, dataset, rows])
                run.questions[dataset] = frozenset((row["id"], row["question"]) for row in rows)
                having = Counter(name for row in rows for name in row)
                scored = columns(
                    [{name: row[name] for name in row if name in parts} for row in rows],
                    [row["counts"] for row in rows],
                    [row["question"] for row in rows],
                )
                place = options.seed + DATASETS.index(dataset)
                [drawn] = resampled_means([scored], options.resamples, place)
                for metric, value in result["metrics"].items():
                    at = key(dataset, metric, verifier)
                    if value is None or at in run.scores:
                        continue
                    low, high = result["intervals"].get(metric) or (None, None)
                    # MAUVE is of all answers together.
                    n = min(having.get(part, len(rows)) for part in computed([metric]))
                    run.scores[at] = Score(system, seed, *at[:2], value, low, high, n, at[2])
                    if metric in COLUMNS:
                        run.values[at], run.drawn[at] = value, drawn[metric]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a score file, broken at {error}") from None
    return run._replace(verdicts=digest_of(verdicts))


def table(
    runs: Mapping[str, Mapping[int, Run]],
    starts: Mapping[str, str],
    against: str,
    options: ScoreOptions,
) -> list[Row]:
    """The rows of the table, from the runs of each system by their seeds.

    Systems differ where the interval of their difference, over the same draws of questions and
    seeds, is without 0. Figures of other questions are not held against each other.
    """
    pooled = {system: _pooled(list(own.values()), options) for system, own in runs.items()}

    def sign(system: str, other: str, at: Key) -> str:
        if system == other or other not in pooled or at not in pooled[other][1]:
            return ""
        datasets = AVERAGED if at[0] == "mean" else at[:1]
        asked, others = (
            [{run.questions.get(dataset) for run in runs[name].values()} for dataset in datasets]
            for name in (system, other)
        )
        difference = pooled[system][1][at] - pooled[other][1][at]
        low, high = percentiles(difference, options.confidence)
        return "" if asked != others else "+" if low > 0 else "-" if high < 0 else ""

    rows = []
    for place, (system, own) in enumerate(runs.items()):
        start, (values, drawn) = starts.get(system, ""), pooled[system]
        cells = {}
        for at in sorted(values, key=lambda at: at[0] != "mean"):
            low, high = percentiles(drawn[at], options.confidence)
            signs = sign(system, against, at), sign(system, start, at)
            cells[at] = Cell(values[at], low, high, *signs)
        same = ""
        # The start first: training that changed nothing is the likeliest reason.
        for other in dict.fromkeys([start, *list(runs)[:place]]):
            theirs = runs.get(other, {})
            seeds = [s for s in own if s in theirs and theirs[s].verdicts == own[s].verdicts]
            if seeds and not same:
                some = max(len(own), len(theirs)) > len(seeds)
                same = other + f" (seed {', '.join(map(str, seeds))})" * some
        rows.append(Row(system, len(own), start, same, cells))
    return rows


def _pooled(
    runs: Sequence[Run], options: ScoreOptions
) -> tuple[dict[Key, float], dict[Key, Floats]]:
    """The means of a system over its seeds, and over those datasets of `AVERAGED` that it has; and
    these with questions, the same for all seeds, and seeds drawn anew."""
    values: dict[Key, float] = {}
    drawn: dict[Key, Floats] = {}
    for at in dict.fromkeys(at for run in runs for at in run.values):
        having = [run for run in runs if at in run.values]
        # Drawn alike for all systems with as many: what has the same seed has the same start.
        drawn[at] = drawn_seeds([run.drawn[at] for run in having], options.seed)
        values[at] = fmean(run.values[at] for run in having)
    verifiers = dict.fromkeys(verifier for *_, verifier in values if verifier) or [""]
    for name, verifier in product(MEANS, verifiers):
        found = [at for d in AVERAGED if (at := key(d, name, verifier)) in values]
        if found:
            mean = key("mean", name, verifier)
            values[mean] = fmean(values[at] for at in found)
            drawn[mean] = np.mean([drawn[at] for at in found], axis=0)
    return values, drawn
