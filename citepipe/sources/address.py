"""Addresses of files and folders elsewhere, and where a run has what they lead to.

Nothing here asks the network: the workflow reads addresses before it knows what it will run.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from citepipe.errors import InputError

DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DRIVE_ID = re.compile(r"[A-Za-z0-9_-]{10,}")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM = 40
_LONGEST_NAME = 255
_LONGEST_FILE_NAME = 128


@dataclass(frozen=True, slots=True)
class Web:
    """A file at an http or https URL."""

    url: str

    @property
    def name(self) -> str:
        """The last part of the URL's path; empty if there is none."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class Drive:
    """A file or a folder at Google Drive, shared with everyone who has the link.

    Attributes:
        key: what links to files from before 2021 need besides (`resourcekey`), if any.
    """

    id: str
    is_folder: bool
    name: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Hub:
    """A file of a repository at the Hugging Face hub, or with no path all of its files."""

    kind: Literal["models", "datasets"]
    repository: str
    revision: str
    path: str

    @property
    def name(self) -> str:
        """The file's name; the repository's, where all of it is meant."""
        return PurePosixPath(self.path or self.repository).name


def is_remote(text: str) -> bool:
    """Whether a path in a configuration is an address."""
    return _SCHEME.match(text) is not None


def split(address: str) -> tuple[str, str]:
    """An address without its `#member`, and the member; empty if there is none."""
    plain, _, member = address.partition("#")
    return plain, unquote(member).strip("/")


def parse(address: str) -> Web | Drive | Hub:
    """What an address leads to, its member aside.

    Raises:
        InputError: it is none that can be read.
    """
    plain, member = split(address)
    if member:
        check_member(plain, member)
    scheme = plain.partition("://")[0].lower()
    if scheme == "hf":
        return _hub(plain)
    if scheme not in ("http", "https"):
        raise InputError(f"{address}: expected an address with https://, http:// or hf://")
    try:
        parts = urlsplit(plain)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{address}: expected a URL: {error}") from None
    if not host or not plain.isprintable() or " " in plain:
        raise InputError(f"{address}: expected a URL such as https://host/file.json")
    if parts.username is not None or parts.password is not None:
        # The address is written into logs and results.
        raise InputError(f"address at {host}: expected a URL without user and password")
    return _drive(address, plain) if host in DRIVE_HOSTS else Web(plain)


def check_member(address: str, member: str) -> None:
    """Raises InputError unless a member is a path of printable characters below a folder."""
    parts = PurePosixPath(member).parts
    inside = parts and parts[0] != "/" and ".." not in parts and member.isprintable()
    if not inside or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise InputError(f"{address}: expected a path inside of it behind '#', got {member!r}")


def folder_of(address: str, root: str) -> str:
    """The folder below `root` where a run has what an address, its member aside, leads to.

    Raises:
        InputError: it is none that can be read.
    """
    plain, _ = split(address)
    place = parse(address)
    stem = _UNFIT.sub("-", PurePosixPath(place.name).name.partition(".")[0]).strip("-.")
    if not stem:
        stem = "drive" if isinstance(place, Drive) else "file"
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return f"{root}/{digest}-{stem[:_LONGEST_STEM]}"


def local_path(address: str, root: str, kind: Literal["file", "folder"]) -> str:
    """Where a run has the file or folder that an address names.

    Args:
        address: with or without a member.
        root: the folder of all that comes from elsewhere.
        kind: what is meant by an address without a member: a file, or all that it leads to.

    Raises:
        InputError: it is none that can be read.
    """
    folder = folder_of(address, root)
    plain, member = split(address)
    if member:
        return f"{folder}/{member}"
    return folder if kind == "folder" else f"{folder}/{file_name(parse(plain))}"


def file_name(place: Web | Drive | Hub) -> str:
    """The name that a single file gets in its folder."""
    name = _UNFIT.sub("-", PurePosixPath(place.name).name).strip("-.")
    return name[-_LONGEST_FILE_NAME:] or "file"


def _hub(plain: str) -> Hub:
    expected = "hf://datasets/OWNER/NAME[@REVISION]/PATH or hf://OWNER/NAME[@REVISION][/PATH]"
    parts = plain.partition("://")[2].split("/")
    kind: Literal["models", "datasets"] = "models"
    if parts[0] == "datasets":
        kind, parts = "datasets", parts[1:]
    elif parts[0] == "models":
        parts = parts[1:]
    name, _, revision = parts[1].partition("@") if len(parts) > 1 else ("", "", "")
    revision = unquote(revision)
    fit = all(re.fullmatch(r"[\w.-]+", part, re.ASCII) for part in (parts[0], name))
    inner = [part for part in parts[2:] if part]
    if not fit or ".." in inner or (revision and not re.fullmatch(r"[\w./-]+", revision, re.ASCII)):
        raise InputError(f"{plain}: expected {expected}")
    return Hub(kind, f"{parts[0]}/{name}", revision or "main", "/".join(inner))


def _drive(address: str, plain: str) -> Drive:
    parts = urlsplit(plain)
    found = re.search(r"/(file/d|folders)/([^/?]+)", parts.path)
    if found:
        kind, identity = found.groups()
    else:
        kind, identity = "file/d", parse_qs(parts.query).get("id", [""])[0]
        if "folder" in parts.path.lower():
            kind = "folders"
    if not _DRIVE_ID.fullmatch(identity):
        raise InputError(
            f"{address}: expected a link to a file (https://drive.google.com/file/d/ID) or a "
            "folder (https://drive.google.com/drive/folders/ID)"
        )
    key = parse_qs(parts.query).get("resourcekey", [""])[0]
    return Drive(identity, kind == "folders", key=key)
