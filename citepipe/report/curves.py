"""The learning curves of all trained systems: one figure, and its numbers in tidy form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from citepipe.data.files import atomic_writer, read_jsonl
from citepipe.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HELD_OUT = "held out F1"
"""Citation F1 on dev by the verifier that only watches."""

LINES = {
    "dev_citation_recall": "citation recall",
    "dev_citation_precision": "citation precision",
    "dev_correctness": "correctness",
    "dev_citation_f1": "rewarded",
    HELD_OUT: "held out",
    "eval_loss": "dev",
    "loss": "training",
}
"""What figures are called that share a panel with others."""

COLOURS = ("#1f5fa8", "#c9571a", "#3d8a4a")
"""Blue, orange and green that stay apart for the colour-blind, and in print."""

STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 8,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "svg.hashsalt": "citepipe",
}


class Panel(NamedTuple):
    """A panel: its axis with the unit, its figures in the order of the colours, whether the kept
    step is marked on the first figure, and what stands above a column of such panels."""

    label: str
    names: tuple[str, ...]
    best: bool = False
    title: str = ""


REINFORCED = (
    Panel("reward per answer", ("dev_reward",), best=True, title="Reward on dev"),
    Panel("reward per answer", tuple(LINES)[:3], title="Its components on dev"),
    Panel("citation F1 (%)", ("dev_citation_f1", HELD_OUT), best=True, title="Citation F1 on dev"),
    Panel("KL (nats per answer)", ("kl",), title="KL to the start"),
    Panel("entropy (nats per token)", ("entropy",), title="Entropy of the policy"),
    Panel("tokens per answer", ("dev_tokens",), title="Length on dev"),
)
"""The panels of a system that learnt from rewards. The best step has the highest dev reward."""

FITTED = Panel("loss (nats)", ("eval_loss", "loss"), best=True)
"""The panel of a system that learnt from answers (per token) or pairs of them (per pair)."""

DRAWN = tuple(dict.fromkeys(name for panel in (*REINFORCED, FITTED) for name in panel.names))


def run(runs: Sequence[tuple[str, int, Path]], out_figure: Path, out_points: Path) -> str:
    """Draw the curves and write their numbers; returns a line that says what was drawn.

    A system that learnt from rewards is a row of panels, with axes that all such systems share; one
    that was fine-tuned is a panel. Seeds are thin lines, and the thick one is their mean, as far as
    all of them go. A dot is the step whose weights were kept. The same input makes the same bytes.

    Args:
        runs: system, seed and `metrics.jsonl` of every trained system, in the figure's order.
        out_figure: the figure (SVG); a PNG is written beside it.
        out_points: system, seed, step, name and value of every point (CSV).

    Raises:
        InputError: a file has no learning curve.
    """
    from matplotlib import style

    points = read(runs)
    with atomic_writer(out_points) as stream:
        points.to_csv(stream, index=False, lineterminator="\n")
    # The user's own settings would change the picture.
    with style.context(["default", STYLE]):
        figure = draw(points)
        save(figure, out_figure)
        save(figure, out_figure.with_suffix(".png"))
    systems = points["system"].nunique()
    return f"curves: {systems} systems, {len(runs)} runs, {len(points)} points, {out_figure}"


def save(figure: Figure, path: Path) -> None:
    """Write a figure, as the end of the file's name says, without date or version."""
    if path.suffix == ".svg":
        with atomic_writer(path) as stream:
            figure.savefig(stream, format="svg", metadata={"Date": None})
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, metadata={"Software": None})


def read(runs: Sequence[tuple[str, int, Path]]) -> pd.DataFrame:
    """The figures that are drawn of all runs, a row per point; InputError if a file has none."""
    import pandas as pd

    frames = []
    for system, seed, path in runs:
        frame = pd.DataFrame(read_jsonl(path))
        frame = frame.rename(columns=lambda n: re.sub("^dev_citation_f1_.+", HELD_OUT, n))
        frame = frame.reindex(columns=["step", *DRAWN])
        points = frame.melt("step", var_name="name").dropna()
        if points.empty:
            raise InputError(f"{path}: expected numbers for some of {', '.join(DRAWN)}")
        # A step that was taken twice counts as it was the last time.
        points = points.drop_duplicates(["step", "name"], keep="last")
        points = points.sort_values(["name", "step"], kind="stable")
        frames.append(points.assign(system=system, seed=seed))
    return pd.concat(frames, ignore_index=True)[["system", "seed", "step", "name", "value"]]


def best_step(own: pd.DataFrame) -> int | None:
    """The step whose weights a run kept, from its points: the first of the best on dev."""
    for name, sign in (("dev_reward", -1), ("eval_loss", 1)):
        found = own[own["name"] == name].sort_values("step", kind="stable")
        if len(found):
            return int(found["step"].iloc[int((sign * found["value"]).argmin())])
    return None


def draw(points: pd.DataFrame) -> Figure:
    """The figure of the points that `read` returns: fine-tuned systems above, the others below."""
    from matplotlib.figure import Figure

    systems = {str(name): own for name, own in points.groupby("system", sort=False)}
    reinforced = {n: own for n, own in systems.items() if (own["name"] == "dev_reward").any()}
    fitted = {name: own for name, own in systems.items() if name not in reinforced}
    across = len(REINFORCED) if reinforced else min(len(REINFORCED), len(fitted))
    above = -(-len(fitted) // across)
    rows = above + len(reinforced)
    figure = Figure(figsize=(2.6 * across, 1.8 * rows + 0.6), layout="constrained")
    grid = figure.add_gridspec(rows, across)
    for number, (system, own) in enumerate(fitted.items()):
        axes = figure.add_subplot(grid[divmod(number, across)])
        _draw_panel(axes, FITTED, own)
        axes.set_title(system, fontweight="bold")
    first: dict[Panel, Axes] = {}
    for row, (system, own) in enumerate(reinforced.items(), start=above):
        for column, panel in enumerate(REINFORCED):
            axes = figure.add_subplot(grid[row, column], sharey=first.get(panel))
            _draw_panel(axes, panel, own)
            if first.setdefault(panel, axes) is axes:
                axes.set_title(panel.title)
            if column == 0:
                place: Any = {"xycoords": "axes fraction", "va": "center", "rotation": 90}
                axes.annotate(system, (-0.45, 0.5), weight="bold", **place)
    return figure


def _draw_panel(axes: Axes, panel: Panel, own: pd.DataFrame) -> None:
    """The curves of one system that a panel shows, and what its axes are."""
    from matplotlib.ticker import MaxNLocator

    drawn = [name for name in panel.names if (own["name"] == name).any()]
    for place, name in enumerate(drawn):
        curves = own[own["name"] == name].pivot(index="step", columns="seed", values="value")
        # What comes first is in front.
        style: dict[str, Any] = {"color": COLOURS[place], "zorder": 3 - place / 10}
        if name == HELD_OUT:
            # Perhaps it is the same line.
            style |= {"linestyle": "--", "zorder": 3}
        for seed in curves if curves.shape[1] > 1 else []:
            axes.plot(curves[seed].dropna(), linewidth=0.6, alpha=0.45, **style)
        mean = curves.dropna().mean(axis="columns")
        axes.plot(mean, linewidth=1.6, label=LINES.get(name), **style)
        for seed in curves if panel.best and place == 0 else []:
            kept = best_step(own[own["seed"] == seed])
            if kept is not None and kept in curves.index:
                axes.plot(kept, curves[seed][kept], "o", markersize=3.5, **style)
    axes.set(xlabel="step", ylabel=panel.label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    if len(drawn) > 1:
        # Below, where no line is.
        below: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.28), "borderaxespad": 0}
        below |= {"fontsize": 6, "frameon": False, "handlelength": 1, "columnspacing": 1}
        axes.legend(ncols=len(drawn), **below)
