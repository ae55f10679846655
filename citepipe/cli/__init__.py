"""The command line: answers scored, rewarded and compared; data checked and fetched; models merged.

Nothing but the standard library is imported until a command is known, so that help is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from citepipe.cli import check, compare, fetch, merge, reward, score
from citepipe.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; by default those of the process.

    Returns:
        0; 1 after one line on what is wrong with the input; 130 when interrupted. A wrong usage
        ends the process with 2.
    """
    parsed = _parser().parse_args(arguments)
    # Threads of torch that spin while they wait make it 25 times as slow on a core that has other
    # work to do; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command: Callable[[argparse.Namespace], None] = parsed.command
    try:
        command(parsed)
        sys.stdout.flush()
    except InputError as error:
        print(f"citepipe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("citepipe: interrupted; what a model has decided is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="citepipe",
        description="Scores answers that cite their sources, as ALCE does, shows the rewards that "
        "training gives them, and looks after data and weights.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  citepipe score answers_asqa.json\n"
        "  citepipe score answers_asqa.json --verifier models/true --json a.json\n"
        "  citepipe reward answers_asqa.json --verifier lexical --json rewards.json\n"
        "  citepipe compare a.json b.json\n"
        "  citepipe check questions.jsonl\n",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (score, reward, compare, check, fetch, merge):
        command.add(commands)
    return parser
