"""The command `compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.cli.arguments import add_json, add_resampling, check_writable, write_json_to

if TYPE_CHECKING:
    from citepipe.score.compare import Comparison


def add(commands: Any) -> None:
    """Add `compare` to the commands."""
    compare = commands.add_parser(
        "compare",
        help="a paired test of two score files",
        description="Compares two systems on the questions that both have answered: differences "
        "with bootstrap intervals and p-values of a paired randomisation test.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  citepipe compare a.json b.json\n"
        "  citepipe compare results/scores/dist/seed0.json results/scores/fg_rl/seed0.json\n",
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
    comparisons = compare_files(
        arguments.first,
        arguments.second,
        arguments.resamples,
        arguments.confidence,
        arguments.seed,
    )
    write_json_to(arguments.json, [_comparison_record(one) for one in comparisons])
    if arguments.json != Path("-"):
        print(f"A {arguments.first}\nB {arguments.second}")
        for one in comparisons:
            _print_comparison(one, arguments.confidence)


def _comparison_record(one: Comparison) -> dict[str, Any]:
    return {
        "label": one.label,
        "n": one.n,
        "only_in_a": one.only[0],
        "only_in_b": one.only[1],
        "metrics": {
            name: {
                "a": found.first,
                "b": found.second,
                "difference": found.second - found.first,
                "interval": [found.low, found.high],
                "p": found.p,
            }
            for name, found in one.differences.items()
        },
    }


def _print_comparison(one: Comparison, confidence: float) -> None:
    print(f"\n{one.label + ': ' if one.label else ''}{one.n} questions in common")
    if any(one.only):
        print(f"{one.only[0]} are in A only, {one.only[1]} in B only")
    print(f"{'metric':<24}{'A':>9}{'B':>9}{'B - A':>9}   {confidence:.0%} interval{'p':>10}")
    for name, found in one.differences.items():
        difference = found.second - found.first
        interval = f"[{found.low:+.2f}, {found.high:+.2f}]"
        print(
            f"{name:<24}{found.first:>9.2f}{found.second:>9.2f}{difference:>+9.2f}   "
            f"{interval:<16}{found.p:>8.4f}"
        )
