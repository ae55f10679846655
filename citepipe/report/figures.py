"""Figures of the scores: systems against each other, what goes wrong, and the samples' rewards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.data.files import read_json, read_jsonl
from citepipe.report.curves import STYLE, save
from citepipe.text.statements import ended

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#5aa9dc", "#8c4fd0", "#7f7f7f")
MARKS = "osD^vP*<"
"""A colour and a mark per system: either is enough to tell eight apart."""

REASONS = {
    "supported": ("#0072b2", ""),
    "partly supported": ("#e69f00", "--"),
    "supported elsewhere": ("#5aa9dc", "//"),
    "repeated": ("#8a6d00", ".."),
    "refusal": ("#7f7f7f", ""),
    "cites nothing": ("#cc79a7", "\\\\"),
    "out of range": ("#000000", ""),
    "not supported": ("#d55e00", "xx"),
}
"""Verdicts on statements in their order, each with colour and hatching."""


def run(
    table: Path,
    scores: Sequence[tuple[str, int, Path]],
    samples: Sequence[tuple[str, int, Path, Path]],
    models: Sequence[tuple[str, int, Path]],
    starts: Mapping[str, str],
    folder: Path,
) -> str:
    """Draw `scores`, `errors` and, if there are any samples, these and their `cost`, each as SVG
    and PNG; returns a line that says so. The same input makes the same bytes.

    Args:
        table: the table of systems (CSV).
        scores: system, seed and score file of every run, in the figures' order.
        samples: by system and seed the answers that were chosen to learn from (`answers.json`), and
            what these were chosen among (`candidates.jsonl`).
        models: system, seed and directory of what was trained.
        starts: by system the one that its training, or its way of answering, starts from.
        folder: where the figures go.
    """
    import pandas as pd
    from matplotlib import style

    with style.context(["default", STYLE, {"hatch.linewidth": 0.5}]):
        rows = pd.read_csv(table).to_dict("records")
        tokens = sampled_tokens(models, samples, starts)
        drawn = {
            "scores": draw_scores(rows),
            "errors": draw_errors(errors(scores)),
            **({"samples": draw_samples(rewards(samples))} if samples else {}),
            **({"cost": draw_cost(rows, tokens)} if any(tokens.values()) else {}),
        }
        for name, figure in drawn.items():
            save(figure, folder / f"{name}.svg")
            save(figure, folder / f"{name}.png")
    return f"figures: {', '.join(drawn)} in {folder}"


def draw_scores(rows: Sequence[Mapping[Any, Any]]) -> Figure:
    """Of each dataset citation recall against precision, and in the mean citation F1 against
    correctness: a mark per system, whose lines are its intervals."""
    ends = "_citation_recall"
    places = [name.removesuffix(ends) for name in rows[0] if name.endswith(ends)]
    panels = [("mean", "correctness", "citation_f1")] if "mean_citation_f1" in rows[0] else []
    panels += [(place, "citation_precision", "citation_recall") for place in places]
    figure = _figure(max(len(panels), 1), 2.6, 2.5)
    for axes, (place, *metrics) in zip(figure.axes, panels, strict=False):
        _draw_marks(axes, rows, [f"{place}_{metric}" for metric in metrics])
        across, up = (metric.replace("_f1", " F1").replace("_", " ") for metric in metrics)
        axes.set(title=place, xlabel=f"{across} (%)", ylabel=f"{up} (%)")
    _legend(figure)
    return figure


def _draw_marks(axes: Axes, rows: Sequence[Mapping[Any, Any]], columns: Sequence[str]) -> None:
    """A mark per system at the values of two columns (across, up), and lines for intervals."""
    for number, row in enumerate(rows):
        points = [float(row.get(column, "nan")) for column in columns]
        if any(map(math.isnan, points)):
            continue
        x, y = points
        bars = [
            [[value - row.get(f"{column}_low", value)], [row.get(f"{column}_high", value) - value]]
            for column, value in zip(columns, points, strict=True)
        ]
        look: Any = {"color": COLOURS[number % 8], "fmt": MARKS[number % 8], "elinewidth": 0.8}
        axes.errorbar(x, y, bars[1], bars[0], label=row["system"], markersize=4.5, **look)


def sampled_tokens(
    models: Sequence[tuple[str, int, Path]],
    samples: Sequence[tuple[str, int, Path, Path]],
    starts: Mapping[str, str],
) -> dict[str, float]:
    """By trained system the tokens of all answers that were sampled for its training and for that
    of the systems it comes from, in the mean of its seeds."""
    spent: dict[str, dict[int, int]] = {}
    for system, seed, model in models:
        steps = read_jsonl(model / "metrics.jsonl")
        spent.setdefault(system, {})[seed] = sum(step.get("sampled_tokens", 0) for step in steps)
    for system, seed, answers, _ in samples:
        spent[system][seed] += read_json(answers.with_name("account.json"))["tokens_sampled"]
    own = {system: sum(seeds.values()) / len(seeds) for system, seeds in spent.items()}

    def whole(system: str) -> float:
        return own.get(system, 0) + (whole(starts[system]) if system in starts else 0)

    return {system: whole(system) for system in own}


def draw_cost(rows: Sequence[Mapping[Any, Any]], tokens: Mapping[str, float]) -> Figure:
    """A mark per trained system: what was sampled to train it, and its citation F1."""
    figure = _figure(1, 3.6, 2.6)
    [axes] = figure.axes
    columns = [name for name in rows[0] if name.endswith("_citation_f1")]
    f1 = "mean_citation_f1" if "mean_citation_f1" in columns else [*columns, "citation_f1"][0]
    known = [{**row, "tokens": tokens.get(row["system"], math.nan) / 1000} for row in rows]
    _draw_marks(axes, known, ["tokens", f1])
    across = "tokens sampled for training (thousands)"
    axes.set(xlabel=across, ylabel=f"{f1.replace('_f1', ' F1').replace('_', ' ')} (%)")
    _legend(figure)
    return figure


def errors(scores: Sequence[tuple[str, int, Path]]) -> dict[str, dict[str, Counter[str]]]:
    """How often each verdict was given on a statement by the first verifier, by dataset and system,
    over all seeds."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for system, _, path in scores:
        for dataset, result in next(iter(read_json(path).values())).items():
            of_dataset = found.setdefault(dataset, {})
            of_dataset.setdefault(system, Counter()).update(result["reasons"]["statements"])
    return found


def draw_errors(found: Mapping[str, Mapping[str, Counter[str]]]) -> Figure:
    """A panel per dataset, a bar per system: the share of each verdict on its statements."""
    systems = max(map(len, found.values()), default=1)
    figure = _figure(max(len(found), 1), 2.6, 0.22 * systems + 0.8)
    for axes, (dataset, own) in zip(figure.axes, found.items(), strict=False):
        begun = [0.0] * len(own)
        for reason, (colour, hatch) in REASONS.items():
            shares = [100 * n[reason] / max(n.total(), 1) for n in own.values()]
            if any(shares):
                look: Any = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
                axes.barh(list(own), shares, 0.75, begun, label=reason, **look)
            begun = [a + b for a, b in zip(begun, shares, strict=True)]
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set(title=dataset, xlabel="statements (%)", xlim=(0, 100))
    _legend(figure, REASONS)
    return figure


def rewards(
    samples: Sequence[tuple[str, int, Path, Path]],
) -> dict[str, dict[str, list[float]]]:
    """By system the rewards of the greedy answers, of all samples, and of the chosen ones."""
    found: dict[str, dict[str, list[float]]] = {}
    for system, _, answers, candidates in samples:
        chosen = {(row["dataset"], row["id"]): row["output"] for row in read_json(answers)}
        own = found.setdefault(system, {"greedy": [], "samples": [], "chosen": []})
        for record in read_jsonl(candidates):
            own["samples"] += [one["reward"] for one in record["candidates"]]
            own["greedy"] += [record["greedy"]["reward"]] if record.get("greedy") else []
            dataset = record["dataset"]
            kept = chosen.get((dataset, record["id"]), [])
            own["chosen"] += [
                one["reward"] for one in record["candidates"] if ended(one["text"], dataset) in kept
            ][:1]
    return found


def draw_samples(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """A panel per system that learnt from samples: how large a share of answers has at most so much
    reward, before the choice and after it."""
    figure = _figure(max(len(found), 1), 2.6, 2.2)
    for axes, (system, own) in zip(figure.axes, found.items(), strict=False):
        for number, (name, values) in enumerate(own.items()):
            if values:
                mean = sum(values) / len(values)
                look: Any = {"color": COLOURS[number], "linestyle": ("-", "--", "-.")[number]}
                axes.ecdf(values, label=f"{name} (mean {mean:.2f})", **look)
        axes.set(title=system, xlabel="reward of an answer", ylabel="share with at most that")
        axes.legend(fontsize=6, frameon=False)
    return figure


def _figure(panels: int, width: float, height: float) -> Figure:
    """A figure of panels, at most three in a row."""
    from matplotlib.figure import Figure

    across = min(panels, 3)
    down = -(-panels // across)
    figure = Figure(figsize=(width * across, height * down + 0.4), layout="constrained")
    for number, axes in enumerate(figure.subplots(down, across, squeeze=False).flat):
        axes.set_visible(number < panels)
    return figure


def _legend(figure: Figure, order: Iterable[str] = ()) -> None:
    """One legend for all panels, below them, perhaps in an order."""
    known: dict[str, Any] = {}
    for axes in figure.axes:
        known |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    known = {name: known[name] for name in order or known if name in known}
    if known:
        place: Any = {"loc": "outside lower center", "frameon": False, "fontsize": 7}
        across = min(len(known), int(figure.get_figwidth() / 0.95))
        figure.legend(list(known.values()), list(known), ncols=across, **place)
