"""Arguments that several commands have, and what becomes of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError

if TYPE_CHECKING:
    from citepipe.data.files import AnswerFile

VERIFIER_HELP = (
    "what decides on entailment: `lexical` (words, no model), a model directory or hub id "
    "(google/t5_xxl_true_nli_mixture is ALCE's), perhaps with settings behind a question mark "
    "(?dtype=4bit&revision=main), or package.module:function"
)
INPUT_HELP = "an ALCE result file ({args, data}), a JSON list or JSONL of examples with `output`"


def add_input(command: argparse.ArgumentParser) -> None:
    """The file of answers, its dataset, and what becomes of bad rows."""
    command.add_argument("input", type=Path, metavar="INPUT", help=INPUT_HELP)
    command.add_argument(
        "--dataset",
        metavar="NAME",
        help="asqa, qampari, eli5 or expertqa; by default what the rows say, or the file's name",
    )
    command.add_argument(
        "--skip-bad", action="store_true", help="leave bad rows out, name and count them"
    )


def add_verification(command: argparse.ArgumentParser) -> None:
    """How texts are split and verified, and where decisions are kept."""
    command.add_argument(
        "--splitter",
        default="punkt-rules",
        metavar="SPEC",
        help="sentences: punkt-rules (needs no download), or punkt (NLTK's model, as ALCE)",
    )
    command.add_argument(
        "--device", default="auto", metavar="D", help="where models run: auto, cpu, cuda, cuda:1"
    )
    command.add_argument(
        "--cache",
        type=Path,
        metavar="FILE",
        help="where a model's decisions are kept; default: ~/.cache/citepipe/decisions.sqlite",
    )
    command.add_argument("--no-cache", action="store_true", help="keep no decisions")
    add_json(command)


def add_resampling(command: argparse.ArgumentParser, resamples: int) -> None:
    """The bootstrap."""
    command.add_argument(
        "--resamples",
        type=positive,
        default=resamples,
        metavar="N",
        help=f"bootstrap resamples; default: {resamples}",
    )
    command.add_argument(
        "--confidence",
        type=share,
        default=0.95,
        metavar="X",
        help="coverage of the intervals; default: 0.95",
    )
    command.add_argument("--seed", type=natural, default=42, metavar="N", help="default: 42")


def add_json(command: argparse.ArgumentParser) -> None:
    """Where everything is written as JSON."""
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything as JSON; - for standard output"
    )


def decision_cache(arguments: argparse.Namespace) -> Path | None:
    """The file that keeps decisions of models; None for none."""
    if arguments.no_cache:
        return None
    if arguments.cache is not None:
        chosen: Path = arguments.cache
        return chosen
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "citepipe" / "decisions.sqlite"


def tell(file: AnswerFile) -> None:
    """What is to be known of a file before its figures are read."""
    for complaint in file.left_out:
        print(f"left out: {complaint}", file=sys.stderr)
    if file.left_out:
        print(f"{len(file.left_out)} bad rows were left out", file=sys.stderr)
    if file.without_documents:
        print(
            f"{file.path}: {file.without_documents} rows have no documents; whatever they cite is "
            "out of range",
            file=sys.stderr,
        )


def check_writable(*paths: Path | None) -> None:
    """Find out before anything is computed whether the results can be written."""
    for path in paths:
        if path is None or path == Path("-"):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        if path.is_dir():
            raise InputError(f"{path}: cannot be written: it is a directory")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"{path}: cannot be written: no permission in {path.parent}")


def write_json_to(path: Path | None, value: Any) -> None:
    """Write a value as JSON to a file, or to standard output for `-`; None writes nothing."""
    from citepipe.data.files import write_json

    if path is None:
        return
    if path == Path("-"):
        import json

        json.dump(value, sys.stdout, ensure_ascii=False, indent=1)
        print()
        return
    try:
        write_json(path, value)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def natural(text: str) -> int:
    """A whole number from 0."""
    return int(_number(text, int, lambda value: value >= 0, "a whole number from 0"))


def positive(text: str) -> int:
    """A whole number from 1."""
    return int(_number(text, int, lambda value: value >= 1, "a whole number from 1"))


def share(text: str) -> float:
    """A number between 0 and 1."""
    return _number(text, float, lambda value: 0 < value < 1, "a number between 0 and 1")


def size(text: str) -> float:
    """A number from 0."""
    return _number(text, float, lambda value: 0 <= value < float("inf"), "a number from 0")


def _number(
    text: str, kind: Callable[[str], float], fits: Callable[[float], bool], expected: str
) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = float("nan")
    if not fits(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value
