"""Downloads over http: gone on with after a cut, tried again, whole or not at all."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.options.sources import SourcesOptions
from citepipe.progress import Progress, say

if TYPE_CHECKING:
    import httpx

Result = TypeVar("Result")

PASSING = frozenset({408, 425, 429, *range(500, 600)})
"""Statuses of faults that may pass."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_MOST_PAGES = 3
_CONNECT_SECONDS = 15.0
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED = 0.5, 30.0, 300.0
_MOST_TEXT = 2**24
_MIB = 2**20
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html)", re.IGNORECASE)
_SHA256 = re.compile("[0-9a-f]{64}")
_MEANINGS = {
    401: "wants a login",
    403: "forbids it",
    404: "has no such file",
    410: "has it no more",
    451: "withholds it for legal reasons",
}


@dataclass(frozen=True, slots=True)
class Got:
    """What a server says of a file that has come whole.

    Attributes:
        name: the name that it gives the file; empty if it gives none.
        sha256: the digest that it gives (the hub does for large files), if any.
    """

    name: str
    sha256: str | None


class FaultError(Exception):
    """What is wrong with one attempt; another may do better.

    Args:
        reason: what the server did, as it follows the address.
        asked: seconds that it asks to be left alone.
    """

    def __init__(self, reason: str, asked: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked


class _PageError(Exception):
    """A web page came; its text is the argument."""


class Downloader:
    """Fetches files and pages, one at a time.

    Args:
        options: how patiently.
        pause: waits so many seconds.
    """

    def __init__(
        self, options: SourcesOptions, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.options = options
        self._pause = pause
        self._client: httpx.Client | None = None

    def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def text(self, url: str, headers: Mapping[str, str] | None = None) -> str:
        """A page, read whole.

        Args:
            url: where it is.
            headers: for its own host only.

        Raises:
            InputError: no attempt brought it.
        """

        def attempt() -> str:
            with self._response(url, url, headers or {}) as (response, _):
                _check_status(url, response)
                data = bytearray()
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > _MOST_TEXT:
                        raise InputError(f"{url}: expected a page, it is longer than 16 MiB")
                return data.decode("utf-8", errors="replace")

        return self._retried(url, attempt, lambda: 0)

    def file(
        self,
        url: str,
        path: Path,
        label: str,
        headers: Mapping[str, str] | None = None,
        on_page: Callable[[str], str] | None = None,
    ) -> Got:
        """Bring a file to `path`, going on with what is there of it from a run that was cut off.

        Args:
            url: where it is.
            path: where it is gathered; `path` + `.json` says what it is a part of.
            label: how it is named in what is said.
            headers: for its own host only.
            on_page: told a web page that came in place of the file; returns the URL to ask
                instead, or raises an InputError. By default a page is refused, unless the URL's
                own name is that of one.

        Raises:
            InputError: no attempt brought it whole, or the disk is full.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        pages_are_fine = on_page is None and urlsplit(url).path.endswith((".html", ".htm"))
        for _ in range(_MOST_PAGES):
            asked = url

            def attempt(asked: str = asked) -> Got:
                return self._attempt(asked, path, label, headers or {}, pages_are_fine)

            try:
                return self._retried(label, attempt, lambda: _size(path))
            except _PageError as page:
                if on_page is None:
                    raise InputError(
                        f"{label}: sent a web page where a file was expected"
                    ) from None
                url = on_page(str(page))
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        raise InputError(f"{label}: sent a web page again and again where a file was expected")

    def _retried(
        self, label: str, attempt: Callable[[], Result], came: Callable[[], int]
    ) -> Result:
        """Try until it works, or fails too often without a byte (as `came` counts) between."""
        failures = 0
        while True:
            before = came()
            try:
                return attempt()
            except FaultError as fault:
                failures = 1 if came() > before else failures + 1
                if failures > self.options.retries:
                    tries = "1 attempt" if failures == 1 else f"{failures} attempts"
                    raise InputError(f"{label}: {fault} ({tries})") from None
                say(f"{label}: {fault}; trying again")
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (failures - 1))
                pause *= random.uniform(0.5, 1.0)
                self._pause(max(pause, min(fault.asked or 0.0, _LONGEST_ASKED)))

    def _attempt(
        self, url: str, path: Path, label: str, headers: Mapping[str, str], pages_are_fine: bool
    ) -> Got:
        note = path.with_name(f"{path.name}.json")
        begun, part = _begun(path, note, url)
        with self._response(url, label, {**headers, **part}) as (response, sha256):
            if response.status_code == 416:
                path.unlink(missing_ok=True)
                raise FaultError("has another file than before")
            _check_status(label, response)
            if response.status_code != 206:
                begun = 0
            elif _first_byte(response) != begun:
                path.unlink(missing_ok=True)
                raise FaultError("sent another part of the file than it was asked for")
            encoded = response.headers.get("content-encoding", "identity") != "identity"
            chunks = response.iter_bytes() if encoded else response.iter_raw()
            length = None if encoded else response.headers.get("content-length")
            whole = begun + int(length) if length and length.isdigit() else None
            # What is gathered counts only together with what it is a part of.
            note.unlink(missing_ok=True)
            with path.open("r+b" if begun else "wb") as stream:
                stream.truncate(begun)
                stream.seek(begun)
                write_json(note, {"url": url, "validator": None if encoded else _mark(response)})
                _write(chunks, stream, label, begun, whole, pages_are_fine)
        if whole is not None and _size(path) != whole:
            raise FaultError(f"sent {_size(path)} bytes of {whole}")
        note.unlink(missing_ok=True)
        return Got(_given_name(response), sha256)

    @contextmanager
    def _response(
        self, url: str, label: str, headers: Mapping[str, str]
    ) -> Iterator[tuple[httpx.Response, str | None]]:
        """The answer at the end of all redirects, and the sha256 that a hub gives on the way.

        Raises:
            FaultError: what went wrong on the way.
            InputError: a redirect that is not followed.
        """
        import httpx

        if self._client is None:
            timeout = httpx.Timeout(self.options.timeout, connect=_CONNECT_SECONDS)
            self._client = httpx.Client(timeout=timeout, follow_redirects=False)
        sha256 = None
        host = urlsplit(url).netloc
        for _ in range(_MOST_REDIRECTS + 1):
            own = urlsplit(url).netloc == host
            sent = {k: v for k, v in headers.items() if own or k.lower() in ("range", "if-range")}
            try:
                with self._client.stream(
                    "GET", url, headers={"accept-encoding": "identity", **sent}
                ) as response:
                    digest = response.headers.get("x-linked-etag", "").strip('W/"')
                    sha256 = digest if _SHA256.fullmatch(digest) else sha256
                    if response.status_code not in _REDIRECTS:
                        yield response, sha256
                        return
                    target = urljoin(url, response.headers.get("location", ""))
            except httpx.TimeoutException as error:
                took = "no connection" if isinstance(error, httpx.ConnectTimeout) else "nothing"
                raise FaultError(f"{took} for {self.options.timeout:g} s") from None
            except httpx.ConnectError as error:
                raise FaultError(f"cannot be reached: {_cause(error)}") from None
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                raise FaultError("closed the connection before all had come") from None
            except httpx.DecodingError:
                raise FaultError("sent what it calls compressed and is not") from None
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                raise InputError(f"{label}: {_cause(error)}") from None
            if urlsplit(target).scheme not in ("http", "https"):
                raise InputError(f"{label}: redirects to {target[:200]}, which is no web address")
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise InputError(f"{label}: redirects from https to http, which is not followed")
            url = target
        raise InputError(f"{label}: more than {_MOST_REDIRECTS} redirects")


def _write(
    chunks: Iterator[bytes],
    stream: BinaryIO,
    label: str,
    begun: int,
    whole: int | None,
    pages_are_fine: bool,
) -> None:
    """Write what comes behind what is there.

    Raises:
        _PageError: it is a web page.
    """
    told = begun // _MIB
    total = max(1, (whole or 0) // _MIB)
    progress = Progress(label, total, "MiB", done=told, patient=True)
    is_first = begun == 0 and not pages_are_fine
    for chunk in chunks:
        if is_first and _WEB_PAGE.match(chunk):
            text = bytearray(chunk)
            for rest in chunks:
                text += rest
                if len(text) > _MIB:
                    break
            raise _PageError(text.decode("utf-8", errors="replace"))
        is_first = False
        stream.write(chunk)
        now = stream.tell() // _MIB
        if whole is not None and now > told:
            progress.advance(now - told)
            told = now


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _begun(path: Path, note: Path, url: str) -> tuple[int, dict[str, str]]:
    """How much there is of a file, and the headers that ask for the rest of the same file."""
    size = _size(path)
    if not size or not note.exists():
        return 0, {}
    try:
        said = read_json(note)
    except InputError:
        return 0, {}
    validator = said.get("validator") if isinstance(said, dict) else None
    if not isinstance(validator, str) or said.get("url") != url:
        return 0, {}
    return size, {"range": f"bytes={size}-", "if-range": validator}


def _mark(response: httpx.Response) -> str | None:
    """What tells a file from another version of it; a weak one will not do (RFC 9110, 13.1.5)."""
    etag: str = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("last-modified")
    return modified


def _first_byte(response: httpx.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(found[1]) if found else None


def _check_status(label: str, response: httpx.Response) -> None:
    status = response.status_code
    if 200 <= status < 300:
        return
    if status in PASSING:
        raise FaultError(f"answered {status}", _asked_pause(response))
    said = f"{_MEANINGS[status]} ({status})" if status in _MEANINGS else f"answered {status}"
    raise InputError(f"{label}: {said}")


def _asked_pause(response: httpx.Response) -> float | None:
    asked = response.headers.get("retry-after", "")
    if asked.isascii() and asked.isdigit():
        return float(asked)
    try:
        return (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None


def _given_name(response: httpx.Response) -> str:
    message = Message()
    message["content-disposition"] = response.headers.get("content-disposition", "")
    return (message.get_filename() or "").replace("\\", "/").rpartition("/")[2]


def _cause(error: Exception) -> str:
    words = " ".join(str(error).split())
    return re.sub(r"^\[Errno -?\d+\] ", "", words)[:200] or type(error).__name__
