"""A client of OpenAI-compatible servers: many requests at once, in bounded time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai
from pydantic import ValidationError

from citepipe.errors import InputError
from citepipe.options import APIOptions

Item = TypeVar("Item")
Result = TypeVar("Result")


class BrokenAnswerError(Exception):
    """An answer came that cannot be used; another attempt may do better."""


class RefusedError(InputError):
    """The server answered with a failure: its HTTP status, and its message in one line."""

    def __init__(self, url: str, status: int, words: str) -> None:
        super().__init__(f"{url}: answered {status}: {words}")
        self.url = url
        self.status = status
        self.words = words


class Client:
    """A client of one server, with an event loop: called from ordinary code.

    The `openai` library repeats what fails before there is an answer (408, 409, 429, 5xx, no
    connection), with pauses that grow or that the server sets (`Retry-After`, up to two minutes).
    Redirects are not followed. The API key goes into a header and nowhere else.

    Attributes:
        api: the library's client.
        key: the API key, or an empty string.

    Args:
        options: where the server is, and how patiently it is queried.
        runner: the event loop, if it is shared by several clients; it is not closed with them.
    """

    def __init__(self, options: APIOptions, runner: asyncio.Runner | None = None) -> None:
        self.options = options
        self.key = _api_key(options.api_key_variable)
        # Proxies do not know this machine's own names.
        is_here = urlsplit(options.url).hostname in ("localhost", "127.0.0.1", "::1")
        self.api = openai.AsyncOpenAI(
            base_url=options.url,
            # Without any, the library would send the one of the environment.
            api_key=self.key or "none",
            max_retries=options.retries,
            timeout=httpx2.Timeout(options.timeout, connect=min(10, options.timeout), pool=None),
            http_client=httpx2.AsyncClient(limits=httpx2.Limits(), trust_env=not is_here),
        )
        self._runner = runner or asyncio.Runner()
        self._is_shared = runner is not None

    def close(self) -> None:
        """Close every connection."""
        self.run(self.api.close())
        if not self._is_shared:
            self._runner.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for work that queries the server; where a loop runs already (a notebook, an agent
        loop, a server of rewards), in a thread."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._runner.run(work)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._runner.run, work).result()

    async def attempt(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """What some work returns that sends a request, begun anew if it meets a broken answer.

        All attempts together take `timeout` times their number at most: the library's own limit is
        on the time between two bytes, which a server can draw out without end.

        Raises:
            RefusedError: the server answered with a status of failure, for good.
            InputError: no attempt had a whole answer.
        """
        url, retries, seconds = self.options.url, self.options.retries, self.options.timeout
        try:
            async with asyncio.timeout(seconds * (retries + 1)):
                for number in range(retries):
                    # Of JSON and of pydantic the errors are ValueErrors.
                    with suppress(BrokenAnswerError, ValueError, RecursionError):
                        return await work()
                    await asyncio.sleep(min(0.5 * 2.0**number, 8.0))
                return await work()
        except openai.APIStatusError as error:
            body = error.body
            if isinstance(body, dict):
                body = body.get("message") or body.get("detail") or body
            target = error.response.headers.get("location")
            words = f"redirects to {target}" if target else str(body or "no message")
            raise RefusedError(url, error.status_code, self._one_line(words)) from None
        except (openai.APITimeoutError, TimeoutError):
            problem = f"gave no whole answer in {retries + 1} attempts of {seconds:g} s"
        except openai.APIConnectionError as error:
            problem = f"gave no answer: {error.__cause__ or error}"
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            place = ".".join(map(str, found["loc"]))
            problem = f"sent '{str(found['input'])[:60]}', {place}: {found['msg']}"
        except BrokenAnswerError as error:
            problem = str(error)
        except (ValueError, RecursionError):
            problem = "sent no JSON"
        raise InputError(f"{url}: {self._one_line(problem)}")

    def _one_line(self, text: str) -> str:
        """The first characters of a text without the key, in one line of printable characters."""
        text = text.replace(self.key, "***") if self.key else text
        words = " ".join(text[:2000].split())[:200]
        return "".join(c if c.isprintable() else "?" for c in words)


async def each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], at_once: int
) -> None:
    """Do some work for every item, so many at once.

    Nothing is begun after a first failure, but what is under way goes on to its own end before that
    is raised.
    """
    waiting = iter(items)
    failures: list[Exception] = []

    async def go_on() -> None:
        for item in waiting:
            try:
                await work(item)
            except Exception as error:
                failures.append(error)
            if failures:
                return

    async with asyncio.TaskGroup() as workers:
        for _ in range(at_once):
            workers.create_task(go_on())
    if failures:
        raise failures[0]


def _api_key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise InputError(
            f"api_key_variable: expected a key in the environment variable {variable}, which is "
            "not set, empty, or has characters that keys do not have"
        )
    return key
