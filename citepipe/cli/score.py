"""The command `score`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from citepipe.cli import shared


def add(commands: Any) -> None:
    """Add `score` to the commands."""
    score = commands.add_parser(
        "score",
        help="ALCE's scores of a file of answers",
        description="Prints ALCE's scores of a file of answers with bootstrap intervals: "
        "correctness, ROUGE, length, and citation recall and precision under a verifier.",
        **shared.examples(
            "score answers_asqa.json",
            "score answers.jsonl --dataset eli5 --skip-bad --json scores.json",
            "score answers_asqa.json --metrics length,str_em,rougeLsum",
            "score answers_asqa.json --verifier google/t5_xxl_true_nli_mixture?dtype=4bit",
        ),
    )
    shared.add_answers(score)
    shared.add_resampling(score, 1000)
    option = score.add_argument
    option(
        "--verifier", default="lexical", metavar="SPEC", help=shared.VERIFIER_HELP + shared.DEFAULT
    )
    option(
        "--metrics",
        type=lambda text: tuple(text.split(",")),
        metavar="A,B",
        help="metrics by ALCE's names (mauve, QA-EM, QA-F1 and QA-Hit only if named here)",
    )
    option(
        "--rules",
        choices=("alce", "sane"),
        default="alce",
        help="ALCE's rules with all their peculiarities, or the sane ones: [1, 2] cites both, "
        "[2012] is a year, [0] is no document, an id out of range is a wrong citation, what is "
        "said or cited twice counts once, an empty answer scores 0" + shared.DEFAULT,
    )
    option(
        "--at-most-citations",
        type=shared.natural,
        default=3,
        metavar="N",
        help="citations of a statement that count, 0 for all" + shared.DEFAULT,
    )
    option("--qa-model", dest="reader", metavar="MODEL", help="the reader of QA-EM, QA-F1, QA-Hit")
    option("--mauve-model", metavar="MODEL", help="the model behind MAUVE")
    programs = "also write the answers as EXPERTQA's own programs read them"
    option("--expertqa", type=Path, metavar="FILE", help=programs)
    score.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> None:
    """Score a file of answers, print the scores and write them with every verdict."""
    from citepipe.options import JudgeOptions, ScoreOptions
    from citepipe.score import alce
    from citepipe.score.files import Scorer, chosen_metrics

    options = ScoreOptions(
        judge=JudgeOptions(at_most_citations=arguments.at_most_citations or None),
        **shared.given(arguments, ScoreOptions),
    )
    if arguments.rules == "sane":
        options = options.sane()
    needed = alce.computed(chosen_metrics(options))
    shared.check_writable(arguments.json, arguments.expertqa)
    file = shared.answers_of(arguments)
    if arguments.expertqa is not None:
        from citepipe.score.expertqa import write_expertqa
        from citepipe.text.normalize import clean_output
        from citepipe.text.sentences import load_splitter

        texts = [clean_output(output) for output in file.outputs]
        splitter = load_splitter(options.splitter)
        write_expertqa(arguments.expertqa, file.examples, texts, splitter, arguments.input.stem)
    verifier = shared.verifier_of(arguments) if any(map(alce.asks_verifier, needed)) else None
    result = Scorer(file, options, arguments.device).under(verifier)
    shared.publish(arguments.json, result, _lines(result, options.confidence))


def _lines(result: dict[str, Any], confidence: float) -> Iterator[str]:
    """The scores to read, of each dataset if there are several."""
    provenance = result["provenance"]
    parts = result.get("datasets", {"": result})
    names = dict.fromkeys(name for part in parts.values() for name in part["metrics"])
    for label, part in parts.items():
        counts = part["counts"]
        yield (
            f"{label + ': ' if label else ''}{counts['examples']} answers, "
            f"{counts['statements']} statements, {counts['citations']} citations; "
            f"verifier {provenance['verifier'] or 'none'}, splitter {provenance['splitter']}"
        )
        yield f"{'metric':<24}{'value':>9}   {confidence:.0%} interval"
        for name in (name for name in names if name in part["metrics"]):
            bounds = part["intervals"].get(name)
            interval = "   [{:.2f}, {:.2f}]".format(*bounds) if bounds else ""
            yield f"{name:<24}{part['metrics'][name]:>9.2f}{interval}"
    if len(parts) > 1 and "mauve" in result["metrics"]:
        yield f"{'mauve, of all':<24}{result['metrics']['mauve']:>9.2f}"
