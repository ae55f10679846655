"""Zip and tar archives, unpacked so that nothing lands outside of their folder."""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import IO

from citepipe.errors import InputError

_LARGEST_RATIO = 200
"""Of unpacked to packed bytes; text packs to a tenth, weights hardly at all."""

_RATIO_FROM = 2**26
"""Bytes from which on the ratio counts: little harm is done below."""

_MOST_MEMBERS = 200_000
_DEEPEST = 64
_NAMED_SO = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_ZIPPED = (b"PK\x03\x04", b"PK\x05\x06")
_CHUNK = 2**20
_DRIVE_LETTER = re.compile("[A-Za-z]:")
_NOISE = ("__MACOSX/", ".DS_Store")
_FAULTS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


class DamagedError(InputError):
    """An archive is not whole, or not what it was when it was made."""


def is_archive(path: Path) -> bool:
    """Whether a file's content begins as a zip or tar archive does, whatever its name."""
    if _begins_as_zip(path):
        # Checkpoints of torch are zip files too.
        return not _is_checkpoint(path)
    try:
        with tarfile.open(path, "r:*") as tarred:
            # A file of zeros is an archive of nothing.
            return tarred.next() is not None
    except (*_FAULTS, OSError):
        return False


def is_named_archive(name: str) -> bool:
    """Whether a file's name is that of an archive."""
    return name.lower().endswith(_NAMED_SO)


def unpack(archive: Path, out: Path, label: str | None = None) -> int:
    """Unpack an archive into a folder that is not there yet.

    Links and devices are refused, and whatever would land outside of the folder; what only some
    systems add (`__MACOSX`) is passed over. On any fault nothing is left of the folder.

    Args:
        archive: a zip or tar file.
        out: the folder.
        label: how the archive is named in complaints; by default its path.

    Returns:
        how many files there were.

    Raises:
        DamagedError: it is cut off or changed.
        InputError: it is not as an honest archive is, or the disk is full.
    """
    name = label or str(archive)
    room = shutil.disk_usage(out.parent if out.parent.exists() else Path.cwd()).free
    budget = min(room, max(_RATIO_FROM, _LARGEST_RATIO * archive.stat().st_size))
    out.mkdir(parents=True)
    count = 0
    try:
        with _members(archive, name) as members:
            for path, stream in members:
                count += 1
                if count > _MOST_MEMBERS:
                    raise InputError(f"{name}: more than {_MOST_MEMBERS} files in it")
                target = out / path
                if target.exists():
                    raise InputError(f"{name}: has {path!r} twice")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    while chunk := stream.read(_CHUNK):
                        budget -= len(chunk)
                        if budget < 0:
                            raise InputError(
                                f"{name}: unpacks to more than {_LARGEST_RATIO} times its size, or "
                                "than the disk has room for"
                            )
                        file.write(chunk)
        if not count:
            raise InputError(f"{name}: an archive without files")
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, _FAULTS):
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise DamagedError(f"{name}: a damaged archive: {said}") from None
        if isinstance(error, OSError):
            raise InputError(f"{name}: cannot be unpacked: {error.strerror or error}") from None
        raise
    return count


@contextmanager
def _members(archive: Path, name: str) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    if _begins_as_zip(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield _of_zip(zipped, name)
    else:
        with tarfile.open(archive, "r:*") as tarred:
            yield _of_tar(tarred, name)


def _of_zip(zipped: zipfile.ZipFile, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    for member in zipped.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir() or member.filename.endswith(_NOISE) or "__MACOSX/" in member.filename:
            continue
        if kind not in (0, stat.S_IFREG):
            raise InputError(f"{name}: {member.filename!r} is a link or device, no file")
        if member.flag_bits & 1:
            raise InputError(f"{name}: {member.filename!r} is encrypted")
        with zipped.open(member) as stream:
            yield _safe(member.filename, name), stream


def _of_tar(tarred: tarfile.TarFile, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tarred:
        if member.isdir() or Path(member.name).name.startswith("._"):
            continue
        if not member.isreg():
            raise InputError(f"{name}: {member.name!r} is a link or device, no file")
        stream = tarred.extractfile(member)
        assert stream is not None
        with stream:
            yield _safe(member.name, name), stream


def _safe(path: str, name: str) -> str:
    """A member's path, if it stays below the folder."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    absolute = path.startswith(("/", "\\")) or _DRIVE_LETTER.match(path)
    if absolute or not parts or ".." in parts or "\0" in path:
        raise InputError(f"{name}: {path!r} would land outside of its folder")
    if len(parts) > _DEEPEST:
        raise InputError(f"{name}: has folders in folders, more than {_DEEPEST} deep")
    return "/".join(parts)


def _begins_as_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in _ZIPPED


def _is_checkpoint(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as zipped:
            return any(n.endswith("/data.pkl") for n in zipped.namelist()[:5])
    except _FAULTS:
        return False
