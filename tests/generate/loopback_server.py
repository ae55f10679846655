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

Answer = Callable[[dict[str, Any]], Iterable[tuple[int, float]]]
"""From the body of a request to its tokens with their log-probabilities, without an end."""

Wrong = Callable[["Handler", dict[str, Any]], None]
"""Answers a request otherwise than a server should."""

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        self.server.owner.respond(self, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.server.owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        owner.requests.append((self.path, headers, body))
        wrong = owner.wrong_prompts.get(body.get("prompt", [None])[0])
        if wrong is None and owner.wrong and "unload" not in self.path:
            wrong = owner.wrong.popleft()
        (wrong or owner.respond)(self, body)

    def send(self, status: int, value: Any, *headers: str) -> None:
        """JSON, or a page of text."""
        is_page = isinstance(value, str)
        data = value.encode() if is_page else json.dumps(value).encode()
        lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(data)}", *headers]
        lines.append(f"Content-Type: {'text/html' if is_page else 'application/json'}")
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + data)

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: HttpServer, port: int) -> None:
        self.owner = owner
        self.is_dead = False
        self.connections: list[Any] = []
        super().__init__(("127.0.0.1", port), Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.connections.append(request)
        return not self.is_dead

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what the tests are about."""


class HttpServer:
    """What both servers share.

    Attributes:
        requests: path, headers and body of every POST.
        wrong: what is done with the next POSTs instead, one by one.
        wrong_prompts: the same by the first token of the prompt, always.
        over: set when the test is.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.wrong: deque[Wrong] = deque()
        self.wrong_prompts: dict[int | None, Wrong] = {}
        self.over = threading.Event()
        self.port = 0
        self.start()

    def respond(self, handler: Handler, body: dict[str, Any]) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self.listener = _Listener(self, self.port)
        self.port = self.listener.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.listener.serve_forever, args=(0.005,), daemon=True).start()

    def die(self) -> None:
        """Drop every connection and listen no more."""
        self.listener.is_dead = True
        threading.Thread(target=self.listener.shutdown, daemon=True).start()
        self.listener.socket.close()
        for connection in self.listener.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.die()


class ChatServer(HttpServer):
    """An endpoint of chat completions, which `answer` makes from a request's body."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Any] = lambda _: chat(" Yes [1].\nMore.")
        super().__init__()

    def respond(self, handler: Handler, body: dict[str, Any]) -> None:
        handler.send(200, self.answer(body))


def chat(
    text: Any, finish: str | None = "stop", usage: tuple[int, int] | None = (100, 10)
) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    value: dict[str, Any] = {"choices": [{"message": message, "finish_reason": finish}]}
    if usage is not None:
        value["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return value


class LoopbackServer(HttpServer):
    """Serves completions as vLLM does.

    Attributes:
        answer: what the model generates; it may go on for ever.
        decode: from token ids to text.
        end_id: the model's end of sequence.
        has_ids: token ids are returned.
        left: counts clients that left in the middle of a stream.
    """

    def __init__(
        self,
        answer: Answer,
        decode: Callable[[list[int]], str],
        end_id: int,
        model: str = "base",
        root: str = "base",
        has_ids: bool = True,
        adapters_by_request: bool = True,
    ) -> None:
        self.answer, self.decode, self.end_id = answer, decode, end_id
        self.model, self.root, self.has_ids = model, root, has_ids
        self.adapters_by_request = adapters_by_request
        self.adapters: dict[str, str] = {}
        self.left = threading.Semaphore(0)
        super().__init__()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """Of every request for a completion."""
        return [body for path, _, body in self.requests if path == "/v1/completions"]

    def respond(self, handler: Handler, body: dict[str, Any]) -> None:
        name, path = body.get("lora_name", ""), handler.path.removeprefix("/v1/")
        if path == "models":
            own = [{"id": n, "root": p, "parent": self.model} for n, p in self.adapters.items()]
            own.append({"id": self.model, "root": self.root, "parent": None})
            handler.send(200, {"object": "list", "data": own})
        elif path == "unload_lora_adapter":
            self.adapters.pop(name, None)
            handler.send(200, "Success")
        elif path == "load_lora_adapter" and name in self.adapters:
            message = f"The lora adapter '{name}' has already been loaded."
            handler.send(400, {"error": {"message": message, "code": 400}})
        elif path == "load_lora_adapter" and self.adapters_by_request:
            self.adapters[name] = body["lora_path"]
            handler.send(200, "Success: LoRA adapter added.")
        elif path != "completions":
            handler.send(404, {"detail": "Not Found"})
        elif body["model"] not in (self.model, *self.adapters):
            message = f"The model `{body['model']}` does not exist."
            handler.send(404, {"error": {"message": message, "code": 404}})
        elif body["stream"]:
            self.send_stream(handler, body)
        else:
            handler.send(200, self.completion(body))

    def pieces(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What a stream sends, a token a time; the last has a finish reason."""
        ids: list[int] = []
        shown = ""
        for token_id, log_prob in self.answer(body):
            ids.append(token_id)
            ended = token_id in (self.end_id, *body["stop_token_ids"])
            text = self.decode(ids[:-1] if ended else ids)
            text = shown if text.endswith("\ufffd") else text
            stops = [s for s in body["stop"] if s in text]
            finish = reason = None
            if ended:
                finish, reason = "stop", None if token_id == self.end_id else token_id
            elif stops:
                finish, reason = "stop", stops[0]
                text = text[: text.find(stops[0])]
            elif len(ids) == body["max_tokens"]:
                finish = "length"
            piece = {"text": text[len(shown) :], "finish_reason": finish, "stop_reason": reason}
            if self.has_ids:
                piece |= {"token_ids": [token_id], "logprobs": {"token_logprobs": [log_prob]}}
            shown = text
            yield piece
            if finish is not None:
                return

    def completion(self, body: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """A whole answer, with changes in its only choice."""
        pieces = list(self.pieces(body))
        choice: dict[str, Any] = {**pieces[-1], "text": "".join(p["text"] for p in pieces)}
        if self.has_ids:
            log_probs = [x for p in pieces for x in p["logprobs"]["token_logprobs"]]
            choice["token_ids"] = [i for p in pieces for i in p["token_ids"]]
            choice["logprobs"] = {"token_logprobs": log_probs}
        return {"object": "text_completion", "choices": [choice | changes]}

    def send_stream(self, handler: Handler, body: dict[str, Any], most: int | None = None) -> None:
        """Stream the answer, or its first events."""
        handler.wfile.write(CHUNKED)
        try:
            for piece in itertools.islice(self.pieces(body), most):
                handler.send_chunk(b"data: %s\n\n" % json.dumps({"choices": [piece]}).encode())
        except OSError:
            self.left.release()
            raise
        if most is None:
            handler.send_chunk(b"data: [DONE]\n\n")
            handler.send_chunk(b"")


def status(code: int, value: Any, *headers: str) -> Wrong:
    """A status with JSON, or with a page of text."""
    return lambda handler, body: handler.send(code, value, *headers)


def raw(data: bytes, drop: bytes | None = None) -> Wrong:
    """Bytes that need not be HTTP, then the end, or drops until the test is over."""

    def wrong(handler: Handler, body: dict[str, Any]) -> None:
        handler.wfile.write(data)
        until = time.monotonic() + (0 if drop is None else 20)
        while time.monotonic() < until and not handler.server.owner.over.wait(0.02):
            handler.wfile.write(drop or b"")
        handler.hang_up()

    return wrong


def changed(**fields: Any) -> Wrong:
    """An answer whose only choice has other values."""
    return lambda handler, body: handler.send(200, _owner(handler).completion(body, **fields))


def stream_of(*events: bytes, first: int = 0, is_whole: bool = True) -> Wrong:
    """The first events of the right stream and then others; it ends properly or breaks off."""

    def wrong(handler: Handler, body: dict[str, Any]) -> None:
        _owner(handler).send_stream(handler, body, first)
        for event in (*events, b"") if is_whole else events:
            handler.send_chunk(event)
        if not is_whole:
            handler.hang_up()

    return wrong


def _owner(handler: Handler) -> LoopbackServer:
    assert isinstance(handler.server.owner, LoopbackServer)
    return handler.server.owner
