"""What does a request to a server cost beside the server's own work?

    python benchmarks/server.py

A server in a process of its own answers at once, always the same: 40 tokens with their
log-probabilities as vLLM words them, whole or as a stream with an event a token. The server engine
asks it through the openai library, and by turns others that only send and receive the same bytes:
one httpx client for all, which looks for a free connection at every request; an httpx client per
connection; and sockets that know how long the answer is, the least that there is. What the engine
adds is the library's work, the checks, the text, the offsets and the end of every answer.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2
from machine import RESULTS, Report

from citepipe.generate.completion import Request, SegmentEnd
from citepipe.generate.server import ServerGenerator
from citepipe.models.load import load_tokenizer
from citepipe.options import ModelOptions, ServerOptions

CONCURRENCIES = (1, 16, 64)
_BASE = Path(__file__).parents[1] / "workflow" / "resources" / "miniature-base"
_TOKENS = 40
_SEGMENT = 10
# Heads and lengths of chunks, which httpx does not hand on.
_UNSEEN = 400
_PROMPT = 1000


@dataclass(frozen=True)
class Answers:
    """The bytes of the server's answers, with their headers."""

    models: bytes
    whole: bytes
    streamed: list[bytes]


@dataclass(frozen=True)
class Way:
    """How the server is asked.

    Attributes:
        name: as the report has it.
        size: bytes of an answer, as far as it is read.
        segment_end: what the engine is given; it streams then.
        count: requests in a run.
        left: answers are left in the middle.
    """

    name: str
    size: int
    segment_end: SegmentEnd | None
    count: int
    left: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=640, help="whole answers in a run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, by turns")
    parser.add_argument("--out", type=Path, default=RESULTS / "server.txt")
    arguments = parser.parse_args()
    report = Report(arguments.out, "openai", "httpx2", "httpcore2", "h11")
    tokenizer = load_tokenizer(ModelOptions(base=str(_BASE)))
    answers = _answers(list(range(100, 100 + _TOKENS)), tokenizer.eos_token_id)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(answers, there), daemon=True
    )
    server.start()
    port = here.recv()
    report(
        f"prompts of {_PROMPT} tokens, answers of {_TOKENS}; the server answers at once, in a "
        f"process of its own; middle of {arguments.rounds} runs, by turns"
    )
    whole, streamed = len(answers.whole), sum(map(len, answers.streamed))
    # The head and the events of the tokens that a segment takes.
    segment = sum(map(len, answers.streamed[: 1 + _SEGMENT]))
    for way in (
        Way("whole", whole, None, arguments.requests),
        Way("streamed, an event a token", streamed, lambda text: None, arguments.requests // 4),
        Way(
            f"left after a segment of {_SEGMENT} tokens, with a new connection for the next",
            segment,
            _segment_end,
            arguments.requests // 4,
            left=True,
        ),
    ):
        report()
        report(
            f"{way.name}: {way.size} bytes an answer, {way.count} requests a run; ms a request "
            "(of it processor time of the asking process)"
        )
        for concurrency in CONCURRENCIES:
            _compare(report, port, concurrency, way, arguments.rounds, tokenizer)
    server.terminate()
    return 0


def _segment_end(text: str) -> int | None:
    # The model's tokens are words with the space before them.
    return len(text) if text.count(" ") >= _SEGMENT else None


def _compare(
    report: Report,
    port: int,
    concurrency: int,
    way: Way,
    rounds: int,
    tokenizer: Any,
) -> None:
    count = way.count
    options = ServerOptions(url=f"http://127.0.0.1:{port}/v1", concurrency=concurrency)
    end_id = tokenizer.eos_token_id
    generator = ServerGenerator(options, "base", None, tokenizer, end_id)
    prompt = tuple(50 + i % 100 for i in range(_PROMPT))
    request = Request(prompt, "asqa/1", 200, samples=count, segment_end=way.segment_end)
    data = json.dumps(generator._body(request, 0), separators=(",", ":")).encode()

    def engine() -> None:
        [own] = generator.generate([request])
        assert len(own) == count
        assert {len(c.token_ids) for c in own} == {_SEGMENT if way.left else _TOKENS + 1}

    runs: dict[str, Callable[[], None]] = {
        "sockets": lambda: asyncio.run(_by_sockets(port, data, concurrency, way)),
        "one httpx": lambda: asyncio.run(_by_httpx(options.url, data, concurrency, way, 1)),
        "httpx": lambda: asyncio.run(_by_httpx(options.url, data, concurrency, way, concurrency)),
        "engine": engine,
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            wall, busy = time.perf_counter(), time.process_time()
            run()
            taken[name].append(
                (
                    (time.perf_counter() - wall) * 1e3 / count,
                    (time.process_time() - busy) * 1e3 / count,
                )
            )
    generator.close()
    middle = {name: statistics.median(wall for wall, _ in own) for name, own in taken.items()}
    busy = {name: statistics.median(own for _, own in found) for name, found in taken.items()}
    ratios = [e[0] / h[0] for e, h in zip(taken["engine"], taken["httpx"], strict=True)]
    shown = "  ".join(f"{name} {middle[name]:6.2f} ({busy[name]:5.2f})" for name in runs)
    report(
        f"  {concurrency:2} at once: {shown}  engine/httpx {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}), engine/sockets "
        f"{middle['engine'] / middle['sockets']:.1f}; {1e3 / middle['engine']:.0f} answers/s, "
        f"{(_SEGMENT if way.left else _TOKENS) * 1e3 / middle['engine']:.0f} tokens/s at most"
    )


async def _by_httpx(url: str, data: bytes, concurrency: int, way: Way, number: int) -> None:
    each = concurrency // number
    limits = httpx2.Limits(max_connections=each, max_keepalive_connections=each)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx2.AsyncClient(limits=limits, verify=False, trust_env=False)
            )
            for _ in range(number)
        ]
        numbers = itertools.cycle(range(number))

        async def connect() -> Callable[[], Awaitable[None]]:
            client = clients[next(numbers)]

            async def ask() -> None:
                async with client.stream("POST", f"{url}/completions", content=data) as response:
                    left = way.size
                    async for chunk in response.aiter_raw():
                        left -= len(chunk)
                        if way.left and left <= _UNSEEN:
                            break

            return ask

        await _share(concurrency, way.count, connect)


async def _by_sockets(port: int, data: bytes, concurrency: int, way: Way) -> None:
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    ).encode()

    async def connect() -> Callable[[], Awaitable[None]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def ask() -> None:
            nonlocal reader, writer
            writer.write(head + data)
            await reader.readexactly(way.size)
            if way.left:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)

        return ask

    await _share(concurrency, way.count, connect)


async def _share(
    concurrency: int,
    count: int,
    connect: Callable[[], Awaitable[Callable[[], Awaitable[None]]]],
) -> None:
    """Ask so many times, so many at once."""
    left = iter(range(count))

    async def work() -> None:
        ask = await connect()
        for _ in left:
            await ask()

    await asyncio.gather(*(work() for _ in range(concurrency)))


def _answers(token_ids: list[int], end_id: int) -> Answers:
    """What vLLM says for these tokens and the end of sequence."""

    def choice(ids: list[int], finish: str | None) -> dict[str, Any]:
        words = [f"token_id:{i}" for i in ids]
        return {
            "index": 0,
            "text": " word" * len(ids),
            "logprobs": {
                "text_offset": [5 * i for i in range(len(ids))],
                "token_logprobs": [-0.12345678901234] * len(ids),
                "tokens": words,
                "top_logprobs": [{word: -0.12345678901234} for word in words],
            },
            "finish_reason": finish,
            "stop_reason": None,
            "token_ids": ids,
        }

    def wrapped(choice: dict[str, Any]) -> bytes:
        named = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "base"}
        return json.dumps(named | {"choices": [choice]}).encode()

    ids = [*token_ids, end_id]
    events = [wrapped(choice([i], None if i != end_id else "stop")) for i in ids]
    chunks = [b"data: " + event + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    models = json.dumps({"data": [{"id": "base", "root": "base", "parent": None}]}).encode()
    return Answers(
        models=_with_head(models),
        whole=_with_head(wrapped(choice(ids, "stop"))),
        streamed=[head, *(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks), b"0\r\n\r\n"],
    )


def _with_head(data: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return head.encode() + b"\r\n\r\n" + data


def _serve(answers: Answers, port: Connection) -> None:
    asyncio.run(_answer_for_ever(answers, port))


async def _answer_for_ever(answers: Answers, port: Connection) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    writer.write(answers.models)
                    continue
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                if b'"stream":true' in body:
                    for piece in answers.streamed:
                        if writer.is_closing():
                            return
                        writer.write(piece)
                        await asyncio.sleep(0)
                else:
                    writer.write(answers.whole)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    raise SystemExit(main())
