"""The folder in which an unfinished run keeps what it needs to go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.progress import say


def claim(state: Path, fingerprint: str, label: str) -> None:
    """Make `state` the folder of a run with this fingerprint.

    A folder left by a run with the same fingerprint is kept, to go on from. One left by a run with
    other configuration, code or inputs is emptied, and that is said.
    """
    mark = state / "fingerprint.json"
    if _read(mark) == fingerprint:
        return
    if state.exists():
        say(f"{label}: starting clean, as configuration, code or inputs changed since the cut-off")
        shutil.rmtree(state)
    state.mkdir(parents=True)
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
