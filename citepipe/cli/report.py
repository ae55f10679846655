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
    add_scored(option)
    out = "the page" + shared.DEFAULT
    option("--out", type=Path, default=Path("report.html"), metavar="FILE", help=out)


def add_scored(option: Any) -> None:
    """The files that a page is made of."""
    files = (
        "a folder of results; or a file written by `citepipe score --json` or the workflow, "
        "perhaps NAME=FILE (files of one name are seeds of one system); and the answers that were "
        "scored, unless they are beside it or in the workflow's predictions"
    )
    option("files", nargs="+", metavar="FILE", help=files)
    held = "the system that all are held against; default: none"
    option("--against", default="", metavar="NAME", help=held)
    shared.add_resampling(option, 1000)


def _report(arguments: argparse.Namespace) -> None:
    """Write the page of score files."""
    from citepipe.report import page

    shared.check_writable(arguments.out)
    print(page.write(page.gather(**scored(arguments)), arguments.out))


def scored(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `page.gather` makes a page of, as far as the files say it."""
    from citepipe.options import ScoreOptions
    from citepipe.scoring.results import scored_files

    samples: list[tuple[str, int, Path, Path]] = []
    models: list[tuple[str, int, Path]] = []
    curves, trained = None, list[str]()
    files: list[str] = []
    for given in arguments.files:
        folder = Path(given)
        files += (
            map(str, sorted(folder.glob("scores/*/seed*.json"))) if folder.is_dir() else [given]
        )
        for path in sorted(folder.glob("samples/*/seed*/candidates.jsonl")):
            samples.append((*_run_of(path), path.with_name("answers.json"), path))
        for path in sorted(folder.glob("models/*/seed*/samples.jsonl")):
            models.append((*_run_of(path), path.parent))
        trained += sorted(path.name for path in folder.glob("models/*"))
        curves = next(folder.glob("figures/learning_curves.svg"), curves)
    if not files:
        raise InputError(f"{arguments.files[0]}: expected a folder of results, it has no scores")
    results, answers = scored_files(files)
    names = dict.fromkeys(file.system for file in results)
    if arguments.against and arguments.against not in names:
        raise InputError(f"--against: expected one of {', '.join(names)}")
    return {
        "files": results,
        "answers": answers,
        "starts": {},
        "against": arguments.against,
        "options": ScoreOptions(**shared.given(arguments, ScoreOptions)),
        "trained": trained,
        "curves": curves,
        "samples": samples,
        "models": models,
    }


def _run_of(path: Path) -> tuple[str, int]:
    """The system and the seed that a file in SYSTEM/seedN is of."""
    system, seed = path.parent.parts[-2:]
    try:
        return system, int(seed.removeprefix("seed"))
    except ValueError:
        raise InputError(f"{path.parent}: expected a folder seed0, seed1, ...") from None
