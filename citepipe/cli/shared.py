"""Arguments that several commands have, and what becomes of them."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from citepipe.errors import InputError

if TYPE_CHECKING:
    from citepipe.data.files import AnswerFile
    from citepipe.options import Options
    from citepipe.verify.base import Verifier

DEFAULT = "; default: %(default)s"
VERIFIER_HELP = (
    "what decides on entailment: `lexical` (words, no model), a model directory or hub id "
    "(google/t5_xxl_true_nli_mixture is ALCE's), perhaps with settings behind a question mark "
    "(?dtype=4bit&revision=main), server:URL#MODEL for one behind an OpenAI-compatible server, or "
    "package.module:function"
)
DATASET_HELP = (
    "asqa, qampari, eli5, expertqa, or own (answers in sentences to any questions); by default "
    "what the rows say, or the file's `args`, or its name"
)


def examples(*lines: str) -> dict[str, Any]:
    """Settings of a parser that ends its help with examples."""
    shown = "".join(f"  citepipe {line}\n" for line in lines)
    formatter = argparse.RawDescriptionHelpFormatter
    return {"formatter_class": formatter, "epilog": f"examples:\n{shown}"}


def command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    about: str,
    *lines: str,
) -> argparse.ArgumentParser:
    """A new command: what runs it, its line in the overview, its description and examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=about, **examples(*lines)
    )
    parser.set_defaults(command=run)
    return parser


def number(kind: type[int] | type[float], expected: str, fits: Callable[[Any], bool]) -> Any:
    """A type of arguments: numbers that fit what is expected."""

    def parse(text: str) -> float:
        with suppress(ValueError):
            if fits(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse


natural = number(int, "a whole number from 0", lambda value: value >= 0)
positive = number(int, "a whole number from 1", lambda value: value >= 1)


def add_inputs(add: Callable[..., Any]) -> None:
    """Files of rows, and the dataset they count as."""
    file = "JSON, JSON lines, CSV, TSV, Parquet or an ALCE result file; several are named apart"
    add("inputs", type=Path, nargs="+", metavar="INPUT", help=file)
    add("--dataset", metavar="NAME", help=DATASET_HELP)


def add_answers(add: Callable[..., Any]) -> None:
    """The files of answers, and how they are read and verified."""
    add_inputs(add)
    add("--skip-bad", action="store_true", help="leave bad rows out, name and count them")
    splitters = "sentences: punkt-rules (needs no download), or punkt (NLTK's, as ALCE)" + DEFAULT
    add("--splitter", default="punkt-rules", metavar="SPEC", help=splitters)
    add_models(add)
    add_json(add)


def add_models(add: Callable[..., Any]) -> None:
    """Where models run, and where their decisions are kept."""
    add("--device", default="auto", help="where models run: auto, cpu, cuda, cuda:1" + DEFAULT)
    kept = "where a model's decisions are kept; default: ~/.cache/citepipe/decisions.sqlite"
    add("--cache", type=Path, metavar="FILE", help=kept)
    add("--no-cache", action="store_true", help="keep no decisions")


def add_verifier(add: Callable[..., Any]) -> None:
    """The verifier of a command that takes one."""
    add("--verifier", default="lexical", metavar="SPEC", help=VERIFIER_HELP + DEFAULT)


def add_answering(add: Callable[..., Any]) -> None:
    """What answers questions."""
    model = (
        "what answers: the directory of a trained system (results/models/fg_rl/seed0) or model, a "
        "name at the hub, or a GGUF file; with --server its name there"
    )
    add("--model", metavar="MODEL", help=model)
    server = "an OpenAI-compatible server that answers, by chat completions"
    add("--server", metavar="URL", help=server)
    key = "the environment variable with the server's key"
    add("--api-key-variable", dest="key", metavar="NAME", help=key)


def add_rewards(add: Callable[..., Any]) -> None:
    """The sizes of rewards."""
    size = number(float, "a number from 0", lambda value: 0 <= value < float("inf"))
    for name, usual, unit in (
        ("citation-recall", 0.2, "statement: + if supported, - if not"),
        ("citation-precision", 0.2, "citation: + if right, - if wrong"),
        ("correctness", 0.2, "gold answer: + if found, - if not"),
        ("refusal", 0.0, "answer: + if it declines just where no document answers, - if not"),
    ):
        shown = f"reward per {unit}; 0 switches it off{DEFAULT}"
        add(f"--{name}", type=size, default=usual, metavar="X", help=shown)


def add_resampling(add: Callable[..., Any], resamples: int) -> None:
    """The bootstrap."""
    share = number(float, "a number between 0 and 1", lambda value: 0 < value < 1)
    of = "of the bootstrap" + DEFAULT
    add("--resamples", type=positive, default=resamples, metavar="N", help=of)
    add("--confidence", type=share, default=0.95, metavar="X", help="of the intervals" + DEFAULT)
    add("--seed", type=natural, default=42, metavar="N", help="of the resamples" + DEFAULT)


def add_json(add: Callable[..., Any]) -> None:
    """Where everything is written as JSON."""
    shown = "write everything as JSON; - for standard output"
    add("--json", type=Path, metavar="FILE", help=shown)


def add_junit(add: Callable[..., Any]) -> None:
    """Where checks are written for CI."""
    add("--junit", type=Path, metavar="FILE", help="also write the checks as JUnit XML")


class Case(NamedTuple):
    """A check: of what, its name, what was expected, what it is, and whether it holds."""

    suite: str
    name: str
    expected: str
    actual: str
    holds: bool


def settle(cases: Iterable[Case], junit: Path | None, failing: bool = True) -> None:
    """Write checks as JUnit XML; if some fail, a line for each on stderr, and InputError if that
    is `failing`."""
    from xml.etree import ElementTree

    cases = list(cases)
    failed = [case for case in cases if not case.holds]
    if junit is not None:
        from citepipe.data.files import atomic_writer

        counts = {"tests": str(len(cases)), "failures": str(len(failed))}
        suite = ElementTree.Element("testsuite", {"name": "citepipe", **counts})
        for case in cases:
            one = ElementTree.SubElement(suite, "testcase", classname=case.suite, name=case.name)
            if not case.holds:
                message = f"expected {case.expected}, actual {case.actual}"
                ElementTree.SubElement(one, "failure", message=message)
        with atomic_writer(junit) as stream:
            stream.write(ElementTree.tostring(suite, encoding="unicode", xml_declaration=True))
    if failing and failed:
        for case in failed:
            line = f"{case.suite}, {case.name}: expected {case.expected}, actual {case.actual}"
            print(line, file=sys.stderr)
        raise InputError(f"{len(failed)} of {len(cases)} checks failed")


def given(arguments: argparse.Namespace, options: type[Options]) -> dict[str, Any]:
    """The arguments that are options by name."""
    known = options.model_fields
    return {k: v for k, v in vars(arguments).items() if k in known and v is not None}


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each of several files: what their paths do not all have in common."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else list(map(str, paths))


def answers_of(arguments: argparse.Namespace) -> dict[str, AnswerFile]:
    """Read the files of answers, by their names; what is to be known of them goes to stderr before
    any figure. The verifier's name is looked at before."""
    from citepipe.data.files import read_answers
    from citepipe.verify.load import check_spec

    check_spec(arguments.verifier)
    files = {}
    for name, path in zip(names_of(arguments.inputs), arguments.inputs, strict=True):
        file = files[name] = read_answers(path, arguments.dataset, arguments.skip_bad)
        for complaint in file.left_out:
            print(f"left out: {complaint}", file=sys.stderr)
        if file.left_out:
            print(f"{path}: {len(file.left_out)} bad rows were left out", file=sys.stderr)
        if bare := sum(not example.docs for example in file.examples):
            line = f"{bare} rows have no documents; whatever they cite is out of range"
            print(f"{path}: {line}", file=sys.stderr)
    return files


def together(results: dict[str, Any]) -> Any:
    """What is written of files: of one its result, of several `files`, theirs by their names."""
    return {"files": results} if len(results) > 1 else next(iter(results.values()))


def verifier_of(arguments: argparse.Namespace, spec: str | None = None) -> Verifier:
    """Load the verifier, or another one, with the file that keeps its decisions."""
    from citepipe.verify.load import load_verifier

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = arguments.cache or home / "citepipe" / "decisions.sqlite"
    kept = None if arguments.no_cache else cache
    return load_verifier(spec or arguments.verifier, kept, arguments.device)


def level_line(account: Mapping[str, Any]) -> str:
    """The account of a level of a cascade, to read."""
    return ", ".join(
        f"{key} {own:.6g}" if isinstance(own, float) else f"{key} {own}"
        for key, own in account.items()
    )


def tell_levels(verifier: Verifier | None) -> None:
    """A line on stderr for each level of a cascade: pairs, seconds and money."""
    for level in getattr(verifier, "levels", ()):
        print(level_line(level.account()), file=sys.stderr)


def check_writable(*paths: Path | None) -> None:
    """Find out before anything is computed whether the results can be written."""
    for path in paths:
        if path is None or path == Path("-"):
            continue
        folder, problem = Path(os.path.realpath(path)).parent, None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = error.strerror
        # A pipe or device is written to; a file is replaced by another one in its folder.
        place = path if path.exists() and not path.is_file() else folder
        if path.is_dir():
            problem = "it is a directory"
        elif not problem and not os.access(place, os.W_OK):
            problem = f"no permission in {place}"
        if problem:
            raise InputError(f"{path}: cannot be written: {problem}")


_CONTROLS = re.compile(r"(?!\s|\x1b\[\d*m)[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text without what a terminal would obey, colours apart: nothing moves the cursor or turns
    the direction of writing, whatever is in answers and the names of files."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


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
        print(printable(line))
