"""Arguments that several commands have, and what becomes of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError

if TYPE_CHECKING:
    from citepipe.data.files import AnswerFile
    from citepipe.options import Options
    from citepipe.verify.base import Verifier

DEFAULT = "; default: %(default)s"
VERIFIER_HELP = (
    "what decides on entailment: `lexical` (words, no model), a model directory or hub id "
    "(google/t5_xxl_true_nli_mixture is ALCE's), perhaps with settings behind a question mark "
    "(?dtype=4bit&revision=main), or package.module:function"
)
DATASET_HELP = "asqa, qampari, eli5 or expertqa; by default what the rows say, or the file's name"


def examples(*lines: str) -> dict[str, Any]:
    """Settings of a parser that ends its help with examples."""
    shown = "".join(f"  citepipe {line}\n" for line in lines)
    formatter = argparse.RawDescriptionHelpFormatter
    return {"formatter_class": formatter, "epilog": f"examples:\n{shown}"}


def number(kind: type[int] | type[float], expected: str, fits: Callable[[Any], bool]) -> Any:
    """A type of arguments: numbers that fit what is expected."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(-1)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


natural = number(int, "a whole number from 0", lambda value: value >= 0)
positive = number(int, "a whole number from 1", lambda value: value >= 1)


def add_answers(command: argparse.ArgumentParser) -> None:
    """The file of answers, and how it is read and verified."""
    command.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="an ALCE result file ({args, data}), a JSON list or JSONL of examples with `output`",
    )
    add = command.add_argument
    add("--dataset", metavar="NAME", help=DATASET_HELP)
    add("--skip-bad", action="store_true", help="leave bad rows out, name and count them")
    splitters = "sentences: punkt-rules (needs no download), or punkt (NLTK's, as ALCE)" + DEFAULT
    add("--splitter", default="punkt-rules", metavar="SPEC", help=splitters)
    add("--device", default="auto", help="where models run: auto, cpu, cuda, cuda:1" + DEFAULT)
    kept = "where a model's decisions are kept; default: ~/.cache/citepipe/decisions.sqlite"
    add("--cache", type=Path, metavar="FILE", help=kept)
    add("--no-cache", action="store_true", help="keep no decisions")
    add_json(command)


def add_resampling(command: argparse.ArgumentParser, resamples: int) -> None:
    """The bootstrap."""
    share = number(float, "a number between 0 and 1", lambda value: 0 < value < 1)
    add = command.add_argument
    add(
        "--resamples",
        type=positive,
        default=resamples,
        metavar="N",
        help="of the bootstrap" + DEFAULT,
    )
    add("--confidence", type=share, default=0.95, metavar="X", help="of the intervals" + DEFAULT)
    add("--seed", type=natural, default=42, metavar="N", help="of the resamples" + DEFAULT)


def add_json(command: argparse.ArgumentParser) -> None:
    """Where everything is written as JSON."""
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything as JSON; - for standard output"
    )


def given(arguments: argparse.Namespace, options: type[Options]) -> dict[str, Any]:
    """The arguments that are options by name."""
    return {
        name: value
        for name, value in vars(arguments).items()
        if name in options.model_fields and value is not None
    }


def answers_of(arguments: argparse.Namespace) -> AnswerFile:
    """Read the file of answers; what is to be known of it goes to stderr before any figure."""
    from citepipe.data.files import read_answers

    file = read_answers(arguments.input, arguments.dataset, arguments.skip_bad)
    lines = [f"left out: {complaint}" for complaint in file.left_out]
    if file.left_out:
        lines.append(f"{len(file.left_out)} bad rows were left out")
    if bare := sum(not example.docs for example in file.examples):
        lines.append(
            f"{file.path}: {bare} rows have no documents; whatever they cite is out of range"
        )
    for line in lines:
        print(line, file=sys.stderr)
    return file


def verifier_of(arguments: argparse.Namespace) -> Verifier:
    """Load the verifier, with the file that keeps its decisions."""
    from citepipe.verify.base import load_verifier

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = arguments.cache or home / "citepipe" / "decisions.sqlite"
    return load_verifier(
        arguments.verifier, None if arguments.no_cache else cache, arguments.device
    )


def check_writable(*paths: Path | None) -> None:
    """Find out before anything is computed whether the results can be written."""
    for path in paths:
        if path is None or path == Path("-"):
            continue
        # A pipe or device is written to; a file is replaced by another one in its folder.
        target = Path(os.path.realpath(path))
        place = path if path.exists() and not path.is_file() else target.parent
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        if path.is_dir():
            raise InputError(f"{path}: cannot be written: it is a directory")
        if not os.access(place, os.W_OK):
            raise InputError(f"{path}: cannot be written: no permission in {place}")


def publish(path: Path | None, value: Any, lines: Iterable[str]) -> None:
    """Write a value as JSON to a file and lines to read to standard output, or, with `-` for the
    file, nothing but JSON to standard output."""
    from citepipe.data.files import write_json

    if path == Path("-"):
        ascii_only = (sys.stdout.encoding or "utf-8").lower() != "utf-8"
        json.dump(value, sys.stdout, ensure_ascii=ascii_only, indent=1)
        print()
        return
    if path is not None:
        write_json(path, value)
    for line in lines:
        print(line)
