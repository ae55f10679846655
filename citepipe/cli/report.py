"""The command `report`: a page of score files, with every answer."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

from citepipe.cli import shared
from citepipe.errors import InputError


def add_report(commands: Any) -> None:
    """The command `report`."""
    option = shared.command(
        commands,
        "report",
        _report,
        "a page with the table and every answer, from score files",
        "Writes one HTML file that needs nothing else: the result in words, the table, figures, "
        "what goes wrong, and every answer with the verdicts on it and the passages that it cites.",
        "report a.json b.json",
        "report old=a1.json old=a2.json new=b.json --against old --out old_new.html",
        "report results/scores/*/seed*.json --against dist",
        "report a.json answers/asqa.json",
    ).add_argument
    files = (
        "a file written by `citepipe score --json` or the workflow, perhaps NAME=FILE (files of "
        "one name are seeds of one system); and the answers that were scored, unless they are "
        "beside it or in the workflow's predictions"
    )
    option("files", nargs="+", metavar="FILE", help=files)
    held = "the system that all are held against; default: none"
    option("--against", default="", metavar="NAME", help=held)
    out = "the page" + shared.DEFAULT
    option("--out", type=Path, default=Path("report.html"), metavar="FILE", help=out)
    shared.add_resampling(option, 1000)


def _report(arguments: argparse.Namespace) -> None:
    """Write the page of score files."""
    from citepipe.options import ScoreOptions
    from citepipe.report import page
    from citepipe.score.results import named_files, read_results

    shared.check_writable(arguments.out)
    scored: list[page.Scored] = []
    answers: list[Path] = []
    seeds: Counter[str] = Counter()
    for name, own, file in named_files(arguments.files):
        path = Path(file)
        found = read_results(path)
        if not found:
            answers.append(path)
        for label, results in found.items():
            system = name or label or own
            said = re.fullmatch(r"seed(\d+)", path.stem)
            scored.append(
                page.Scored(system, int(said[1]) if said else seeds[system], path, results)
            )
            seeds[system] += 1
            answers += [p for p in _likely(path, results) if p.is_file()]
    if not scored:
        raise InputError(f"{answers[0]}: expected a file of scores: citepipe score --json FILE")
    if arguments.against and arguments.against not in seeds:
        raise InputError(f"--against: expected one of {', '.join(seeds)}")
    options = ScoreOptions(**shared.given(arguments, ScoreOptions))
    print(page.run(scored, answers, {}, arguments.against, options, arguments.out))


def _likely(path: Path, results: dict[str, dict[str, Any]]) -> list[Path]:
    """Where the answers may be that a score file is of."""
    folder = path.resolve().parent
    predictions = folder.parent.parent / "predictions" / folder.name / path.stem
    names = {r["provenance"]["input"]["file"] for own in results.values() for r in own.values()}
    return [place / name for name in sorted(names) for place in (folder, Path(), predictions)]
