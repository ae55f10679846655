"""The folder in which an unfinished run keeps what it needs to go on."""

from __future__ import annotations

import shutil
from pathlib import Path

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
