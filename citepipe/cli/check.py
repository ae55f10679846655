"""The command `check`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from citepipe.cli import shared
from citepipe.errors import InputError


def add(commands: Any) -> None:
    """Add `check` to the commands."""
    check = commands.add_parser(
        "check",
        help="what is wrong with a data file, and what would be done with it",
        description="Looks at every row of a file of questions or answers, says all that is wrong "
        "with it by row and field, and what the pipeline would do with it. Ends with 1 if the "
        "pipeline would refuse the file.",
        **shared.examples(
            "check combined_train.json",
            "check questions.jsonl --own-as asqa --lines 20",
            "check asqa_eval_gtr_top100.json --json - | jq .uses",
        ),
    )
    option, count = check.add_argument, {"type": shared.positive, "default": 5, "metavar": "N"}
    option("input", type=Path, metavar="FILE", help="a JSON list, result file or JSONL")
    option("--dataset", metavar="NAME", help=shared.DATASET_HELP)
    rows = "of rows that nothing assigns; default: eli5"
    option("--own-as", default="eli5", metavar="NAME", help=rows)
    option("--documents", help="kept per question (data.documents); default: 5", **count)
    option("--lines", help="findings of a kind that get a line; default: 5", **count)
    shared.add_json(check)
    check.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Print a report on a file.

    Raises:
        InputError: the pipeline would refuse it.
    """
    from citepipe.data.check import check

    shared.check_writable(arguments.json)
    report = check(
        arguments.input, arguments.dataset, arguments.documents, arguments.own_as, arguments.lines
    )
    shared.publish(arguments.json, report.as_json(), report.lines())
    if not report.is_usable:
        raise InputError(f"{arguments.input}: not usable as it is")
