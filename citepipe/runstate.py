"""The folder in which an unfinished run keeps what it needs to go on, and when it is to stop."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.progress import say


class Stop:
    """The handler of the signal that asks a process to end (SIGTERM).

    It ends at once, which loses nothing where all that is done is in a journal; if it `saves`, it
    only notes that it is `asked` to, and ends where it saves next.
    """

    asked = False
    saves = False

    def __call__(self, *_: object) -> None:
        """The signal has come; a second one changes nothing."""
        first, self.asked = not self.asked, True
        if first and not self.saves:
            sys.exit("stopped; what is done is kept, and the same command goes on from there")


STOP = Stop()
"""That of this process."""


def claim(state: Path, fingerprint: str, label: str) -> None:
    """Make `state` the folder of a run with this fingerprint.

    Args:
        state: the folder. One left by a run that did the same work is kept, to go on from; one
            left by a run with another configuration or other inputs is emptied, with a line.
        fingerprint: what work is done and, behind a colon, by which code. Other code goes on, with
            a line: to lose a long run over a change that may not matter would be worse.
        label: the name of what runs, for these lines.
    """
    mark = state / "fingerprint.json"
    found = _read(mark)
    if found == fingerprint:
        return
    work, _, _ = fingerprint.partition(":")
    if isinstance(found, str) and found.partition(":")[0] == work:
        say(
            f"{label}: the code has changed since the saved state; going on with the new code "
            f"(to start clean, remove {state})"
        )
    elif state.exists():
        say(f"{label}: starting clean, as configuration or inputs changed since the saved state")
        shutil.rmtree(state)
    state.mkdir(parents=True, exist_ok=True)
    write_json(mark, fingerprint)


def _read(mark: Path) -> object:
    try:
        return read_json(mark) if mark.exists() else None
    except InputError:
        return None


def discard(state: Path) -> None:
    """Remove the folder of a run that has finished."""
    shutil.rmtree(state, ignore_errors=True)


def read_journal(path: Path) -> list[Any]:
    """The records of a journal, a JSON value per line; none if there is no such file.

    A kill can leave half a line. From the first line on that is none, the journal is dropped, on
    disk too.
    """
    if not path.exists():
        return []
    records, whole = [], 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            records.append(record)
            whole += len(line)
    if whole < path.stat().st_size:
        with path.open("rb+") as stream:
            stream.truncate(whole)
    return records


def append_journal(path: Path, records: Iterable[Any]) -> None:
    """Add records to a journal; they are on disk when this returns."""
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        stream.flush()
        os.fsync(stream.fileno())
