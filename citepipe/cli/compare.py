"""The command `compare`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from citepipe.cli import shared


def add(commands: Any) -> None:
    """Add `compare` to the commands."""
    compare = commands.add_parser(
        "compare",
        help="a paired test of two score files",
        description="Compares two systems on the questions that both have answered: differences "
        "with bootstrap intervals and p-values of a paired randomisation test.",
        **shared.examples(
            "compare a.json b.json",
            "compare results/scores/dist/seed0.json results/scores/fg_rl/seed0.json",
        ),
    )
    option = compare.add_argument
    option("first", type=Path, metavar="A", help="a file written by `citepipe score --json`")
    option("second", type=Path, metavar="B", help="another, of the same questions")
    shared.add_resampling(compare, 10_000)
    shared.add_json(compare)
    compare.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Compare two score files on the questions that both have."""
    from citepipe.score.compare import compare_files

    shared.check_writable(arguments.json)
    files, confidence = (arguments.first, arguments.second), arguments.confidence
    parts = compare_files(*files, arguments.resamples, confidence, arguments.seed)
    shared.publish(arguments.json, parts, _lines(*files, parts, confidence))


def _lines(
    first: Path, second: Path, parts: list[dict[str, Any]], confidence: float
) -> Iterator[str]:
    """The differences to read."""
    yield f"A {first}\nB {second}"
    for part in parts:
        yield f"\n{part['label']}: {part['n']} questions in common"
        if part["only_in_a"] or part["only_in_b"]:
            yield f"{part['only_in_a']} are in A only, {part['only_in_b']} in B only"
        yield f"{'metric':<24}{'A':>9}{'B':>9}{'B - A':>9}   {confidence:.0%} interval{'p':>10}"
        for name, found in part["metrics"].items():
            interval = "[{:+.2f}, {:+.2f}]".format(*found["interval"])
            yield (
                f"{name:<24}{found['a']:>9.2f}{found['b']:>9.2f}{found['difference']:>+9.2f}   "
                f"{interval:<16}{found['p']:>8.4f}"
            )
