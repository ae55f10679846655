"""The commands that ask people: `sample-labels` and `correct`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from citepipe.cli import shared
from citepipe.errors import InputError

_FILES = (
    "a file written by `citepipe score --json` or the workflow, perhaps NAME=FILE; and the answers "
    "that were scored, unless they are beside it or in the workflow's predictions"
)


def add_sample(commands: Any) -> None:
    """The command `sample-labels`."""
    option = shared.command(
        commands,
        "sample-labels",
        _sample,
        "sentences of score files for a person to judge",
        "Draws sentences, some that the verifier calls supported and some that it does not, each "
        "with the passages that it cites. A person fills in `label`: agree or disagree with the "
        "verdict, or unsure; in an editor, or in the report, which reads and saves such files.",
        "sample-labels scores.json --n 200 --out labels.jsonl",
        "sample-labels results/scores/fg_rl/seed*.json --verifier lexical --out labels.jsonl",
    ).add_argument
    option("files", nargs="+", metavar="FILE", help=_FILES)
    count = "sentences in all" + shared.DEFAULT
    option("--n", type=shared.positive, default=200, metavar="N", help=count)
    option("--out", type=Path, required=True, metavar="FILE", help="the labels, as JSON lines")
    option("--verifier", metavar="NAME", help="whose verdicts; default: the file's first")
    option(
        "--seed", type=shared.natural, default=42, metavar="N", help="of the draw" + shared.DEFAULT
    )


def _sample(arguments: argparse.Namespace) -> None:
    """Write sentences to be labelled."""
    from citepipe.data.files import write_jsonl
    from citepipe.scoring.labels import draw, read_parts
    from citepipe.scoring.results import scored_files

    shared.check_writable(arguments.out)
    if arguments.out.exists():
        raise InputError(f"{arguments.out}: expected a new file, it is there already")
    parts = read_parts(*scored_files(arguments.files))
    names = list(dict.fromkeys(part.verifier for part in parts))
    verifier = arguments.verifier or names[0]
    if verifier not in names:
        raise InputError(f"--verifier: expected one of {', '.join(names)}, got {verifier!r}")
    chosen = {part: own for part, own in parts.items() if part.verifier == verifier}
    lines = draw(chosen, arguments.n, arguments.seed)
    write_jsonl(arguments.out, lines)
    fewer = f" (there are no more than these; {arguments.n} were asked for)"
    print(
        f"{arguments.out}: {len(lines)} sentences{fewer if len(lines) < arguments.n else ''}, "
        f"{sum(line['verdicts'][verifier] == 'supported' for line in lines)} of them supported by "
        f"{verifier}"
    )


def add_correct(commands: Any) -> None:
    """The command `correct`."""
    option = shared.command(
        commands,
        "correct",
        _correct,
        "citation scores as people see them, from a few labels",
        "Prints citation recall, precision and F1 of score files beside the same corrected for "
        "the verifier's errors on sentences that a person has labelled, with intervals that cover "
        "questions and labels.",
        "correct scores.json --labels labels.jsonl",
        "correct results/scores/fg_rl/seed*.json --labels labels.jsonl --json corrected.json",
    ).add_argument
    option("files", nargs="+", metavar="FILE", help=_FILES)
    labels = "of `citepipe sample-labels` or the report"
    option("--labels", type=Path, required=True, metavar="FILE", help=labels)
    shared.add_resampling(option, 1000)
    shared.add_json(option)


def _correct(arguments: argparse.Namespace) -> None:
    """Print corrected scores."""
    from citepipe.options import ScoreOptions
    from citepipe.scoring.labels import correct, read_labels, read_parts
    from citepipe.scoring.results import scored_files

    shared.check_writable(arguments.json)
    labels = read_labels(arguments.labels)
    parts = read_parts(*scored_files(arguments.files))
    options = ScoreOptions(**shared.given(arguments, ScoreOptions))
    found = correct(parts, labels, options)
    shared.publish(arguments.json, found, _lines(found, arguments.confidence))


def _lines(found: Sequence[dict[str, Any]], confidence: float) -> Iterator[str]:
    for own in found:
        (yes, of_yes), (no, of_no) = own["supported"], own["not_supported"]
        yield (
            f"{own['system']}, {own['dataset']}: {of_yes + of_no} of the {own['sentences']} "
            f"sentences on which {own['verifier']} decides are labelled ({own['unsure']} unsure, "
            f"{own['unlabelled']} without a label); {own['by_rules']} others cite nothing, or "
            "nothing that counts"
        )
        yield (
            f"  people call supported {yes} of {of_yes} that {own['verifier']} calls so, and {no} "
            f"of {of_no} that it does not: it agrees on {own['agreement']:.1f} %"
        )
        interval = f"{confidence:.0%} interval"
        yield f"{'metric':<16}{'plain':>9}   {interval:<20}{'corrected':>9}   {interval}"
        for name, one in own["metrics"].items():
            plain, both = (
                f"{one[value]:>9.2f}   {'[{:.2f}, {:.2f}]'.format(*one[bounds]):<20}"
                for value, bounds in (("plain", "plain_interval"), ("corrected", "interval"))
            )
            yield f"{name:<16}{plain}{both}".rstrip()
