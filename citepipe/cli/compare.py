"""The command `compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from citepipe.cli.arguments import (
    add_json,
    add_resampling,
    check_writable,
    examples,
    write_json_to,
)


def add(commands: Any) -> None:
    """Add `compare` to the commands."""
    compare = commands.add_parser(
        "compare",
        help="a paired test of two score files",
        description="Compares two systems on the questions that both have answered: differences "
        "with bootstrap intervals and p-values of a paired randomisation test.",
        **examples(
            "compare a.json b.json",
            "compare results/scores/dist/seed0.json results/scores/fg_rl/seed0.json",
        ),
    )
    compare.add_argument(
        "first", type=Path, metavar="A", help="a file written by `citepipe score --json`"
    )
    compare.add_argument("second", type=Path, metavar="B", help="another, of the same questions")
    add_resampling(compare, 10_000)
    add_json(compare)
    compare.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Compare two score files on the questions that both have."""
    from citepipe.score.compare import compare_files

    check_writable(arguments.json)
    first, second, confidence = arguments.first, arguments.second, arguments.confidence
    parts = compare_files(first, second, arguments.resamples, confidence, arguments.seed)
    write_json_to(arguments.json, parts)
    if arguments.json == Path("-"):
        return
    print(f"A {first}\nB {second}")
    for part in parts:
        print(f"\n{part['label']}: {part['n']} questions in common")
        if part["only_in_a"] or part["only_in_b"]:
            print(f"{part['only_in_a']} are in A only, {part['only_in_b']} in B only")
        print(f"{'metric':<24}{'A':>9}{'B':>9}{'B - A':>9}   {confidence:.0%} interval{'p':>10}")
        for name, found in part["metrics"].items():
            interval = "[{:+.2f}, {:+.2f}]".format(*found["interval"])
            print(
                f"{name:<24}{found['a']:>9.2f}{found['b']:>9.2f}{found['difference']:>+9.2f}   "
                f"{interval:<16}{found['p']:>8.4f}"
            )
