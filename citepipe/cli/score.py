"""The command `score`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from citepipe.cli.arguments import (
    VERIFIER_HELP,
    add_answers,
    add_resampling,
    answers_of,
    check_writable,
    examples,
    natural,
    verifier_of,
    write_json_to,
)


def add(commands: Any) -> None:
    """Add `score` to the commands."""
    score = commands.add_parser(
        "score",
        help="ALCE's scores of a file of answers",
        description="Prints ALCE's scores of a file of answers with bootstrap intervals: "
        "correctness, ROUGE, length, and citation recall and precision under a verifier.",
        **examples(
            "score answers_asqa.json",
            "score answers.jsonl --dataset eli5 --skip-bad --json scores.json",
            "score answers_asqa.json --metrics length,str_em,rougeLsum",
            "score answers_asqa.json --verifier google/t5_xxl_true_nli_mixture?dtype=4bit",
        ),
    )
    add_answers(score)
    add_resampling(score, 1000)
    score.add_argument(
        "--verifier", default="lexical", metavar="SPEC", help=VERIFIER_HELP + "; default: lexical"
    )
    score.add_argument(
        "--metrics",
        metavar="A,B",
        help="metrics by ALCE's names (mauve, QA-EM, QA-F1 and QA-Hit only if named here)",
    )
    score.add_argument(
        "--rules",
        choices=("alce", "sane"),
        default="alce",
        help="ALCE's rules with all their peculiarities, or the sane ones: [1, 2] cites both, "
        "[2012] is a year, [0] is no document, an id out of range is a wrong citation, what is "
        "said or cited twice counts once, an empty answer scores 0; default: alce",
    )
    score.add_argument(
        "--at-most-citations",
        type=natural,
        default=3,
        metavar="N",
        help="citations of a statement that count, 0 for all; default: 3",
    )
    score.add_argument("--qa-model", metavar="MODEL", help="the reader of QA-EM, QA-F1, QA-Hit")
    score.add_argument("--mauve-model", metavar="MODEL", help="the model behind MAUVE")
    score.add_argument(
        "--expertqa",
        type=Path,
        metavar="FILE",
        help="also write the answers as EXPERTQA's own programs read them",
    )
    score.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Score a file of answers, print the scores and write them with every verdict."""
    from citepipe.options import ScoreOptions
    from citepipe.score import alce
    from citepipe.score.files import Scorer, chosen_metrics

    settings: dict[str, Any] = {
        "judge": {"at_most_citations": arguments.at_most_citations or None},
        "splitter": arguments.splitter,
        "metrics": tuple(arguments.metrics.split(",")) if arguments.metrics else None,
        "resamples": arguments.resamples,
        "confidence": arguments.confidence,
        "seed": arguments.seed,
    }
    settings |= {"reader": arguments.qa_model} if arguments.qa_model else {}
    settings |= {"mauve_model": arguments.mauve_model} if arguments.mauve_model else {}
    options = ScoreOptions(**settings)
    if arguments.rules == "sane":
        options = options.sane()
    needed = alce.computed(chosen_metrics(options))
    check_writable(arguments.json, arguments.expertqa)
    file = answers_of(arguments)
    if arguments.expertqa is not None:
        from citepipe.score.expertqa import write_expertqa
        from citepipe.text.normalize import clean_output
        from citepipe.text.sentences import load_splitter

        texts = [clean_output(output) for output in file.outputs]
        splitter = load_splitter(options.splitter)
        write_expertqa(arguments.expertqa, file.examples, texts, splitter, arguments.input.stem)
    verifier = verifier_of(arguments) if any(map(alce.asks_verifier, needed)) else None
    result = Scorer(file, options, arguments.device).under(verifier)
    write_json_to(arguments.json, result)
    if arguments.json != Path("-"):
        _print_scores(result, options.confidence)


def _print_scores(result: dict[str, Any], confidence: float) -> None:
    parts = result.get("datasets", {"": result})
    names = list(dict.fromkeys(name for part in parts.values() for name in part["metrics"]))
    provenance = result["provenance"]
    for label, part in parts.items():
        counts = part["counts"]
        print(
            f"{label + ': ' if label else ''}{counts['examples']} answers, "
            f"{counts['statements']} statements, {counts['citations']} citations; "
            f"verifier {provenance['verifier'] or 'none'}, splitter {provenance['splitter']}"
        )
        print(f"{'metric':<24}{'value':>9}   {confidence:.0%} interval")
        for name in names:
            if name not in part["metrics"]:
                continue
            bounds = part["intervals"].get(name)
            interval = f"   [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else ""
            print(f"{name:<24}{part['metrics'][name]:>9.2f}{interval}")
    if len(parts) > 1 and "mauve" in result["metrics"]:
        print(f"{'mauve, of all':<24}{result['metrics']['mauve']:>9.2f}")
