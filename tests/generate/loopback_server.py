"""A server with vLLM's API on this machine, which can be told to go wrong."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Token = tuple[int, float]
Answer = Callable[[dict[str, Any]], Iterable[Token]]
"""From the body of a request to its tokens with their log-probabilities, without an end."""

Wrong = Callable[["Handler", dict[str, Any]], None]
"""Answers a request otherwise than a server should."""

ID_STYLES = ("token_ids", "marked", "none")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.request)
        if self.server.is_dead:
            self.hang_up()

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def do_GET(self) -> None:
        self.server.headers_seen.append(dict(self.headers))
        loop = self.server.owner
        if loop.wrong_models is not None:
            loop.wrong_models(self, {})
        elif self.path == "/v1/models":
            self.send_json(200, {"object": "list", "data": loop.models()})
        else:
            self.send_json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        loop = self.server.owner
        self.server.headers_seen.append(dict(self.headers))
        if self.path == "/v1/load_lora_adapter":
            loop.load(self, body)
        elif self.path == "/v1/unload_lora_adapter":
            loop.adapters.pop(body["lora_name"], None)
            loop.unloaded.append(body["lora_name"])
            self.send_bytes(200, b"Success", "text/plain")
        elif self.path == "/v1/completions":
            loop.complete(self, body)
        else:
            self.send_json(404, {"detail": "Not Found"})

    def send_json(self, status: int, value: Any, *headers: str) -> None:
        self.send_bytes(status, json.dumps(value).encode(), "application/json", *headers)

    def send_bytes(
        self, status: int, data: bytes, kind: str, *headers: str, length: int | None = None
    ) -> None:
        """A whole answer; `length` is what it says of its length."""
        lines = [
            f"HTTP/1.1 {status} Words",
            f"Content-Type: {kind}",
            f"Content-Length: {len(data) if length is None else length}",
            *headers,
        ]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + data)

    def send_raw(self, data: bytes) -> None:
        """Bytes, then the end of the connection."""
        self.wfile.write(data)
        self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)

    def begin_stream(self) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: LoopbackServer, port: int) -> None:
        self.owner = owner
        self.is_dead = False
        self.connections: list[socket.socket] = []
        self.headers_seen = owner.headers_seen
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what the tests are about."""


class LoopbackServer:
    """Serves completions.

    Args:
        answer: what the model says; it may go on for ever.
        decode: from token ids to text.
        end_id: the model's end of sequence.
        ids: how token ids are told: in `token_ids`, as marked words among the log-probabilities
            (older servers), or not at all.

    Attributes:
        bodies: of every request for a completion.
        wrong: what is done with the next requests instead, one by one.
        wrong_prompts: the same by the first token of the prompt, always.
        left: counts clients that left in the middle of a stream.
    """

    def __init__(
        self,
        answer: Answer,
        decode: Callable[[list[int]], str],
        end_id: int,
        model: str = "base",
        root: str = "base",
        ids: str = "token_ids",
        adapters_by_request: bool = True,
    ) -> None:
        assert ids in ID_STYLES
        self.answer, self.decode, self.end_id = answer, decode, end_id
        self.model, self.root, self.ids = model, root, ids
        self.adapters_by_request = adapters_by_request
        self.adapters: dict[str, str] = {}
        self.unloaded: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.wrong: deque[Wrong] = deque()
        self.wrong_prompts: dict[int, Wrong] = {}
        self.wrong_models: Wrong | None = None
        self.left = threading.Semaphore(0)
        self.released = threading.Event()
        self._server: Server | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        server = self._server = Server(self, self.port)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()

    def die(self) -> None:
        """Drop every connection and listen no more."""
        server = self._server
        if server is None:
            return
        self._server = None
        server.is_dead = True
        threading.Thread(target=server.shutdown, daemon=True).start()
        server.socket.close()
        for connection in server.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> LoopbackServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self.die()

    def models(self) -> list[dict[str, Any]]:
        adapters = [
            {"id": name, "root": path, "parent": self.model} for name, path in self.adapters.items()
        ]
        return [*adapters, {"id": self.model, "root": self.root, "parent": None}]

    def load(self, handler: Handler, body: dict[str, Any]) -> None:
        name = body["lora_name"]
        if not self.adapters_by_request:
            handler.send_json(404, {"detail": "Not Found"})
        elif name in self.adapters:
            message = f"The lora adapter '{name}' has already been loaded."
            handler.send_json(400, {"error": {"message": message, "code": 400}})
        elif self.wrong:
            self.wrong.popleft()(handler, body)
        else:
            self.adapters[name] = body["lora_path"]
            handler.send_bytes(200, b"Success: LoRA adapter added.", "text/plain")

    def complete(self, handler: Handler, body: dict[str, Any]) -> None:
        self.bodies.append(body)
        wrong = self.wrong_prompts.get(body["prompt"][0])
        if wrong is None and self.wrong:
            wrong = self.wrong.popleft()
        if wrong is not None:
            wrong(handler, body)
        elif body["model"] not in (self.model, *self.adapters):
            message = f"The model `{body['model']}` does not exist."
            handler.send_json(404, {"error": {"message": message, "code": 404}})
        elif body.get("stream"):
            self.send_stream(handler, body)
        else:
            handler.send_json(200, self.completion(body))

    def pieces(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What a stream says, a token a time; the last has a finish reason."""
        ids: list[int] = []
        shown = ""
        for token_id, log_prob in self.answer(body):
            ids.append(token_id)
            ended = token_id in (self.end_id, *body["stop_token_ids"])
            text = self.decode(ids[:-1] if ended else ids)
            if text.endswith("\ufffd"):
                text = shown
            stops = [s for s in body["stop"] if s in text]
            finish = reason = None
            if ended:
                finish = "stop"
                reason = None if token_id == self.end_id else token_id
            elif stops:
                finish, reason = "stop", stops[0]
                text = text[: text.find(stops[0])]
            elif len(ids) == body["max_tokens"]:
                finish = "length"
            piece = {
                "index": 0,
                "text": text[len(shown) :],
                "finish_reason": finish,
                "stop_reason": reason,
                **self.told([token_id], [log_prob]),
            }
            shown = text
            yield piece
            if finish is not None:
                return

    def told(self, ids: list[int], log_probs: list[float]) -> dict[str, Any]:
        if self.ids == "none":
            return {"logprobs": None}
        known: dict[str, Any] = {"token_logprobs": log_probs}
        known["tokens"] = [f"token_id:{i}" for i in ids]
        return {"logprobs": known} | ({"token_ids": ids} if self.ids == "token_ids" else {})

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        pieces = list(self.pieces(body))
        choice: dict[str, Any] = {**pieces[-1], "text": "".join(p["text"] for p in pieces)}
        if self.ids != "none":
            log_probs = [x for p in pieces for x in p["logprobs"]["token_logprobs"]]
            words = [x for p in pieces for x in p["logprobs"]["tokens"]]
            choice |= self.told([int(w.removeprefix("token_id:")) for w in words], log_probs)
        return {"object": "text_completion", "model": body["model"], "choices": [choice]}

    def events(self, body: dict[str, Any]) -> Iterator[bytes]:
        for piece in self.pieces(body):
            yield b"data: " + json.dumps({"choices": [piece]}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    def send_stream(
        self, handler: Handler, body: dict[str, Any], events: int | None = None
    ) -> None:
        """Stream the answer, or its first events."""
        handler.begin_stream()
        try:
            for event in itertools.islice(self.events(body), events):
                handler.send_chunk(event)
        except OSError:
            self.left.release()
            raise
        if events is None:
            handler.send_chunk(b"")


def status(code: int, value: Any, *headers: str) -> Wrong:
    """An HTTP error."""
    return lambda handler, body: handler.send_json(code, value, *headers)


def page(text: str, code: int = 200) -> Wrong:
    """A page in place of JSON."""
    return lambda handler, body: handler.send_bytes(code, text.encode(), "text/html")


def raw(data: bytes) -> Wrong:
    """Bytes that need not be HTTP, then the end of the connection."""
    return lambda handler, body: handler.send_raw(data)


def silent(begin: bytes = b"") -> Wrong:
    """Some bytes, then nothing until the test is over."""

    def wrong(handler: Handler, body: dict[str, Any]) -> None:
        handler.wfile.write(begin)
        handler.server.owner.released.wait(20)
        handler.hang_up()

    return wrong


def lying(change: int) -> Wrong:
    """A whole answer that says it is longer, then silence, or shorter, then the end."""

    def wrong(handler: Handler, body: dict[str, Any]) -> None:
        data = json.dumps(handler.server.owner.completion(body)).encode()
        handler.send_bytes(200, data, "application/json", length=len(data) + change)
        if change > 0:
            silent()(handler, body)
        handler.hang_up()

    return wrong


def half(handler: Handler, body: dict[str, Any]) -> None:
    """Half of an answer of the announced length, then the end of the connection."""
    data = json.dumps(handler.server.owner.completion(body)).encode()
    handler.send_bytes(200, data[: len(data) // 2], "application/json", length=len(data))
    handler.hang_up()


def changed(**fields: Any) -> Wrong:
    """An answer whose only choice has other values; None removes a field."""

    def wrong(handler: Handler, body: dict[str, Any]) -> None:
        value = handler.server.owner.completion(body)
        choice = value["choices"][0]
        for name, new in fields.items():
            choice[name] = new(choice[name]) if callable(new) else new
        handler.send_json(200, value)

    return wrong


def choices(count: int) -> Wrong:
    """An answer with another number of choices."""

    def wrong(handler: Handler, body: dict[str, Any]) -> None:
        value = handler.server.owner.completion(body)
        handler.send_json(200, value | {"choices": value["choices"] * count})

    return wrong


def stream_of(*events: bytes, first: int = 0, close: bool = False, quiet: bool = False) -> Wrong:
    """The first events of the right stream and then others; it ends properly, breaks off, or
    goes on in silence."""

    def wrong(handler: Handler, body: dict[str, Any]) -> None:
        handler.server.owner.send_stream(handler, body, first)
        for event in events:
            handler.send_chunk(event)
        if quiet:
            silent()(handler, body)
        if close:
            handler.hang_up()
        else:
            handler.send_chunk(b"")

    return wrong
