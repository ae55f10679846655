"""What all scripts share: the log, errors as one line, the fingerprint, and the summary line."""

import errno
import hashlib
import json
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

# The package beside the workflow is the one whose files the workflow watches.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from citepipe.errors import InputError

READ_WHOLE = 64 * 2**20
"""Larger inputs (bytes) count by size and time of change, as reading them would take too long."""


NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""What the system says when a disk is full or must not be written to."""


class Tee:
    """Writes to two streams: progress shows on the terminal and stays in the log."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal, self.log = terminal, log

    def write(self, text: str) -> int:
        self.log.write(text)
        return self.terminal.write(text)

    def flush(self) -> None:
        self.log.flush()
        self.terminal.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


def run_stage(snakemake: Any, work: Callable[[], str]) -> None:
    """Run one job and end the process with status 1 if it failed.

    Args:
        snakemake: the job's object, for its log and its name.
        work: does the job and returns the line that sums it up.
    """
    # Open to the end of the process: what runs at exit may still write.
    log = open(snakemake.log[0], "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = Tee(sys.stderr, log)
    threading.Thread(target=end_with_run, daemon=True).start()
    run = dict(snakemake.wildcards.items())
    label = f"{snakemake.rule} {run['system']} seed{run['seed']}" if run else snakemake.rule
    started = time.monotonic()
    print(f"== {label}", file=sys.stderr, flush=True)
    try:
        summary = work()
    except InputError as error:
        sys.exit(f"{label}: {error}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_PLACE:
            sys.exit(f"{label}: {error.filename or 'results'} cannot be written: {error.strerror}")
        traceback.print_exc()
        sys.exit(f"{label}: failed; the log is {snakemake.log[0]}")
    seconds = time.monotonic() - started
    print(f"== {label}, {seconds:.1f} s: {summary}", file=sys.stderr, flush=True)


def end_with_run() -> None:
    """End this process when the run that started it is gone.

    A run that is killed cannot end its jobs; a job left behind would write its results at the same
    time as the next run's. Only Linux can tell.
    """
    if not hasattr(os, "pidfd_open"):
        return
    try:
        run = os.pidfd_open(int(os.environ["CITEPIPE_RUN"]))
        select.select([run], [], [])
    except ProcessLookupError:
        pass
    os._exit(1)


def fingerprint(snakemake: Any) -> str:
    """A digest of a job's parameters, seed and inputs (its code among them).

    A job that was cut off goes on from its saved state only if this is still the same.
    """
    digest = hashlib.sha256()
    values = [list(snakemake.params), dict(snakemake.wildcards.items())]
    digest.update(json.dumps(values, sort_keys=True).encode())
    for path in _files(snakemake.input):
        digest.update(path.name.encode())
        digest.update(_content(path))
    return digest.hexdigest()


def _files(inputs: Iterable[str]) -> Iterable[Path]:
    for path in map(Path, inputs):
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and not _is_mark(p))
        else:
            yield path


def _is_mark(path: Path) -> bool:
    """Snakemake leaves a hidden file in each directory it made; its time changes on a rerun."""
    return path.name.startswith(".snakemake")


def _content(path: Path) -> bytes:
    status = path.stat()
    if status.st_size > READ_WHOLE:
        return f"{status.st_size} {status.st_mtime_ns}".encode()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
