"""Downloads over http: gone on with after a cut, tried again, whole or not at all."""

from __future__ import annotations

import random
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.options import SourcesOptions
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
_HEAD = 512
_WEB_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(!doctype html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<")
_PART = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_SHA256 = re.compile("[0-9a-f]{64}")
_MEANINGS = {
    401: "wants a login",
    403: "forbids it",
    404: "has no such file",
    410: "has it no more",
    451: "withholds it for legal reasons",
}


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
    ) -> str | None:
        """Bring a file to `path`, going on with what is there of it from a run that was cut off.

        Args:
            url: where it is.
            path: where it is gathered; `path` + `.json` says what it is a part of.
            label: how it is named in what is said.
            headers: for its own host only.
            on_page: told a web page that came in place of the file; returns the URL to ask
                instead, or raises an InputError. By default a page is refused, unless the URL's
                own name is that of one.

        Returns:
            the sha256 that the server gives (the hub does for large files), if any.

        Raises:
            InputError: no attempt brought it whole, or the disk is full.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        pages_are_fine = on_page is None and urlsplit(url).path.endswith((".html", ".htm"))
        asked = url
        for _ in range(_MOST_PAGES):

            def attempt(asked: str = asked) -> str | None:
                return self._attempt(asked, url, path, label, headers or {}, pages_are_fine)

            try:
                return self._retried(label, attempt, lambda: _size(path))
            except _PageError as page:
                if on_page is None:
                    raise InputError(
                        f"{label}: sent a web page where a file was expected"
                    ) from None
                asked = on_page(str(page))
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        raise InputError(f"{label}: sent a web page again and again where a file was expected")

    def _retried(
        self, label: str, attempt: Callable[[], Result], came: Callable[[], int]
    ) -> Result:
        """Try until it works, or fails too often without getting further (as `came` counts)."""
        failures = 0
        farthest = came()
        while True:
            try:
                return attempt()
            except FaultError as fault:
                # One that begins anew and is cut here and there gets no further for ever.
                failures = 1 if came() > farthest else failures + 1
                farthest = max(farthest, came())
                if failures > self.options.retries:
                    tries = "1 attempt" if failures == 1 else f"{failures} attempts"
                    raise InputError(f"{label}: {fault} ({tries})") from None
                say(f"{label}: {fault}; trying again")
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (failures - 1))
                pause *= random.uniform(0.5, 1.0)
                self._pause(max(pause, min(fault.asked or 0.0, _LONGEST_ASKED)))

    def _attempt(
        self,
        url: str,
        source: str,
        path: Path,
        label: str,
        headers: Mapping[str, str],
        pages_are_fine: bool,
    ) -> str | None:
        """Ask `url` for what there is not yet of the file that `source` leads to."""
        note = path.with_name(f"{path.name}.json")
        begun, part = _begun(path, note, source)
        with self._response(url, label, {**headers, **part}) as (response, sha256):
            if response.status_code == 416:
                path.unlink(missing_ok=True)
                raise FaultError("has another file than before")
            _check_status(label, response)
            packed = _is_packed(label, response)
            length = None if packed else response.headers.get("content-length")
            whole = int(length) if length and length.isdigit() else None
            if response.status_code == 206:
                first, total = _part(response)
                if first != begun:
                    path.unlink(missing_ok=True)
                    raise FaultError("sent another part of the file than it was asked for")
                whole = total if whole is None or total is not None else begun + whole
            else:
                begun = 0
            chunks = _unpacked(response.iter_raw()) if packed else response.iter_raw()
            head = _head(chunks)
            if begun == 0 and not pages_are_fine and _is_page(response, head):
                raise _PageError(_page_text(head, chunks))
            # What is gathered counts only together with what it is a part of.
            note.unlink(missing_ok=True)
            with path.open("r+b" if begun else "wb") as stream:
                stream.truncate(begun)
                stream.seek(begun)
                write_json(note, {"url": source, "validator": None if packed else _mark(response)})
                _write(chain([head], chunks), stream, label, begun, whole)
        if whole is not None and _size(path) != whole:
            raise FaultError(f"sent {_size(path)} bytes of {whole}")
        note.unlink(missing_ok=True)
        return sha256

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

        connect = min(_CONNECT_SECONDS, self.options.timeout)
        if self._client is None:
            timeout = httpx.Timeout(self.options.timeout, connect=connect)
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
                    target = _target(url, response.headers.get("location", ""), label)
            except httpx.ConnectTimeout:
                raise FaultError(f"no connection within {connect:g} s") from None
            except httpx.TimeoutException:
                raise FaultError(f"sent nothing for {self.options.timeout:g} s") from None
            except httpx.ConnectError as error:
                raise FaultError(f"cannot be reached: {_cause(error)}") from None
            except httpx.RemoteProtocolError as error:
                if "isconnected" in str(error) or "closed" in str(error):
                    raise FaultError("closed the connection before all had come") from None
                raise FaultError("sent what is not HTTP") from None
            except (httpx.ReadError, httpx.WriteError):
                raise FaultError("closed the connection before all had come") from None
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                raise InputError(f"{label}: {_cause(error)}") from None
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise InputError(f"{label}: redirects from https to http, which is not followed")
            url = target
        raise InputError(f"{label}: more than {_MOST_REDIRECTS} redirects")


def _target(url: str, location: str, label: str) -> str:
    """Where a redirect leads."""
    try:
        target = urljoin(url, location)
        if location and urlsplit(target).scheme in ("http", "https"):
            return target
    except ValueError:
        pass
    raise InputError(f"{label}: redirects to {_shown(location)}, which is no web address")


def _is_packed(label: str, response: httpx.Response) -> bool:
    """Whether what comes is packed for the way; of a packed file nothing more is unpacked."""
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding in ("identity", ""):
        return False
    if encoding not in ("gzip", "x-gzip"):
        raise InputError(f"{label}: sent in an encoding that was not asked for, {_shown(encoding)}")
    return not response.url.path.lower().endswith((".gz", ".tgz"))


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    for chunk in chunks:
        rest = chunk
        while rest:
            if unpacker.eof:
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                yield unpacker.decompress(rest)
            except zlib.error:
                raise FaultError("sent what it calls compressed and is not") from None
            rest = unpacker.unused_data
    if not unpacker.eof:
        raise FaultError("sent something compressed that ends early")


def _head(chunks: Iterator[bytes]) -> bytes:
    """The first bytes, enough to tell what they are, or all if there are fewer."""
    head = b""
    while len(head) < _HEAD and (chunk := next(chunks, None)) is not None:
        head += chunk
    return head


def _is_page(response: httpx.Response, head: bytes) -> bool:
    is_called_so = "html" in response.headers.get("content-type", "").lower()
    return bool(_WEB_PAGE.match(head) or (is_called_so and _MARKUP.match(head)))


def _page_text(head: bytes, chunks: Iterator[bytes]) -> str:
    """A page, or the begin of an endless one."""
    text = bytearray(head)
    for chunk in chunks:
        text += chunk
        if len(text) > _MIB:
            break
    return text.decode("utf-8", errors="replace")


def _write(
    chunks: Iterable[bytes], stream: BinaryIO, label: str, begun: int, whole: int | None
) -> None:
    """Write what comes behind what is there."""
    told = begun // _MIB
    total = max(1, (whole or 0) // _MIB)
    progress = Progress(label, total, "MiB", done=told, patient=True)
    for chunk in chunks:
        stream.write(chunk)
        now = stream.tell() // _MIB
        if whole is not None and now > told:
            progress.advance(now - told)
            told = now


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _begun(path: Path, note: Path, source: str) -> tuple[int, dict[str, str]]:
    """How much there is of a file, and the headers that ask for the rest of the same file."""
    size = _size(path)
    if not size or not note.exists():
        return 0, {}
    try:
        said = read_json(note)
    except InputError:
        return 0, {}
    validator = said.get("validator") if isinstance(said, dict) else None
    if not isinstance(validator, str) or said.get("url") != source:
        return 0, {}
    return size, {"range": f"bytes={size}-", "if-range": validator}


def _mark(response: httpx.Response) -> str | None:
    """What tells a file from another version of it; a weak one will not do (RFC 9110, 13.1.5)."""
    etag: str = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("last-modified")
    return modified


def _part(response: httpx.Response) -> tuple[int | None, int | None]:
    """Which byte of the file is the first that comes, and how long the file is, where it is said;
    a server may send less than it was asked for."""
    found = _PART.fullmatch(response.headers.get("content-range", ""))
    if found is None:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _check_status(label: str, response: httpx.Response) -> None:
    status = response.status_code
    if status in (200, 206):
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


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:200]) or "nowhere"


def _cause(error: Exception) -> str:
    words = " ".join(str(error).split())
    return re.sub(r"^\[Errno -?\d+\] ", "", words)[:200] or type(error).__name__
