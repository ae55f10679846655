"""The command `reward`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from citepipe.cli.arguments import (
    VERIFIER_HELP,
    add_input,
    add_verification,
    check_writable,
    decision_cache,
    size,
    tell,
    write_json_to,
)


def add(commands: Any) -> None:
    """Add `reward` to the commands."""
    reward = commands.add_parser(
        "reward",
        help="the rewards of a file of answers, and the verdicts behind them",
        description="Judges every statement, citation and gold answer, and prints the rewards that "
        "follow; --json has each with its place in the text.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  citepipe reward answers_asqa.json --verifier lexical\n"
        "  citepipe reward answers.jsonl --dataset eli5 --verifier MODEL --json rewards.json\n"
        "  citepipe reward answers.jsonl --verifier lexical --correctness 0 --json - | jq .means\n",
    )
    add_input(reward)
    reward.add_argument("--verifier", required=True, metavar="SPEC", help=VERIFIER_HELP)
    for name, unit in (
        ("citation-recall", "statement: + if supported, - if not"),
        ("citation-precision", "citation: + if right, - if wrong"),
        ("correctness", "gold answer: + if found, - if not"),
    ):
        reward.add_argument(
            f"--{name}",
            type=size,
            default=0.2,
            metavar="X",
            help=f"reward per {unit}; 0 switches it off; default: 0.2",
        )
    add_verification(reward)
    reward.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the rewards of a file of answers and write them with the verdicts behind them."""
    from citepipe.data.answers import read_answers
    from citepipe.options import RewardOptions
    from citepipe.rewards.files import reward_file
    from citepipe.verify.load import load_verifier

    options = RewardOptions(
        citation_recall=arguments.citation_recall,
        citation_precision=arguments.citation_precision,
        correctness=arguments.correctness,
        splitter=arguments.splitter,
    )
    check_writable(arguments.json)
    file = read_answers(arguments.input, arguments.dataset, arguments.skip_bad)
    tell(file)
    verifier = load_verifier(arguments.verifier, decision_cache(arguments), arguments.device)
    result = reward_file(file, verifier, options)
    write_json_to(arguments.json, result)
    if arguments.json != Path("-"):
        names = list(result["means"])
        print("".join([f"{'id':<24}", *(f"{name:>20}" for name in names)]))
        rows = [(own["id"], own["totals"]) for own in result["per_example"]]
        for label, totals in [*rows, ("mean", result["means"])]:
            print("".join([f"{label:<24}", *(f"{totals[name]:>+20.2f}" for name in names)]))
