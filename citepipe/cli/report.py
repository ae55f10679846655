"""The command `report`: a page of score files, with every answer."""

from __future__ import annotations

import argparse
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
    from citepipe.score.results import scored_files

    shared.check_writable(arguments.out)
    scored, answers = scored_files(arguments.files)
    names = dict.fromkeys(file.system for file in scored)
    if arguments.against and arguments.against not in names:
        raise InputError(f"--against: expected one of {', '.join(names)}")
    options = ScoreOptions(**shared.given(arguments, ScoreOptions))
    print(page.run(scored, answers, {}, arguments.against, options, arguments.out))
