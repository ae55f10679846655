"""The command line: answers scored, rewarded and compared; data checked and fetched; models merged.

Nothing but the standard library is imported until a command is known, so that help is quick.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
from collections.abc import Sequence

from citepipe.cli import (
    ablate,
    answers,
    ask,
    compare,
    files,
    judges,
    labels,
    plan,
    report,
    serve,
    shared,
    show,
    view,
)
from citepipe.errors import InputError, not_installed


def run() -> int:
    """The command that this process is for, as `main`."""
    # It keeps most of what it reads and makes: to look for cycles in it, and once more when the
    # process ends, would take a quarter of the time.
    gc.set_threshold(500_000)
    try:
        return main()
    finally:
        gc.freeze()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its status: 0; 1 after one line on what is wrong with the input, or
    if standard output takes no more; 130 when interrupted. A wrong usage exits with 2."""
    # Threads of torch that spin while they wait make it 25 times as slow on a core that has other
    # work to do; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A standard stream that is closed is None.
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        print("citepipe: standard output is closed", file=sys.stderr)
        return 1
    # Titles in any script, on a terminal that may know only one.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            parsed = _parser().parse_args(arguments)
            parsed.command(parsed)
        finally:
            sys.stdout.flush()
    except InputError as error:
        print(f"citepipe: {shared.printable(str(error))}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        line = not_installed(error)
        if line is None:
            raise
        print(f"citepipe: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("citepipe: interrupted; what a model has decided is kept", file=sys.stderr)
        return 130
    except OSError as error:
        # What is left unwritten would be tried again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0  # Whoever read the output has gone.
        print(f"citepipe: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="citepipe",
        description="Scores answers that cite their sources, as ALCE does, shows the rewards that "
        "training gives them, and looks after data and weights.",
        **shared.examples(
            "score answers_asqa.json",
            "score answers_asqa.json --verifier models/true --json a.json",
            "reward answers_asqa.json --json rewards.json",
            "show a.json --worst 10",
            "compare a.json b.json",
            "report a.json b.json",
            'ask "When was the mill built?" --docs notes',
            "check questions.jsonl",
        ),
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (answers.add_score, answers.add_reward, show.add_show, compare.add_compare):
        add(commands)
    for add in (ablate.add_ablate, judges.add_judges, labels.add_sample, labels.add_correct):
        add(commands)
    for add in (ask.add_ask, report.add_report, view.add_view, serve.add_serve):
        add(commands)
    for add in (files.add_check, files.add_fetch, files.add_merge, plan.add_plan):
        add(commands)
    return parser
