"""The command `check`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from citepipe.cli.arguments import (
    DATASET_HELP,
    add_json,
    check_writable,
    examples,
    positive,
    write_json_to,
)
from citepipe.errors import InputError


def add(commands: Any) -> None:
    """Add `check` to the commands."""
    check = commands.add_parser(
        "check",
        help="what is wrong with a data file, and what would be done with it",
        description="Looks at every row of a file of questions or answers, says all that is wrong "
        "with it by row and field, and what the pipeline would do with it. Ends with 1 if the "
        "pipeline would refuse the file.",
        **examples(
            "check combined_train.json",
            "check questions.jsonl --own-as asqa --lines 20",
            "check asqa_eval_gtr_top100.json --json - | jq .uses",
        ),
    )
    check.add_argument("input", type=Path, metavar="FILE", help="a JSON list, result file or JSONL")
    check.add_argument("--dataset", metavar="NAME", help=DATASET_HELP)
    check.add_argument(
        "--own-as", default="eli5", metavar="NAME", help="of rows that nothing assigns; eli5"
    )
    for name, meaning in (
        ("documents", "per question that are kept (data.documents)"),
        ("lines", "findings of a kind that get a line"),
    ):
        check.add_argument(
            f"--{name}", type=positive, default=5, metavar="N", help=f"{meaning}; default: 5"
        )
    add_json(check)
    check.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Print a report on a file.

    Raises:
        InputError: the pipeline would refuse it.
    """
    from citepipe.data.check import check

    check_writable(arguments.json)
    report = check(
        arguments.input,
        arguments.dataset,
        arguments.documents,
        arguments.own_as,
        arguments.lines,
    )
    write_json_to(arguments.json, report.as_json())
    if arguments.json != Path("-"):
        print("\n".join(report.lines()))
    if not report.is_usable:
        raise InputError(f"{arguments.input}: not usable as it is")
