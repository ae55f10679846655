"""What the client does on its own, apart from any generator."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import ValidationError

from citepipe.errors import InputError
from citepipe.generate.client import (
    AttemptError,
    Client,
    EventSplitter,
    Pauses,
    RefusedError,
    parse_json,
)
from citepipe.options import ServerOptions
from tests.generate.loopback_server import LoopbackServer, page, status

QUICK = Pauses(first=0.001, longest=0.002)


def make_server() -> LoopbackServer:
    return LoopbackServer(lambda body: [(0, 0.0)], str, end_id=0)


def ask(client: Client, path: str = "completions", **settings: Any) -> Any:
    body = {"prompt": [1], "model": "base", "max_tokens": 1, "stop": [], "stop_token_ids": []}
    return client.run(client.ask("POST", path, parse_json, body, **settings))


STREAM = (
    b"\xef\xbb\xbf: a comment\r\n"
    b'data: {"a": "\xc3\xbc"}\r\n\r\n'
    b"event: odd\rid: 7\rdata:two\rdata: lines\r\r"
    b"\n\n\ndata\n\nretry: 3\n\ndata: [DONE]\n\ndata: never ended"
)
EVENTS = ['{"a": "ü"}'.encode(), b"two\nlines", b"", b"[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_events_are_the_same_wherever_the_stream_is_cut(size: int) -> None:
    splitter = EventSplitter()
    chunks = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    assert [event for chunk in chunks for event in splitter.add(chunk)] == EVENTS


def test_pauses_double_to_their_longest_and_honour_what_is_asked() -> None:
    pauses = Pauses(first=1.0, longest=10.0, longest_asked=60.0)
    for retry, whole in enumerate([1.0, 2.0, 4.0, 8.0, 10.0, 10.0]):
        drawn = [pauses.before(retry, None) for _ in range(200)]
        assert whole / 2 <= min(drawn) < max(drawn) <= whole
    assert pauses.before(2000, None) <= 10.0
    assert pauses.before(0, 30.0) == 30.0
    assert pauses.before(0, 3600.0) == 60.0
    assert 0.5 <= pauses.before(0, 0.0) <= 1.0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000/v1", "expected an http or https URL"),
        ("ftp://host/v1", "expected an http or https URL"),
        ("http://ho st/v1", "expected an http or https URL"),
        ("http:///v1", "expected an http or https URL"),
        ("http://host:99999/v1", "expected an http or https URL"),
        ("http://user:key@host/v1", "expected a URL without user"),
        ("http://host/v1?key=1", "expected a URL without user"),
    ],
)
def test_urls_that_are_none(url: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ServerOptions(url=url)


def test_a_slash_at_the_urls_end_means_nothing() -> None:
    assert ServerOptions(url="http://host:1/v1/").url == "http://host:1/v1"


def test_a_host_that_cannot_be() -> None:
    host = "-\N{SNOWMAN}-"
    client = Client(ServerOptions(url=f"http://{host}/v1"), QUICK)
    with pytest.raises(InputError, match=rf"^server\.url http://{host}/v1: .+$"):
        ask(client)
    client.close()


def test_the_key_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret\n")
    with make_server() as server:
        options = ServerOptions(url=server.url, api_key_variable="TEST_KEY", retries=2)
        client = Client(options, QUICK)
        server.wrong.extend([page("no sk-secret"), page("no sk-secret")])
        ask(client)
        assert server.headers_seen[-1]["Authorization"] == "Bearer sk-secret"
        said = capsys.readouterr().err
        assert said == (
            f"{server.url}: expected JSON, sent 'no ***'; trying again\n"
            f"{server.url}: answers again\n"
        )
        server.wrong.append(status(401, {"error": {"message": "bad key sk-secret"}}))
        with pytest.raises(RefusedError) as caught:
            ask(client)
        assert str(caught.value) == f"{server.url}/completions: refused with 401: bad key ***"
        client.close()


def test_a_key_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    options = ServerOptions(api_key_variable="TEST_KEY")
    with pytest.raises(InputError) as caught:
        Client(options)
    assert str(caught.value) == (
        "api_key_variable: expected a key in the environment variable TEST_KEY, which is "
        "empty or not set"
    )
    monkeypatch.setenv("TEST_KEY", "sécret")
    with pytest.raises(InputError, match=r"TEST_KEY has characters that keys do not have$"):
        Client(options)


def test_no_key_is_sent_unless_a_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with make_server() as server:
        client = Client(ServerOptions(url=server.url), QUICK)
        ask(client)
        assert "Authorization" not in server.headers_seen[-1]
        client.close()


def test_redirects_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    with make_server() as server, make_server() as other:
        options = ServerOptions(url=server.url, api_key_variable="TEST_KEY")
        client = Client(options, QUICK)
        server.wrong.append(status(307, {}, f"Location: {other.url}/completions"))
        with pytest.raises(InputError) as caught:
            ask(client)
        assert str(caught.value) == (
            f"{server.url}/completions: redirects to {other.url}/completions, which is not "
            "followed: expected the server's own address as server.url"
        )
        assert other.headers_seen == []
        client.close()


def test_a_server_on_this_machine_is_asked_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with make_server() as server:
        client = Client(ServerOptions(url=server.url, retries=0), QUICK)
        assert ask(client)["choices"][0]["finish_reason"] == "stop"
        client.close()


@pytest.mark.parametrize("as_date", [False, True])
def test_the_pause_that_a_server_asks_for_is_kept(
    as_date: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with make_server() as server:
        client = Client(ServerOptions(url=server.url), QUICK)
        ask(client)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        asked = "60"
        if as_date:
            asked = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        server.wrong.append(status(429, {}, f"Retry-After: {asked}"))
        server.wrong.append(status(503, {}, "Retry-After: soon"))
        ask(client)
        assert 50 < slept[0] <= 60
        assert slept[1] <= 0.002
        client.close()


def test_a_connection_is_used_again() -> None:
    with make_server() as server:
        client = Client(ServerOptions(url=server.url, concurrency=2), QUICK)
        for _ in range(5):
            ask(client)
        server_of = server._server
        assert server_of is not None
        assert len(server_of.connections) == 1
        client.close()


def test_no_more_is_asked_at_once_than_the_options_allow() -> None:
    client = Client(ServerOptions(concurrency=3))
    under_way, most = 0, 0

    async def work(item: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        under_way -= 1
        return item * item

    found: dict[int, int] = {}
    client.each(range(20), work, found.__setitem__)
    assert found == {i: i * i for i in range(20)}
    assert most == 3
    client.close()


def test_what_is_under_way_is_finished_before_an_error_is_raised() -> None:
    client = Client(ServerOptions(concurrency=3))
    begun: list[int] = []

    async def work(item: int) -> int:
        begun.append(item)
        await asyncio.sleep(0)
        if item == 1:
            raise InputError("no")
        for _ in range(10):
            await asyncio.sleep(0)
        if item == 2:
            raise InputError("no either")
        return item

    found: dict[int, int] = {}
    with pytest.raises(InputError, match=r"^no$"):
        client.each(range(20), work, found.__setitem__)
    assert begun == [0, 1, 2]
    assert found == {0: 0}
    client.close()


def test_an_error_of_the_one_who_is_told_ends_it_all() -> None:
    client = Client(ServerOptions(concurrency=3))

    async def work(item: int) -> int:
        if item:
            await asyncio.sleep(60)
        return item

    def done(item: int, result: int) -> None:
        raise OSError("disk full")

    began = time.monotonic()
    with pytest.raises(OSError, match="disk full"):
        client.each(range(3), work, done)
    assert time.monotonic() - began < 30
    client.close()


def test_json_of_any_depth_is_a_fault_not_a_crash() -> None:
    with pytest.raises(AttemptError, match=r"^expected JSON, sent '\[{60}'$"):
        parse_json(b"[" * 200_000)
