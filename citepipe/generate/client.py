"""Asking OpenAI-compatible servers: many requests at once, retried, and none that finished lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from citepipe.errors import InputError
from citepipe.options import ServerOptions
from citepipe.progress import say

if TYPE_CHECKING:
    import httpx

Item = TypeVar("Item")
Result = TypeVar("Result")
Found = TypeVar("Found", covariant=True)

PASSING = frozenset({408, 409, 425, 429, *range(500, 600)})
"""Statuses of faults that may pass."""

_CONNECT_SECONDS = 10.0
# Servers drop connections that were idle for some seconds (uvicorn, 5): ours are dropped before.
_IDLE_SECONDS = 3.0
_READ_OUT_SECONDS = 0.5
_MOST_BYTES = 2**26
_MOST_MESSAGE = 2**16
_SHOWN = 200
_SHOWN_BRIEFLY = 60
_CUT_OFF = "ended its stream in the middle of the answer"
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait before a request is tried again, in seconds.

    Attributes:
        first: before the first retry; each further one waits twice as long.
        longest: no pause is longer, but for
        longest_asked: what a server may ask for (`Retry-After`), at most.
    """

    first: float = 0.5
    longest: float = 30.0
    longest_asked: float = 300.0

    def before(self, retry: int, asked: float | None) -> float:
        """Before the given retry (from 0): at random between half and all of its length, so that
        requests that failed together do not come back together."""
        pause = min(self.longest, self.first * 2.0 ** min(retry, 60)) * random.uniform(0.5, 1.0)
        return max(pause, min(asked or 0.0, self.longest_asked))


class AttemptError(Exception):
    """What is wrong with one attempt; another may do better.

    Args:
        reason: what the server did, as it follows the server's name.
        asked: seconds that it asks to be left alone.
    """

    def __init__(self, reason: str, asked: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked


class RefusedError(InputError):
    """The server understood, and says no.

    Attributes:
        status: the HTTP status.
        message: the server's own words, in one line.
    """

    def __init__(self, line: str, status: int, message: str) -> None:
        super().__init__(line)
        self.status = status
        self.message = message


class _TellingError(Exception):
    """Its cause came from whoever was told of a result."""


class Reader(Protocol[Found]):
    """Puts a streamed answer together.

    Attributes:
        ended: the server has said that the answer is over.
    """

    ended: bool

    def add(self, event: Any) -> Found | None:
        """Take the next event; returns the whole answer as soon as it is known.

        Raises:
            AttemptError: that is no event of such a stream.
        """
        ...


class Client:
    """A client of one server, with its own event loop: called from ordinary code.

    Redirects are not followed. The API key goes into a header and nowhere else.

    Args:
        options: where the server is, how patiently and with how many requests at once it is asked.
        pauses: between two attempts.

    Raises:
        InputError: the variable that should hold the API key does not, or the key is no header.
    """

    def __init__(self, options: ServerOptions, pauses: Pauses | None = None) -> None:
        self.options = options
        self.pauses = pauses or Pauses()
        self._key = _api_key(options)
        # A client per connection: the time that one client with many of them takes to choose among
        # them grows with the square of their number.
        self._idle: list[httpx.AsyncClient] = []
        self._runner = asyncio.Runner()
        self._failed_in_a_row = 0

    def close(self) -> None:
        """Close every connection."""
        while self._idle:
            self._runner.run(self._idle.pop().aclose())
        self._runner.close()

    def run(self, work: Awaitable[Result]) -> Result:
        """Wait for work that asks the server."""

        async def wait() -> Result:
            return await work

        return self._runner.run(wait())

    def each(
        self,
        items: Iterable[Item],
        work: Callable[[Item], Awaitable[Result]],
        done: Callable[[Item, Result], None],
    ) -> None:
        """Do some work for every item, as much at once as the options allow.

        Args:
            items: what to do it for.
            work: asks the server; its InputErrors end it all.
            done: told of every result as soon as it is there.

        Raises:
            InputError: the first one. Nothing is begun after it, but what is under way goes on to
                its own end and `done` is told of it before the error is raised.
        """
        self._runner.run(self._each(items, work, done))

    async def _each(
        self,
        items: Iterable[Item],
        work: Callable[[Item], Awaitable[Result]],
        done: Callable[[Item, Result], None],
    ) -> None:
        waiting = iter(items)
        failures: list[InputError] = []

        async def keep_asking() -> None:
            while not failures:
                try:
                    item = next(waiting)
                except StopIteration:
                    return
                try:
                    result = await work(item)
                except InputError as error:
                    failures.append(error)
                    return
                try:
                    done(item, result)
                except BaseException as error:
                    # An interrupt would leave the loop at once, and the other workers in it.
                    raise _TellingError from error

        workers = [asyncio.ensure_future(keep_asking()) for _ in range(self.options.concurrency)]
        try:
            await asyncio.gather(*workers)
        except BaseException as error:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if isinstance(error, _TellingError) and error.__cause__ is not None:
                raise error.__cause__ from None
            raise
        if failures:
            raise failures[0]

    async def ask(
        self,
        method: str,
        path: str,
        parse: Callable[[bytes], Result],
        body: Any = None,
        passing: frozenset[int] = PASSING,
        retries: int | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Result:
        """One answer, read whole.

        Args:
            method: GET or POST.
            path: behind the server's URL.
            parse: makes a result of the answer's bytes, or raises an AttemptError.
            body: what to send, as JSON.
            passing: statuses after which it is tried again.
            retries: in place of those of the options.
            before: waited for in front of every attempt (a pace to keep).

        Raises:
            RefusedError: the server says that the request is wrong.
            InputError: no attempt gave a whole, sensible answer.
        """

        async def attempt(http: httpx.AsyncClient) -> Result:
            async with http.stream(method, self._url(path), content=_encoded(body)) as response:
                data = await _whole_body(response)
                self._check_status(path, response, data, passing)
                return parse(data)

        return await self._retried(path, attempt, retries, before)

    async def stream(self, path: str, body: Any, reader: Callable[[], Reader[Result]]) -> Result:
        """One answer, read event by event, and left as soon as it is known.

        Closing the connection tells a server to stop generating.

        Args:
            path: behind the server's URL.
            body: what to send, as JSON.
            reader: makes what puts the events of one attempt together.

        Raises:
            RefusedError: the server says that the request is wrong.
            InputError: no attempt gave a whole, sensible answer.
        """

        async def attempt(http: httpx.AsyncClient) -> Result:
            async with http.stream("POST", self._url(path), content=_encoded(body)) as response:
                if response.status_code != 200:
                    data = await _whole_body(response)
                    self._check_status(path, response, data, PASSING)
                return await _read_events(response, reader())

        return await self._retried(path, attempt, None)

    def _url(self, path: str) -> str:
        return f"{self.options.url}/{path}"

    async def _retried(
        self,
        path: str,
        attempt: Callable[[httpx.AsyncClient], Awaitable[Result]],
        retries: int | None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Result:
        retries = self.options.retries if retries is None else retries
        for number in range(retries + 1):
            if before is not None:
                await before()
            try:
                result = await self._faults_named(attempt)
            except AttemptError as fault:
                reason = self._without_key(str(fault))
                if number == retries:
                    tries = f"{retries + 1} attempts" if retries else "1 attempt"
                    raise InputError(f"{self._url(path)}: {reason} ({tries})") from None
                self._failed_in_a_row += 1
                # A single fault is not worth a word: two in a row are, but only once.
                if self._failed_in_a_row == 2:
                    say(f"{self.options.url}: {reason}; trying again")
                await asyncio.sleep(self.pauses.before(number, fault.asked))
            else:
                if self._failed_in_a_row >= 2:
                    say(f"{self.options.url}: answers again")
                self._failed_in_a_row = 0
                return result
        raise AssertionError

    async def _faults_named(
        self, attempt: Callable[[httpx.AsyncClient], Awaitable[Result]]
    ) -> Result:
        """One attempt; whatever goes wrong on the way to and from the server is an AttemptError."""
        import httpx

        seconds = f"{self.options.timeout:g} s"
        http = self._idle.pop() if self._idle else _http_client(self.options, self._key)
        try:
            result = await attempt(http)
        except AttemptError:
            # There may be more of the answer, which must not be taken for the next one.
            await http.aclose()
            raise
        except httpx.ConnectTimeout:
            within = f"{min(_CONNECT_SECONDS, self.options.timeout):g} s"
            raise AttemptError(f"cannot be reached: no connection within {within}") from None
        except httpx.ConnectError as error:
            raise AttemptError(f"cannot be reached: {_cause(error)}") from None
        except httpx.ReadTimeout:
            raise AttemptError(f"sent nothing for {seconds}") from None
        except httpx.WriteTimeout:
            raise AttemptError(f"took nothing for {seconds}") from None
        except httpx.RemoteProtocolError as error:
            if "isconnected" in str(error) or "closed" in str(error):
                raise AttemptError("closed the connection before its answer was whole") from None
            raise AttemptError("sent what is not HTTP") from None
        except (httpx.ReadError, httpx.WriteError):
            raise AttemptError("closed the connection before its answer was whole") from None
        except httpx.HTTPError as error:
            raise AttemptError(one_line(str(error)) or type(error).__name__) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InputError(f"server.url {self.options.url}: {one_line(str(error))}") from None
        finally:
            if not http.is_closed:
                self._idle.append(http)
        return result

    def _check_status(
        self, path: str, response: httpx.Response, data: bytes, passing: frozenset[int]
    ) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        message = self._without_key(_message(data))
        said = f": {message}" if message else ""
        if status in passing:
            raise AttemptError(f"answered {status}{said}", _asked_pause(response))
        where = self._url(path)
        if 300 <= status < 400:
            target = self._without_key(one_line(response.headers.get("location", "nowhere")))
            raise RefusedError(
                f"{where}: redirects to {target}, which is not followed: expected the server's "
                "own address as server.url",
                status,
                message,
            )
        raise RefusedError(f"{where}: refused with {status}{said}", status, message)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def parse_json(data: bytes) -> Any:
    """The JSON value that an answer is.

    Raises:
        AttemptError: it is none.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        shown = one_line(data[: 4 * _SHOWN].decode("utf-8", errors="replace"), _SHOWN_BRIEFLY)
        raise AttemptError(
            f"expected JSON, sent '{shown}'" if shown else "sent an empty answer"
        ) from None


def one_line(text: str, length: int = _SHOWN) -> str:
    """The first characters of a text, in one line, of printable characters only."""
    words = " ".join(text[: 8 * length].split())
    return "".join(c if c.isprintable() else "?" for c in words[:length])


class EventSplitter:
    """Splits a stream of bytes into the data of its server-sent events.

    https://html.spec.whatwg.org/multipage/server-sent-events.html, of which fields other than
    `data` mean nothing here.

    Attributes:
        found: there was an event.
    """

    def __init__(self) -> None:
        self.found = False
        self._begun = False
        self._rest = b""
        self._data: list[bytes] = []

    def add(self, chunk: bytes) -> list[bytes]:
        """The data of the events that end with this chunk."""
        found = []
        rest = self._rest + chunk
        if not self._begun:
            if len(rest) < 3 and b"\xef\xbb\xbf".startswith(rest):
                self._rest = rest
                return []
            self._begun = True
            rest = rest.removeprefix(b"\xef\xbb\xbf")
        # A carriage return at the end may be the first half of a line's end.
        held = b"\r" if rest.endswith(b"\r") else b""
        *lines, self._rest = _LINE_END.split(rest.removesuffix(held))
        self._rest += held
        for line in lines:
            if not line:
                if self._data:
                    found.append(b"\n".join(self._data))
                    self._data = []
                    self.found = True
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line == b"data":
                self._data.append(b"")
        return found


async def _read_events(response: httpx.Response, reader: Reader[Result]) -> Result:
    splitter = EventSplitter()
    begin = b""
    chunks = response.aiter_bytes()
    async for chunk in chunks:
        begin = begin or chunk
        for data in splitter.add(chunk):
            if data == b"[DONE]":
                raise AttemptError(_CUT_OFF)
            event = parse_json(data)
            if isinstance(event, dict) and event.get("error"):
                raise AttemptError(f"reported an error in its stream: {_message(data)}")
            answer = reader.add(event)
            if answer is not None:
                if reader.ended:
                    await _read_out(chunks)
                return answer
    if not splitter.found:
        shown = one_line(begin.decode("utf-8", errors="replace"), _SHOWN_BRIEFLY)
        raise AttemptError(f"expected a stream of events, sent '{shown}'")
    raise AttemptError(_CUT_OFF)


async def _read_out(chunks: AsyncIterator[bytes]) -> None:
    """Read what is left of a stream that is over, so that its connection can be used again."""
    import httpx

    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(_READ_OUT_SECONDS):
            async for _ in chunks:
                pass


async def _whole_body(response: httpx.Response) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > _MOST_BYTES:
            raise AttemptError(f"sent more than {_MOST_BYTES // 2**20} MiB in one answer")
    return bytes(data)


def _http_client(options: ServerOptions, key: str | None) -> httpx.AsyncClient:
    import httpx

    headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    host = urlsplit(options.url).hostname or ""
    here = host in ("localhost", "::1") or host.startswith("127.")
    return httpx.AsyncClient(
        headers=headers,
        timeout=httpx.Timeout(
            options.timeout, connect=min(_CONNECT_SECONDS, options.timeout), pool=None
        ),
        limits=httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE_SECONDS
        ),
        verify=_certificates() if options.url.startswith("https:") else False,
        # Proxies do not know this machine's own names.
        trust_env=not here,
    )


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; it takes long to read."""
    import httpx

    return httpx.create_ssl_context()


def _api_key(options: ServerOptions) -> str | None:
    name = options.api_key_variable
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(
            f"api_key_variable: expected a key in the environment variable {name}, "
            "which is empty or not set"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"api_key_variable: the key in the environment variable {name} has characters "
            "that keys do not have"
        )
    return key


def _encoded(body: Any) -> bytes | None:
    return None if body is None else json.dumps(body, separators=(",", ":")).encode()


def _message(data: bytes) -> str:
    """A server's own words in one line, out of `{"error": {"message": ...}}` and the like."""
    text = data[:_MOST_MESSAGE].decode("utf-8", errors="replace")
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        for key in ("error", "message", "detail"):
            if isinstance(value, dict) and value.get(key):
                value = value[key]
        text = value if isinstance(value, str) else json.dumps(value)
    return one_line(text)


def _asked_pause(response: httpx.Response) -> float | None:
    """Seconds that `Retry-After` asks for, given as such or as a date."""
    value = response.headers.get("retry-after", "").strip()
    with suppress(ValueError):
        if value.replace(".", "", 1).isdigit():
            return float(value)
        at = parsedate_to_datetime(value)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None


def _cause(error: BaseException) -> str:
    """What the operating system said of a connection that failed."""
    found: BaseException | None = error
    words = str(error)
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            words = found.strerror
            if isinstance(found, ConnectionError) and found.errno is not None:
                words = os.strerror(found.errno)
        found = found.__cause__ or found.__context__
    return one_line(words)
