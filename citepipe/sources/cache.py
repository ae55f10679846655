"""What was fetched, kept by its content, for all runs of a user.

blobs/ab/abcd…                the content, under its sha256
addresses/0123….json          which blob an address led to, and when
partial/0123…                 what has come so far of a download that goes on
by-hand/01234567-name         put there by somebody for want of a network
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.options import SourcesOptions
from citepipe.progress import say

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A file in the cache.

    Attributes:
        path: where it is; nobody may change it.
        sha256: of its content.
        size: in bytes.
        name: what its source calls it; empty if it does not say.
    """

    path: Path
    sha256: str
    size: int
    name: str


class Cache:
    """A content-addressed cache; several processes may use it at once.

    Args:
        options: where it is.
    """

    def __init__(self, options: SourcesOptions) -> None:
        if options.cache is not None:
            self.root = Path(options.cache).expanduser()
        else:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            self.root = Path(home) / "citepipe" / "sources"

    @contextmanager
    def held(self, address: str) -> Iterator[None]:
        """Keep other processes from fetching the same address; the system lets go of it when the
        process ends, however it does."""
        path = self.root / "partial" / f"{_key(address)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("w")
        except OSError as error:
            raise InputError(f"sources.cache {self.root}: {error.strerror}") from None
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{address}: another process is fetching it, waiting")
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def partial(self, address: str) -> Path:
        """Where a download of an address is gathered."""
        return self.root / "partial" / _key(address)

    def by_hand(self, address: str, name: str) -> Path:
        """Where somebody may put what an address leads to."""
        return self.root / "by-hand" / f"{_key(address)[:8]}-{name}"

    def find(self, address: str, sha256: str | None = None) -> Blob | None:
        """What an address led to before, if that is still there.

        A blob that was changed since it was put there counts as absent, as does one that is not
        what `sha256` says. Only one whose time is another is read to know.
        """
        try:
            record: Any = read_json(self._record(address))
        except InputError:
            return None
        if not isinstance(record, dict):
            return None
        found, size, name = (record.get(key) for key in ("sha256", "size", "name"))
        if not isinstance(found, str) or not _DIGEST.fullmatch(found):
            return None
        path = self._blob(found)
        if not path.is_file() or path.stat().st_size != size or sha256 not in (None, found):
            return None
        blob = Blob(path, found, path.stat().st_size, name if isinstance(name, str) else "")
        if path.stat().st_mtime_ns != record.get("written"):
            # Runs have it under other names, where a program may have written into it; or the
            # whole cache was copied here.
            if _digest(path) != found:
                return None
            self.note(address, blob)
        return blob

    def take(self, path: Path, address: str, name: str, sha256: str | None = None) -> Blob:
        """Move a whole file into the cache as what an address leads to.

        Raises:
            InputError: its digest is not `sha256`; then it is removed.
        """
        found = _digest(path)
        if sha256 not in (None, found):
            path.unlink()
            raise InputError(f"{address}: expected content of sha256 {sha256}, got {found}")
        blob = self._blob(found)
        blob.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size
        # Runs have it under other names too, and must not change it there.
        path.chmod(0o444)
        path.replace(blob)
        self.note(address, Blob(blob, found, size, name))
        return Blob(blob, found, size, name)

    def adopt(self, address: str, name: str, sha256: str | None = None) -> Blob | None:
        """Take in what somebody put there by hand, if he did.

        Raises:
            InputError: its digest is not `sha256`; it is left where it is.
        """
        path = self.by_hand(address, name)
        if not path.is_file():
            return None
        if sha256 is not None:
            found = _digest(path)
            if found != sha256:
                raise InputError(f"{path}: expected content of sha256 {sha256}, got {found}")
        # Not where a download is gathered, which may go on with what it finds there.
        copy = self.partial(address).with_suffix(".by-hand")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        return self.take(copy, address, name, sha256)

    def forget(self, address: str) -> None:
        """Have an address fetched anew the next time."""
        self._record(address).unlink(missing_ok=True)

    def note(self, address: str, blob: Blob) -> None:
        """Remember that an address leads to a blob."""
        record = {
            "address": address,
            "sha256": blob.sha256,
            "size": blob.size,
            "name": blob.name,
            "written": blob.path.stat().st_mtime_ns,
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self._record(address), record)

    def _record(self, address: str) -> Path:
        return self.root / "addresses" / f"{_key(address)}.json"

    def _blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256


def place(blob: Blob, path: Path) -> None:
    """Make a blob appear as a file: a hard link where that works, else a copy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(blob.path, path)
    except OSError:
        shutil.copyfile(blob.path, path)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _key(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()
