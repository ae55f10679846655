"""The command `show`: answers in the terminal, sentence by sentence, each with its verdict."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from citepipe.cli import answers, shared
from citepipe.errors import InputError

# Green, red, yellow: for what is supported, what is not, and what else is wrong.
_COLOURS = {"supported": 32, "supports": 32, "not supported": 31}
_OTHER = 33


def add_show(commands: Any) -> None:
    """The command `show`."""
    option = shared.command(
        commands,
        "show",
        _show,
        "answers sentence by sentence, with verdict, reason and passage",
        "Prints answers with what was decided on every statement, why, and the sentence of the "
        "documents that decides: of a file of scores, or of answers, which are judged first.",
        "show scores.json --worst 10",
        "show answers.csv --elsewhere --id 17",
        "show results/scores/fg_rl/seed0.json --verifier lexical --id 3 | less -R",
    ).add_argument
    shared.add_answers(option)
    spec = (
        shared.VERIFIER_HELP + "; of a file of scores of several, whose verdicts; default: lexical"
    )
    option("--verifier", metavar="SPEC", help=spec)
    answers.add_judging(option)
    option("--id", action="append", metavar="ID", help="only this answer; may be repeated")
    worst = (
        "statements: what is cited for nothing, what cites nothing, least like its documents first"
    )
    option("--worst", type=shared.positive, metavar="N", help=f"only the N worst {worst}")
    add_colour(option)


def add_colour(option: Any) -> None:
    """Whether to colour what is read in a terminal."""
    colours = "whether to colour; auto: on a terminal, unless NO_COLOR is set" + shared.DEFAULT
    option("--colour", choices=("auto", "always", "never"), default="auto", help=colours)


def _show(arguments: argparse.Namespace) -> None:
    """Print answers, or the worst statements, with verdicts."""
    shared.check_writable(arguments.json)
    scored = [_parts(path, arguments.verifier) for path in arguments.inputs]
    if all(scored):
        names = shared.names_of(arguments.inputs)
        several = len(names) > 1
        parts = {
            ", ".join(filter(None, [name if several else "", label])): rows
            for name, found in zip(names, scored, strict=True)
            for label, rows in found.items()
        }
    elif any(scored):
        raise InputError("expected files of scores, or files of answers, not both")
    else:
        from citepipe.options import ScoreOptions

        arguments.verifier = arguments.verifier or "lexical"
        given = shared.given(arguments, ScoreOptions)
        options = ScoreOptions(metrics=("citation_f1",), resamples=1, **given)
        results = answers.scored(arguments, shared.answers_of(arguments), options)
        parts = {n if len(results) > 1 else "": r["per_example"] for n, r in results.items()}
    try:
        rows = _chosen(parts, arguments)
        lines = list(lines_of(rows, arguments.colour))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{arguments.inputs[0]}: expected a file of scores with verdicts, broken at {error}"
        ) from None
    shared.publish(arguments.json, rows, lines)


def _chosen(
    parts: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows to show, each with the name of its part."""
    rows = [{"file": label, **row} for label, rows in parts.items() for row in rows]
    if wanted := arguments.id:
        rows = [row for row in rows if row["id"] in wanted]
        if missing := sorted(set(wanted) - {row["id"] for row in rows}):
            raise InputError(f"{arguments.inputs[0]}: no answer has the id {missing[0]!r}")
    return _worst(rows, arguments.worst) if arguments.worst else rows


def _parts(path: Path, verifier: str | None) -> dict[str, list[dict[str, Any]]]:
    """The rows of a file of scores by one verifier, by files and datasets; none of another file."""
    from citepipe.scoring.results import read_results

    parts = {}
    found = read_results(path)
    for name, results in found.items():
        named = verifier or next(iter(results))
        if named not in results:
            raise InputError(f"{path}: no verifier {named!r}, expected {', '.join(results)}")
        for dataset, result in results[named].items():
            shown = [name, dataset if len(results[named]) > 1 else ""]
            parts[", ".join(filter(None, shown))] = result["per_example"]
    return parts


def _worst(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """A row for each of the statements that are worst, with that one only: a wrong citation is
    worse than none."""
    from citepipe.judgement import NOT_SUPPORTED, OUT_OF_RANGE, PARTLY, REFUSAL
    from citepipe.scoring.evidence import coverage, words_of

    wrong = [
        (
            statement["reason"] not in (NOT_SUPPORTED, OUT_OF_RANGE, PARTLY),
            coverage(statement["text"], statement.get("passage")),
            place,
            index,
        )
        for place, row in enumerate(rows)
        for index, statement in enumerate(row["statements"])
        if not statement["supported"]
        and statement["reason"] != REFUSAL
        and words_of(statement["text"])
    ]
    chosen = []
    for *_, place, index in sorted(wrong)[:count]:
        row = rows[place]
        cited = [c | {"statement": 0} for c in row["citations"] if c["statement"] == index]
        chosen.append(row | {"statements": [row["statements"][index]], "citations": cited})
    return chosen


def lines_of(rows: list[dict[str, Any]], when: str) -> Iterator[str]:
    """Answers to read, each with the name of its file: rows of a file of scores."""
    auto = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    coloured = when == "always" or (when == "auto" and auto)
    width = min(shutil.get_terminal_size((100, 0)).columns, 120)

    def shown(text: str, indent: int, colour: int | None = None) -> str:
        text = fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))
        return f"\033[{colour}m{text}\033[0m" if coloured and colour else text

    previous = None
    for row in rows:
        place = " ".join(filter(None, [row["file"], row["id"]]))
        if place != previous:
            yield ("" if previous is None else "\n") + shown(f"{place}: {row['question']}", 0, 1)
        previous = place
        if not row["statements"]:
            yield shown("(no statements)", 2)
        noted = defaultdict(list)
        for citation in row["citations"]:
            noted[citation["statement"]].append(citation)
        for index, statement in enumerate(row["statements"]):
            reason = statement["reason"]
            colour = _COLOURS.get(reason, _OTHER)
            mark = "+" if statement["supported"] else "-"
            yield shown(f"{mark} {statement['text'].strip()}", 2, colour)
            if by := statement.get("elsewhere"):
                reason += " by " + "".join(f"[{number}]" for number in by)
            notes = [
                f"[{citation['id']}] {citation['reason']}"
                for citation in noted[index]
                if citation["reason"] not in ("supports", statement["reason"])
            ]
            yield shown("; ".join([reason, *notes]), 6, colour)
            if passage := statement.get("passage"):
                title = f" {passage['title']}" if passage["title"] else ""
                yield shown(f"[{passage['document']}]{title}: {passage['text']}", 6)
