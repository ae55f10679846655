"""A web server on this machine that can be told to go wrong."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One request, answered by the first thing scripted for its path, or the file there."""

    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append((self.path, dict(self.headers)))
        scripted = self.server.scripted.get(path)
        if scripted:
            scripted.pop(0)(self)
        elif path in self.server.files:
            self.send_file(self.server.files[path])
        else:
            self.send(404, b"not here")

    def send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        """Send an answer; of its body only the first `cut` bytes, and then hang up."""
        self.send_response(status)
        given = {"Content-Length": str(len(body)), **(headers or {})}
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True

    def send_file(
        self, body: bytes, etag: str = '"v1"', cut: int | None = None, ranges: bool = True
    ) -> None:
        """Send a file as a good server does, parts of it included."""
        headers = {"ETag": etag, "Content-Type": "application/octet-stream"}
        wanted = self.headers.get("Range")
        fits = self.headers.get("If-Range") in (None, etag)
        if wanted and fits and ranges:
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            self.send(206, body[first:], headers, cut)
        else:
            self.send(200, body, headers, cut)


class Web(ThreadingHTTPServer):
    """The server.

    Attributes:
        files: what it has, by path.
        scripted: what is done with the next requests for a path, in turn.
        seen: the path and headers of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.scripted: dict[str, list[Answer]] = {}
        self.seen: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is none of its business."""


@contextlib.contextmanager
def running() -> Iterator[Web]:
    """A server for the time of a block."""
    with Web() as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield web
        finally:
            web.shutdown()
            thread.join()
