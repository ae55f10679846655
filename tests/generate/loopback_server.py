"""Servers on this machine with vLLM's API, or one of chat completions, that can fail."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Body = dict[str, Any]
Wrong = Callable[["Handler", Body], None]
"""Answers a request otherwise than a server should."""

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Handler(BaseHTTPRequestHandler):
    """One connection to a server, its `owner`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.owner: Any = self.server.owner
        self.owner.connections.append(self.request)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        self.owner.respond(self, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.owner.requests.append((self.path, headers, body))
        wrong = self.owner.wrong_prompts.get(body.get("prompt", [None])[0])
        if wrong is None and self.owner.wrong and "unload" not in self.path:
            wrong = self.owner.wrong.popleft()
        (wrong or self.owner.respond)(self, body)

    def send(self, status: int, value: Any, *headers: str) -> None:
        """JSON, or a page of text."""
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        kind = "text/html" if isinstance(value, str) else "application/json"
        lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(data)}", *headers]
        self.wfile.write("\r\n".join([*lines, f"Content-Type: {kind}", "", ""]).encode() + data)

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what the tests are about."""


class HttpServer:
    """What both servers share.

    Attributes:
        requests: path, headers and body of every POST.
        wrong: what is done with the next POSTs instead, one by one.
        wrong_prompts: the same by the first token of the prompt, always.
        connections: sockets of all clients so far.
        over: set when the test is.
    """

    respond: Wrong
    port = 0

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Body]] = []
        self.wrong: deque[Wrong] = deque()
        self.wrong_prompts: dict[int | None, Wrong] = {}
        self.over = threading.Event()
        self.start()

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self.connections: list[socket.socket] = []
        self.listener = _Listener(("127.0.0.1", self.port), Handler)
        self.listener.owner = self
        self.port = self.listener.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.listener.serve_forever, args=(0.005,), daemon=True).start()

    def die(self) -> None:
        """Drop every connection and listen no more."""
        threading.Thread(target=self.listener.shutdown, daemon=True).start()
        for connection in (self.listener.socket, *self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.listener.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.die()


class ChatServer(HttpServer):
    """An endpoint of chat completions, which `answer` makes from a request's body."""

    def __init__(self) -> None:
        self.answer: Callable[[Body], Any] = lambda _: chat(" Yes [1].\nMore.")
        self.respond = lambda handler, body: handler.send(200, self.answer(body))
        super().__init__()


def chat(text: Any, finish: str | None = "stop", usage: tuple[int, int] | None = (100, 10)) -> Body:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    value: Body = {"choices": [{"message": message, "finish_reason": finish}]}
    if usage is not None:
        value["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return value


class LoopbackServer(HttpServer):
    """Serves completions as vLLM does.

    Attributes:
        answer: tokens with their log-probabilities for a request's body; it may go on for ever.
        decode: from token ids to text.
        end_id: the model's end of sequence.
        model: the name that it is served under; `root` is what was loaded.
        adapters: paths by name.
        left: counts clients that left in the middle of a stream.
    """

    def __init__(
        self,
        answer: Callable[[Body], Iterable[tuple[int, float]]],
        decode: Callable[[list[int]], str],
        end_id: int,
        root: str = "base",
    ) -> None:
        self.answer, self.decode, self.end_id = answer, decode, end_id
        self.model, self.root = "base", root
        self.adapters: dict[str, str] = {}
        self.left = threading.Semaphore(0)
        self.respond = self.serve
        super().__init__()

    @property
    def bodies(self) -> list[Body]:
        """Of every request for a completion."""
        return [body for path, _, body in self.requests if path == "/v1/completions"]

    def serve(self, handler: Handler, body: Body) -> None:
        name, path = body.get("lora_name", ""), handler.path.removeprefix("/v1/")
        if path == "models":
            own = [{"id": n, "root": p, "parent": self.model} for n, p in self.adapters.items()]
            handler.send(200, {"data": [*own, {"id": self.model, "root": self.root}]})
        elif path == "unload_lora_adapter":
            self.adapters.pop(name, None)
            handler.send(200, "Success")
        elif path == "load_lora_adapter" and name in self.adapters:
            message = f"The lora adapter '{name}' has already been loaded."
            handler.send(400, {"error": {"message": message}})
        elif path == "load_lora_adapter":
            self.adapters[name] = body["lora_path"]
            handler.send(200, "Success: LoRA adapter added.")
        elif path != "completions":
            handler.send(404, {"detail": "Not Found"})
        elif body["model"] not in (self.model, *self.adapters):
            handler.send(404, {"error": {"message": f"`{body['model']}` does not exist."}})
        elif body["stream"]:
            self.send_stream(handler, body)
        else:
            handler.send(200, self.completion(body))

    def pieces(self, body: Body) -> Iterator[Body]:
        """What a stream sends, a token a time; the last has a finish reason."""
        ids: list[int] = []
        shown, finish = "", None
        for token_id, log_prob in self.answer(body):
            ids.append(token_id)
            ended = token_id in (self.end_id, *body["stop_token_ids"])
            text = self.decode(ids[:-1] if ended else ids)
            text = shown if text.endswith("\ufffd") else text
            reason = token_id if ended and token_id != self.end_id else None
            stops = [] if ended else [s for s in body["stop"] if s in text]
            if stops:
                text, reason = text[: text.find(stops[0])], stops[0]
            if ended or stops or len(ids) == body["max_tokens"]:
                finish = "stop" if ended or stops else "length"
            piece = {"text": text[len(shown) :], "finish_reason": finish, "stop_reason": reason}
            shown = text
            yield piece | {"token_ids": [token_id], "logprobs": {"token_logprobs": [log_prob]}}
            if finish is not None:
                return

    def completion(self, body: Body, **changes: Any) -> Body:
        """A whole answer, with changes in its only choice."""
        pieces = list(self.pieces(body))
        choice = pieces.pop()
        for piece in reversed(pieces):
            choice["text"] = piece["text"] + choice["text"]
            choice["token_ids"][:0] = piece["token_ids"]
            choice["logprobs"]["token_logprobs"][:0] = piece["logprobs"]["token_logprobs"]
        return {"choices": [choice | changes]}

    def send_stream(self, handler: Handler, body: Body, most: int | None = None) -> None:
        """Stream the answer, or its first events."""
        handler.wfile.write(CHUNKED)
        try:
            for piece in itertools.islice(self.pieces(body), most):
                handler.send_chunk(b"data: %s\n\n" % json.dumps({"choices": [piece]}).encode())
        except OSError:
            self.left.release()
            raise
        for event in (b"data: [DONE]\n\n", b"") if most is None else ():
            handler.send_chunk(event)


def status(code: int, value: Any, *headers: str) -> Wrong:
    """A status with JSON, or with a page of text."""
    return lambda handler, body: handler.send(code, value, *headers)


def raw(data: bytes, drop: bytes | None = None) -> Wrong:
    """Bytes that need not be HTTP, then the end, or drops until the test is over."""

    def wrong(handler: Handler, body: Body) -> None:
        handler.close_connection = True
        handler.wfile.write(data)
        until = time.monotonic() + (0 if drop is None else 20)
        while time.monotonic() < until and not handler.owner.over.wait(0.02):
            handler.wfile.write(drop or b"")

    return wrong


def changed(**fields: Any) -> Wrong:
    """An answer whose only choice has other values."""
    return lambda handler, body: handler.send(200, handler.owner.completion(body, **fields))


def stream_of(*events: bytes, first: int = 0, is_whole: bool = True) -> Wrong:
    """The first events of the right stream and then others; it ends properly or breaks off."""

    def wrong(handler: Handler, body: Body) -> None:
        handler.owner.send_stream(handler, body, first)
        for event in (*events, b"") if is_whole else events:
            handler.send_chunk(event)
        handler.close_connection = not is_whole

    return wrong
