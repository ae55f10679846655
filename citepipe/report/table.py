"""The table of all systems: a row per system, and every score of every run in tidy form."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from citepipe.data.files import atomic_writer, read_json
from citepipe.errors import InputError
from citepipe.progress import say
from citepipe.score.alce import asks_verifier, computed

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

MEANS = {"citation_f1": dict.fromkeys(CORRECTNESS, "citation_f1"), "correctness": CORRECTNESS}
"""What has a mean over datasets: its name, and the metric of each dataset."""

AVERAGED = ("asqa", "qampari", "eli5")
"""The datasets of the means; EXPERTQA is for inference only and stays out."""


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


Questions = dict[tuple[str, int, str], frozenset[str]]
"""The ids of the questions that a run was scored on, by system, seed and dataset."""


def run(scores: Sequence[tuple[str, int, Path]], out_table: Path, out_scores: Path) -> str:
    """Write both tables, show the first on stderr and return a line that says what was written.

    Args:
        scores: system, seed and score file of every run, in the order of the table.
        out_table: a row per system, the mean over its seeds. Figures by the first verifier have
            plain names, those by another end in `_{verifier}`.
        out_scores: a row per figure, with its bootstrap interval over examples.
    """
    import pandas as pd

    figures: list[Score] = []
    questions: Questions = {}
    for system, seed, path in scores:
        figures += read_scores(system, seed, path, questions)
    rows = table(figures)
    for out, records in ((out_scores, figures), (out_table, rows)):
        with atomic_writer(out) as stream:
            frame = pd.DataFrame(records)
            frame.to_csv(stream, index=False, float_format="%.4f", lineterminator="\n")
    for text in show(rows, figures, questions):
        say(text)
    return f"table: {len(rows)} systems, {len(figures)} figures, {out_table}"


def read_scores(system: str, seed: int, path: Path, questions: Questions) -> list[Score]:
    """The figures of one score file, `{verifier: {dataset: {"metrics": …, "intervals": …}}}`, those
    that need no verifier once; what it was scored on is added to `questions`."""
    figures: dict[tuple[str, str, str], Score] = {}
    try:
        for verifier, datasets in read_json(path).items():
            for dataset, result in datasets.items():
                rows = result["per_example"]
                questions[system, seed, dataset] = frozenset(row["id"] for row in rows)
                having = Counter(name for row in rows for name in row)
                for metric, value in result["metrics"].items():
                    if value is None:
                        continue
                    needed = verifier if asks_verifier(metric) else ""
                    low, high = result["intervals"].get(metric) or (None, None)
                    # MAUVE is of all answers together.
                    n = min(having.get(part, len(rows)) for part in computed([metric]))
                    figures.setdefault(
                        (dataset, metric, needed),
                        Score(system, seed, dataset, metric, value, low, high, n, needed),
                    )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a score file, broken at {error}") from None
    return list(figures.values())


def table(figures: Sequence[Score]) -> list[dict[str, Any]]:
    """The rows of the table: per system the means over seeds, of single figures that it has and
    over those datasets of `AVERAGED` that it was scored on."""
    verifiers = _distinct(f.verifier for f in figures if f.verifier)
    rows = []
    for system in _distinct(f.system for f in figures):
        own = [f for f in figures if f.system == system]
        values = defaultdict(list)
        for f in (f for f in own if f.metric in COLUMNS):
            values[_column(f.dataset, f.metric, f.verifier, verifiers)].append(f.value)
        row: dict[str, Any] = {"system": system, "seeds": len({f.seed for f in own})}
        for (name, metrics), verifier in product(MEANS.items(), verifiers):
            columns = [_column(d, metrics[d], verifier, verifiers) for d in AVERAGED]
            means = [fmean(values[column]) for column in columns if column in values]
            if means:
                row[f"mean_{name}{_suffix(verifier, verifiers)}"] = fmean(means)
        datasets = _distinct(f.dataset for f in own)
        for verifier, dataset, metric in product(verifiers, datasets, COLUMNS):
            if (column := _column(dataset, metric, verifier, verifiers)) in values:
                row[column] = fmean(values[column])
        rows.append(row)
    return rows


def show(
    rows: Sequence[Mapping[str, Any]], figures: Sequence[Score], questions: Questions
) -> list[str]:
    """The table as lines to read: citation F1 and, if there are gold answers, correctness by
    dataset, a block per verifier; runs scored on other questions than the first are named."""
    datasets = _distinct(f.dataset for f in figures)
    verifiers = _distinct(f.verifier for f in figures if f.verifier)
    correctness = not {f.metric for f in figures}.isdisjoint(CORRECTNESS.values())
    parts = list(MEANS.items()) if correctness else list(MEANS.items())[:1]
    width = max(map(len, ["system", *(row["system"] for row in rows)])) + 2
    head = "".join(f"{name:>9}" for name in ["mean", *datasets])
    lines = []
    for verifier in verifiers:
        titles = [f"{name.replace('_f1', ' F1'):>{len(head)}}" for name, _ in parts]
        lines += [
            "",
            f"By verifier {verifier}:",
            f"{'':<{width}}" + "  |".join(titles),
            f"{'system':<{width}}" + "  |".join([head] * len(parts)),
        ]
        for row in rows:
            blocks = []
            for name, metrics in parts:
                columns = [f"mean_{name}{_suffix(verifier, verifiers)}"]
                columns += [_column(d, metrics[d], verifier, verifiers) for d in datasets]
                cells = [row.get(column) for column in columns]
                blocks.append("".join("        -" if c is None else f"{c:9.1f}" for c in cells))
            lines.append(f"{row['system']:<{width}}" + "  |".join(blocks))
    counts = {dataset: len(ids) for (_, _, dataset), ids in questions.items()}
    averaged = ", ".join(name for name in AVERAGED if name in datasets) or "none of these"
    lines += [
        "",
        "Percent, means over seeds; questions: "
        f"{', '.join(f'{name} {counts[name]}' for name in datasets)}. mean: over {averaged}.",
        "citation F1: of citation recall (statements that their citations support) and citation",
        "precision (citations that are right).",
    ]
    if correctness:
        lines[-1] += " correctness: gold answers found; for eli5 and"
        lines.append("expertqa, claims that the answer supports, as the verifier judges.")
    first: dict[str, tuple[str, frozenset[str]]] = {}
    for (system, seed, dataset), ids in questions.items():
        name, others = first.setdefault(dataset, (f"{system} seed {seed}", ids))
        if ids != others:
            lines.append(
                f"{dataset}: {system} seed {seed} was scored on {len(ids)} questions, {name} on "
                f"{len(others)}, {len(ids & others)} of them the same: do not compare their figures"
            )
    return [*lines, ""]


def _column(dataset: str, metric: str, verifier: str, verifiers: Sequence[str]) -> str:
    """What a figure's column is called; one that needs no verifier has the same under each."""
    suffix = _suffix(verifier, verifiers) if asks_verifier(metric) else ""
    return f"{dataset}_{COLUMNS[metric]}{suffix}"


def _suffix(verifier: str, verifiers: Sequence[str]) -> str:
    return "" if verifier == verifiers[0] else f"_{verifier}"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
