"""The command `compare`, in text, Markdown, LaTeX or CSV."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from citepipe.cli import shared

FORMATS = ("text", "markdown", "latex", "csv")


def add_compare(commands: Any) -> None:
    """The command `compare`."""
    option = shared.command(
        commands,
        "compare",
        _compare,
        "a paired test of score files",
        "Holds systems against the first one on the questions that both have answered: differences "
        "with bootstrap intervals, p-values of a paired randomisation test, and these corrected "
        "for the number of comparisons (Holm).",
        "compare a.json b.json c.json",
        "compare results/scores/{dist,fg_rl}/seed*.json --format markdown",
        "compare old=a1.json old=a2.json new=b.json --metrics citation_f1 --fail-if-worse",
    ).add_argument
    files = (
        "a file written by `citepipe score --json` or the workflow, perhaps NAME=FILE; files of "
        "one name are seeds of one system, and SYSTEM/seedN.json has its folder's"
    )
    option("files", nargs="+", metavar="FILE", help=files)
    names = "by ALCE's names, or correctness, of means over datasets; default: all but *_eq_w"
    option("--metrics", type=lambda text: text.split(","), metavar="A,B", help=names)
    option("--format", choices=FORMATS, default="text", help="what is printed" + shared.DEFAULT)
    worse = (
        "end with 1 if a metric is worse than the first system's: p by Holm below 1 - confidence"
    )
    option("--fail-if-worse", action="store_true", help=worse)
    shared.add_junit(option)
    shared.add_resampling(option, 10_000)
    shared.add_json(option)


def _compare(arguments: argparse.Namespace) -> None:
    """Compare score files on the questions that they have in common."""
    from citepipe.errors import InputError
    from citepipe.scoring.alce import METRICS
    from citepipe.scoring.compare import HEADLINE, compare, read_systems

    shared.check_writable(arguments.json, arguments.junit)
    known = (*METRICS, "correctness")
    metrics = arguments.metrics or [*HEADLINE, "correctness"]
    for name in metrics:
        if name not in known:
            raise InputError(f"metric {name!r}: expected some of {', '.join(known)}")
    systems = read_systems(arguments.files)
    settings = arguments.resamples, arguments.confidence, arguments.seed
    found = compare(systems, *settings, metrics)
    first = next(iter(systems))
    lines = _lines(first, found, arguments.confidence, arguments.format)
    shared.publish(arguments.json, found, lines)
    if arguments.fail_if_worse or arguments.junit:
        cases = _cases(first, found, 1 - arguments.confidence)
        shared.settle(cases, arguments.junit, arguments.fail_if_worse)


# More of them is neither better nor worse.
_NEUTRAL = ("length", "num_preds", "copied")


def _cases(first: str, found: Sequence[dict[str, Any]], level: float) -> Iterator[shared.Case]:
    """What must hold of each metric of each system: it is not worse than the first one's."""
    for part in found:
        for name, own in part["metrics"].items():
            if name not in _NEUTRAL:
                is_worse = own["difference"] < 0 and own["p_holm"] < level
                expected = f"no worse than {own['a']:.2f} of {first}"
                actual = f"{own['b']:.2f} (p = {own['p_holm']:.4f} by Holm)"
                case = f"{part['label']} {name}"
                yield shared.Case(part["system"], case, expected, actual, not is_worse)


def _lines(
    first: str, found: Sequence[dict[str, Any]], confidence: float, form: str
) -> Iterator[str]:
    """The differences to read."""
    head = ["of", "metric", "system", first, "value", "difference", "interval", "p", "p Holm"]
    head[6] = f"{confidence:.0%} {head[6]}"
    rows = []
    for part in found:
        for name, own in part["metrics"].items():
            figures = [own["a"], own["b"], own["difference"], *own["interval"]]
            if form == "csv":
                shown = [f"{x:.4f}" for x in figures] + [str(own["p"]), str(own["p_holm"])]
            else:
                a, b, difference, low, high = figures
                shown = [f"{a:.2f}", f"{b:.2f}", f"{difference:+.2f}", f"[{low:+.2f}, {high:+.2f}]"]
                shown += [f"{own['p']:.4f}", f"{own['p_holm']:.4f}"]
            rows.append([part["label"], name, part["system"], *shown])
    if form == "csv":
        import csv
        import io

        head[6:7] = ["low", "high"]
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([head, *rows])
        yield from stream.getvalue().splitlines()
    elif form == "text":
        for part in found:
            asked = (
                f"mean over {', '.join(part['over'])}"
                if "over" in part
                else (f"{part['n']} questions in common")
            )
            only = part.get("only_in_a"), part.get("only_in_b")
            more = (
                f"; {only[0]} only of {first}, {only[1]} only of {part['system']}"
                if any(only)
                else ""
            )
            yield f"{part['system']} against {first}, {part['label']}: {asked}{more}"
        yield from _aligned([head, *rows])
    elif form == "markdown":
        for row in [head, ["---"] * 3 + ["---:"] * 6, *rows]:
            yield f"| {' | '.join(row)} |"
    else:
        from citepipe.report.files import LATEX

        yield "\\begin{tabular}{lllrrrrrr}\n\\hline"
        for row in [head, *rows]:
            yield f"{' & '.join(row).translate(LATEX)} \\\\" + ("\n\\hline" if row is head else "")
        yield "\\hline\n\\end{tabular}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    previous = ""
    for row in rows:
        if row[0] != previous:
            yield ""
        previous = row[0]
        cells = [
            f"{c:<{w}}" if i < 3 else f"{c:>{w}}"
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
