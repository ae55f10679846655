"""An endpoint of chat completions on this machine that can be told to go wrong."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Wrong = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers), body))
            wrong = self.server.wrong.pop(0) if self.server.wrong else None
        if wrong is not None:
            wrong(self)
        else:
            self.reply(self.server.answer(body))

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        """Send a JSON value."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.close_connection = True


def completion(
    text: str | None, finish: str = "stop", usage: tuple[int, int] | None = (100, 10)
) -> dict[str, Any]:
    """A chat completion."""
    value: dict[str, Any] = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]
    }
    if usage is not None:
        value["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return value


class Server(ThreadingHTTPServer):
    """The endpoint.

    Attributes:
        answer: from a request's body to what is sent.
        wrong: what is done instead with the next requests, in turn.
        asked: path, headers and body of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.answer: Callable[[dict[str, Any]], Any] = lambda _: completion(" Yes [1].\nMore.")
        self.wrong: list[Wrong] = []
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def url(self) -> str:
        """What the paths begin with."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is none of its business."""


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """An endpoint for the time of a block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
