"""Repositories at the Hugging Face hub, by its plain HTTP interface."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from urllib.parse import quote, urlsplit

from citepipe.errors import InputError
from citepipe.sources.address import Hub
from citepipe.sources.download import Downloader

_OTHER_FRAMEWORKS = frozenset({".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".gguf"})
_PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})


def endpoint() -> str:
    """Where the hub is: `HF_ENDPOINT` of the environment, or the public one.

    Raises:
        InputError: it is no URL, or one with a password, which would be written into logs.
    """
    url = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise InputError("HF_ENDPOINT: expected a URL such as https://host, without a password")
    return url


def headers() -> dict[str, str]:
    """The token of the environment, for repositories that want one.

    Raises:
        InputError: no header can have it; it is not shown.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable()):
        raise InputError("HF_TOKEN: expected printable ASCII characters in one line")
    return {"authorization": f"Bearer {token}"} if token else {}


@contextmanager
def token_wanted() -> Iterator[None]:
    """Behind a complaint of the block about a missing login stands that there is no token."""
    try:
        yield
    except InputError as error:
        hint = ", HF_TOKEN is not set" if "login" in str(error) and not headers() else ""
        raise InputError(f"{error}{hint}") from None


def file_url(place: Hub, path: str) -> str:
    """Where a file of a repository is."""
    kind = "datasets/" if place.kind == "datasets" else ""
    revision = quote(place.revision, safe="")
    return f"{endpoint()}/{kind}{place.repository}/resolve/{revision}/{quote(path)}"


def files_of(downloader: Downloader, place: Hub) -> tuple[Hub, list[str]]:
    """The files of a repository, and the repository at the commit that its revision is now.

    Of a model with safetensors the same weights in other forms are left out, pickles among them.

    Raises:
        InputError: there is no such repository or revision, or it has no files.
    """
    revision = quote(place.revision, safe="")
    url = f"{endpoint()}/api/{place.kind}/{place.repository}/revision/{revision}"
    try:
        with token_wanted():
            found = json.loads(downloader.text(url, headers()))
        names = [str(file["rfilename"]) for file in found["siblings"]]
        commit = str(found["sha"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{url}: expected the hub's list of files") from None
    names = [name for name in names if not PurePosixPath(name).name.startswith(".git")]
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in name or not name.isprintable():
            raise InputError(f"{url}: expected names of files below the repository, got {name!r}")
    skipped = set(_OTHER_FRAMEWORKS)
    if any(name.endswith(".safetensors") for name in names):
        skipped |= _PICKLED
    if place.kind == "models":
        names = [name for name in names if PurePosixPath(name).suffix not in skipped]
    if not names:
        raise InputError(f"{url}: the repository has no files")
    return Hub(place.kind, place.repository, commit, place.path), names
