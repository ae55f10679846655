"""The report behind a local server: the page, its answers from disk, and a file of verdicts."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse
from pydantic import Field, TypeAdapter
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from citepipe.data.files import read_jsonl, write_jsonl
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.report.page import as_json
from citepipe.scoring.labels import Label

LOCAL = ("127.0.0.1", "localhost", "::1")
CONNECTIONS = 32
"""At a time."""
LONGEST = 4_000_000
"""Bytes of a verdict, of which the sentence is most."""
QUESTION = 1000
"""Characters of one that is asked."""


class Kept(Label, extra="allow"):
    """A person's verdict, with what else the page says of the sentence."""

    comment: str = Field("", max_length=10_000)


class Labels:
    """A file of verdicts, one per sentence; written whole with each. InputError if it is bad."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[tuple[Any, ...], Kept] = {}
        of_file = TypeAdapter(Kept)
        for number, line in enumerate(read_jsonl(path) if path.exists() else [], start=1):
            self._put(validated(of_file, line, f"{path}, verdict {number}"))

    def _put(self, label: Kept) -> None:
        key = (label.dataset, label.id, label.system, label.seed, label.statement)
        self._kept[key] = label

    def add(self, label: Kept) -> None:
        """Keep a verdict, in the place of an earlier one on the same sentence; ValueError if it
        could not be read again."""
        self._put(Kept.model_validate_json(label.model_dump_json()))
        write_jsonl(self._path, [own.model_dump() for own in self._kept.values()])

    def text(self) -> str:
        """All of them, a JSON object per line."""
        return "\n".join(own.model_dump_json() for own in self._kept.values())


def write_data(content: Any, folder: Path) -> Path:
    """Write the answers, compressed, for the page's script."""
    path = folder / "data.json.gz"
    with gzip.open(path, "wb", compresslevel=3) as stream:
        stream.write(as_json(content))
    return path


def app(
    html: str,
    data: Path,
    labels: Labels,
    token: str | None,
    answer: Callable[[str], str] | None = None,
) -> FastAPI:
    """The server; with a token nobody gets anything who has not named it once. `answer` makes a
    page of a question."""
    made = FastAPI(openapi_url=None)
    answering = Lock()
    if token is None:
        # A name that somebody else's pages give this machine is not one of it.
        made.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL, "[::1]"])

    @made.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        named = request.query_params.get("token", "")
        if token is not None and secrets.compare_digest(named.encode(), token.encode()):
            response = RedirectResponse("/")
            response.set_cookie("token", token, httponly=True, samesite="strict")
            return response
        known = request.cookies.get("token", "").encode()
        if token is not None and not secrets.compare_digest(known, token.encode()):
            return PlainTextResponse("expected the address with the token\n", 401)
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return PlainTextResponse("expected a request of this page\n", 403)
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not (length.isdecimal() and int(length) <= LONGEST):
            return PlainTextResponse(f"expected at most {LONGEST} bytes\n", 413)
        return await go_on(request)

    @made.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(html)

    @made.get("/data")
    def answers() -> FileResponse:
        return FileResponse(
            data, headers={"Content-Encoding": "gzip"}, media_type="application/json"
        )

    @made.get("/labels")
    def kept() -> PlainTextResponse:
        return PlainTextResponse(labels.text())

    @made.post("/labels")
    async def keep(label: Kept) -> dict[str, bool]:
        # One at a time: this has no `await` in it.
        try:
            labels.add(label)
        except ValueError:
            raise HTTPException(422, "expected a verdict that can be written") from None
        return {"kept": True}

    @made.get("/ask")
    def ask(question: Annotated[str, Query(min_length=1, max_length=QUESTION)]) -> Response:
        if answer is None:
            return PlainTextResponse("expected a server with --docs\n", 404)
        if not answering.acquire(blocking=False):
            return PlainTextResponse("another question is being answered: ask again\n", 503)
        try:
            return HTMLResponse(answer(question))
        except InputError as error:
            return PlainTextResponse(f"{error}\n", 400)
        finally:
            answering.release()

    return made
