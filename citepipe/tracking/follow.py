"""The process that puts what training says into a run at Weights & Biases (see `tracker`)."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


def follow(journal: Path, behind: int, bell: int) -> None:
    """Put a journal into a run at wandb until it says that training has finished, or `bell` closes.

    The work of wandb's own process. Nothing is begun before there is a figure to log.

    Args:
        journal: what training has to say.
        behind: the byte behind the line that begins this run.
        bell: a descriptor from which there is something to read when the journal has grown.
    """
    with journal.open("rb") as lines:
        begin, earlier = _read_begin(lines, behind)
        run = None
        finished = False
        for message in _messages(lines, bell):
            # Another begin: training that was cut off goes on already, and has its own process.
            if "end" in message or "begin" in message:
                finished = message.get("end", False)
                break
            if run is None:
                run = _begin_run(begin, journal.parent.parent)
                _drop_later(earlier, message["step"])
                for old in earlier:
                    _log(run, old)
            _log(run, message)
    if run is not None:
        run.finish(exit_code=0 if finished else 1)
        _remove_earlier(Path(run.dir).parent, begin["id"])
        _remove_dangling(Path(run.dir).parent)
    if finished:
        journal.unlink(missing_ok=True)


def _read_begin(lines: BinaryIO, behind: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The begin that ends at byte `behind`, and what was logged before."""
    begin: dict[str, Any] = {}
    earlier: list[dict[str, Any]] = []
    while lines.tell() < behind:
        message = _decoded(lines.readline())
        if "begin" in message:
            begin = message["begin"]
        elif "step" in message:
            _drop_later(earlier, message["step"])
            earlier.append(message)
    return begin, earlier


def _drop_later(messages: list[dict[str, Any]], step: int) -> None:
    """Take from the end of the list what is later than a step to which training went back.

    What is as late stays: of one step there can be figures of training and of an evaluation.
    """
    while messages and messages[-1]["step"] > step:
        messages.pop()


def _messages(lines: BinaryIO, bell: int) -> Iterator[dict[str, Any]]:
    """The journal's further lines, each as soon as it is there, until the bell closes."""
    rest = b""
    ringing = True
    while ringing:
        ringing = bool(os.read(bell, 2**16))
        *whole, rest = (rest + lines.read()).split(b"\n")
        for message in map(_decoded, whole):
            if message:
                yield message


def _decoded(line: bytes) -> dict[str, Any]:
    """A line of the journal; nothing if it is blank or was cut off."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _begin_run(begin: Mapping[str, Any], folder: Path) -> Any:
    import wandb

    # Its logs have nothing about training, and the folder's full path.
    logging.getLogger("wandb").setLevel(logging.CRITICAL)
    return wandb.init(
        **begin,
        dir=folder,
        # Of no effect offline.
        resume="allow",
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            host="",
            init_timeout=30,
            save_code=False,
            silent=True,
            symlink=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_log_level=logging.CRITICAL,
            x_save_requirements=False,
        ),
    )


def _log(run: Any, message: Mapping[str, Any]) -> None:
    if "samples" in message:
        import wandb

        table = message["samples"]
        rows: list[Any] = [list(row) for row in zip(*table.values(), strict=True)]
        samples = wandb.Table(columns=list(table), data=rows)
        # A table that is a file of the run already is not made an artifact too. Those are kept
        # outside of the run's folder until they are uploaded.
        samples.bind_to_run(run, "samples", message["step"])
        content = {"samples": samples}
    else:
        content = message["figures"]
    run.log(content, step=message["step"])


def _remove_earlier(own: Path, run_id: str) -> None:
    """Remove the folders that a run left before, when it was cut off: this one has it all."""

    def begun(folder: Path) -> str:
        """The date and time in the folder's name, which sort as text."""
        return folder.name.partition("run-")[2]

    for folder in own.parent.glob(f"*run-*-{run_id}*"):
        if folder.is_dir() and begun(folder) < begun(own):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_dangling(folder: Path) -> None:
    """Remove links to wandb's own logs, which lie in a folder that goes with its process.

    Programs that copy a folder stop at links that lead nowhere.
    """
    for path in folder.rglob("*"):
        if path.is_symlink():
            path.unlink()


def main() -> None:
    """Follow the journal that the command line names, from a byte on; stdin is the bell."""
    bell, complaints = os.dup(0), os.dup(2)
    # Whatever wandb asks and prints: nobody is there to answer, and training has the terminal.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            os.environ[name] = scratch
        os.environ.setdefault("HOME", scratch)
        # wandb would report its own errors with the name of the machine.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        try:
            follow(Path(sys.argv[1]), int(sys.argv[2]), bell)
        # The one thing left to do is to say it: wandb raises what it likes.
        except BaseException as error:
            line = ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
            os.write(complaints, line.encode()[:500])
            sys.exit(1)


if __name__ == "__main__":
    main()
