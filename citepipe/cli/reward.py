"""The command `reward`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from citepipe.cli.arguments import (
    VERIFIER_HELP,
    add_answers,
    answers_of,
    check_writable,
    examples,
    number,
    verifier_of,
    write_json_to,
)


def add(commands: Any) -> None:
    """Add `reward` to the commands."""
    reward = commands.add_parser(
        "reward",
        help="the rewards of a file of answers, and the verdicts behind them",
        description="Judges every statement, citation and gold answer, and prints the rewards that "
        "follow; --json has each with its place in the text.",
        **examples(
            "reward answers_asqa.json --verifier lexical",
            "reward answers.jsonl --dataset eli5 --verifier MODEL --json rewards.json",
            "reward answers.jsonl --verifier lexical --correctness 0 --json - | jq .means",
        ),
    )
    add_answers(reward)
    reward.add_argument("--verifier", required=True, metavar="SPEC", help=VERIFIER_HELP)
    for name, unit in (
        ("citation-recall", "statement: + if supported, - if not"),
        ("citation-precision", "citation: + if right, - if wrong"),
        ("correctness", "gold answer: + if found, - if not"),
    ):
        reward.add_argument(
            f"--{name}",
            type=number(float, "a number from 0", lambda value: 0 <= value < float("inf")),
            default=0.2,
            metavar="X",
            help=f"reward per {unit}; 0 switches it off; default: 0.2",
        )
    reward.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the rewards of a file of answers and write them with the verdicts behind them."""
    from citepipe.options import RewardOptions
    from citepipe.rewards.files import reward_file

    options = RewardOptions(
        citation_recall=arguments.citation_recall,
        citation_precision=arguments.citation_precision,
        correctness=arguments.correctness,
        splitter=arguments.splitter,
    )
    check_writable(arguments.json)
    result = reward_file(answers_of(arguments), verifier_of(arguments), options)
    write_json_to(arguments.json, result)
    if arguments.json != Path("-"):
        names = list(result["means"])
        print("".join([f"{'id':<24}", *(f"{name:>20}" for name in names)]))
        rows = [(own["id"], own["totals"]) for own in result["per_example"]]
        for label, totals in [*rows, ("mean", result["means"])]:
            print("".join([f"{label:<24}", *(f"{totals[name]:>+20.2f}" for name in names)]))
