"""What all scripts share: the log, errors as one line, the fingerprint, and the summary line."""

import errno
import hashlib
import json
import os
import select
import socket
import subprocess
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


def run_stage(snakemake: Any, work: Callable[[], str], processes: int = 1) -> None:
    """Run one job and end the process with status 1 if it failed.

    Args:
        snakemake: the job's object, for its log and its name.
        work: does the job and returns the line that sums it up.
        processes: this many do the job together, each of them running the whole script.
    """
    if "RANK" in os.environ:
        run_rank(work)
        return
    # Open to the end of the process: what runs at exit may still write.
    log = open(snakemake.log[0], "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = Tee(sys.stderr, log)
    threading.Thread(target=end_with_run, daemon=True).start()
    run = dict(snakemake.wildcards.items())
    named = [run[key] for key in ("source", "system") if key in run]
    label = " ".join([snakemake.rule, *named, *([f"seed{run['seed']}"] if "seed" in run else [])])
    started = time.monotonic()
    print(f"== {label}", file=sys.stderr, flush=True)
    try:
        summary = work() if processes == 1 else run_together(processes, snakemake.threads)
    except Exception as error:
        sys.exit(f"{label}: {complaint(error) or unexpected(snakemake.log[0])}")
    seconds = time.monotonic() - started
    print(f"== {label}, {seconds:.1f} s: {summary}", file=sys.stderr, flush=True)


def complaint(error: Exception) -> str | None:
    """The line that tells a user what to do about an error; None if it is the program's own."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in NO_PLACE:
        return f"{error.filename or 'results'} cannot be written: {error.strerror}"
    return None


def unexpected(log: str) -> str:
    """Print the traceback of the error at hand, and say where the log is."""
    traceback.print_exc()
    return f"failed; the log is {log}"


def run_rank(work: Callable[[], str]) -> None:
    """Do the job as one of several processes; the first one's summary goes to stdout."""
    threading.Thread(target=end_with_run, daemon=True).start()
    try:
        summary = work()
    except Exception as error:
        line = complaint(error)
        if line is None:
            raise
        sys.exit(line)
    if os.environ["RANK"] == "0":
        print(summary, flush=True)


def run_together(processes: int, threads: int) -> str:
    """Run this script in several processes that find each other as torch's do.

    Args:
        processes: how many.
        threads: that all of them share.

    Returns:
        the line that sums the job up.

    Raises:
        InputError: one of them failed, which ends the others; with its last line.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    meeting["OMP_NUM_THREADS"] = str(max(1, threads // processes))
    ranks = [
        subprocess.Popen(
            [sys.executable, *sys.argv],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    # What each says on stderr; the first one's is passed on as it comes.
    said: list[list[str]] = [[] for _ in ranks]
    summary: list[str] = []

    def listen(rank: int) -> None:
        for line in ranks[rank].stderr or ():
            said[rank].append(line)
            if rank == 0:
                sys.stderr.write(line)

    listeners = [threading.Thread(target=listen, args=(rank,)) for rank in range(processes)]
    listeners.append(threading.Thread(target=lambda: summary.extend(ranks[0].stdout or ())))
    for listener in listeners:
        listener.start()
    try:
        while any(rank.poll() is None for rank in ranks):
            failed = [number for number, rank in enumerate(ranks) if rank.poll()]
            if failed:
                # The others wait for it, and would do so for long. One may have an error of its
                # own to tell first.
                time.sleep(1.0)
                break
            time.sleep(0.1)
        failed = [number for number, rank in enumerate(ranks) if rank.poll()]
    finally:
        for rank in ranks:
            rank.kill()
        for listener in listeners:
            listener.join()
    if failed:
        first = failed[0]
        if first:
            sys.stderr.writelines(said[first][:-1])
        last = said[first][-1].strip() if said[first] else "it said nothing"
        raise InputError(f"process {first} of {processes}: {last}")
    return summary[-1].strip()


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


def of_this_run(snakemake: Any, section: str) -> dict[str, Any]:
    """What a section of the configuration says that results do not depend on.

    It is no parameter: where a server is and how large a batch is makes nothing stale.

    Args:
        snakemake: the job's object.
        section: `server`, `sources` or `teacher`, of which it is all, or one with a `batch_size`.
    """
    values: dict[str, Any] = snakemake.config.get(section) or {}
    if section in ("server", "sources", "teacher"):
        return values
    return {"batch_size": values.get("batch_size")}


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
