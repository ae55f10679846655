"""The command `reward`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from citepipe.cli import shared


def add(commands: Any) -> None:
    """Add `reward` to the commands."""
    reward = commands.add_parser(
        "reward",
        help="the rewards of a file of answers, and the verdicts behind them",
        description="Judges every statement, citation and gold answer, and prints the rewards that "
        "follow; --json has each with its place in the text.",
        **shared.examples(
            "reward answers_asqa.json --verifier lexical",
            "reward answers.jsonl --dataset eli5 --verifier MODEL --json rewards.json",
            "reward answers.jsonl --verifier lexical --correctness 0 --json - | jq .means",
        ),
    )
    shared.add_answers(reward)
    reward.add_argument("--verifier", required=True, metavar="SPEC", help=shared.VERIFIER_HELP)
    size = shared.number(float, "a number from 0", lambda value: 0 <= value < float("inf"))
    for name, unit in (
        ("citation-recall", "statement: + if supported, - if not"),
        ("citation-precision", "citation: + if right, - if wrong"),
        ("correctness", "gold answer: + if found, - if not"),
    ):
        shown = f"reward per {unit}; 0 switches it off{shared.DEFAULT}"
        reward.add_argument(f"--{name}", type=size, default=0.2, metavar="X", help=shown)
    reward.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the rewards of a file of answers and write them with the verdicts behind them."""
    from citepipe.options import RewardOptions
    from citepipe.rewards import reward_file

    options = RewardOptions(**shared.given(arguments, RewardOptions))
    shared.check_writable(arguments.json)
    file = shared.answers_of(arguments)
    result = reward_file(file, shared.verifier_of(arguments), options)
    shared.publish(arguments.json, result, _lines(result))


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """A line of totals per answer, and their means."""
    names = list(result["means"])
    yield "".join([f"{'id':<24}", *(f"{name:>20}" for name in names)])
    rows = [(own["id"], own["totals"]) for own in result["per_example"]]
    for label, totals in [*rows, ("mean", result["means"])]:
        yield "".join([f"{label:<24}", *(f"{totals[name]:>+20.2f}" for name in names)])
