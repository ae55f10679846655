"""Downloads from a server that goes wrong in every way."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.sources.fetch import Fetcher
from tests.sources.web import Answer, Handler, Web

BODY = bytes(range(256)) * 4000
Make = Callable[..., Fetcher]


def _status(code: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.send(code, b"no", named)


def _stall(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.end_headers()
    handler.wfile.write(BODY[:1000])
    handler.wfile.flush()
    time.sleep(1.0)
    handler.close_connection = True


def _silent(handler: Handler) -> None:
    time.sleep(1.0)
    handler.close_connection = True


def _hang_up(handler: Handler) -> None:
    handler.close_connection = True


def _no_http(handler: Handler) -> None:
    handler.wfile.write(b"\x00\x01nonsense\r\n\r\n")
    handler.close_connection = True


def _cut(at: int, **settings: bool) -> Answer:
    return lambda handler: handler.send_file(BODY, cut=at, **settings)


def _says_more(handler: Handler) -> None:
    handler.send(200, BODY, {"Content-Length": str(len(BODY) + 5), "ETag": '"v1"'}, len(BODY))


def _other_version_cut(handler: Handler) -> None:
    handler.send_file(b"old" * 50_000, etag='"v0"', cut=100_000)


def _wrong_part(handler: Handler) -> None:
    headers = {"Content-Range": f"bytes 7-{len(BODY) - 1}/{len(BODY)}", "ETag": '"v1"'}
    handler.send(206, BODY[7:], headers)


def _packed(handler: Handler) -> None:
    handler.send(200, gzip.compress(BODY), {"Content-Encoding": "gzip"})


def _not_packed(handler: Handler) -> None:
    handler.send(200, BODY[1:], {"Content-Encoding": "gzip"})


def _chunked_cut(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"5\r\nhello\r\n")
    handler.close_connection = True


# Faults that pass: the file comes whole all the same.
PASSING: dict[str, list[Answer]] = {
    "cut": [_cut(1000)],
    "cut again and again, each time later": [_cut(300_000)] * 3,
    "cut by one that knows no ranges": [_cut(5000, ranges=False), _cut(9000, ranges=False)],
    "stalls": [_stall],
    "says nothing": [_silent],
    "hangs up": [_hang_up, _hang_up],
    "no http": [_no_http],
    "says it is longer": [_says_more],
    "another version than before": [_other_version_cut],
    "sends another part": [_cut(500_000), _wrong_part],
    "no such range": [_cut(500_000), _status(416)],
    "too many requests": [_status(429, Retry_After="7")],
    "overloaded": [_status(503), _status(500)],
    "packed": [_packed],
    "says packed and is not": [_not_packed],
    "chunks that end early": [_chunked_cut],
    "redirects": [_status(302, Location="/elsewhere")],
}


@pytest.mark.parametrize("script", PASSING.values(), ids=PASSING)
def test_faults_that_pass(script: list[Answer], web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/file.bin"] = web.files["/elsewhere"] = BODY
    web.scripted["/file.bin"] = list(script)
    make().fetch(f"{web.url}/file.bin", tmp_path / "out")
    assert (tmp_path / "out" / "file.bin").read_bytes() == BODY
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "out"]
    assert [p.suffix for p in (tmp_path / "cache" / "partial").iterdir()] == [".lock"]


# Faults that stay: one line, and what came is kept for a rerun.
STAYING: dict[str, tuple[list[Answer], str]] = {
    "absent": ([_status(404)], "has no such file (404)"),
    "gone": ([_status(410)], "has it no more (410)"),
    "forbidden": ([_status(403)], "forbids it (403)"),
    "login": ([_status(401)], "wants a login (401)"),
    "a teapot": ([_status(418)], "answered 418"),
    "down": ([_status(503)] * 3, "answered 503 (3 attempts)"),
    "cut at the same place": (
        [_cut(1000, ranges=False)] * 4,
        "closed the connection before all had come (3 attempts)",
    ),
    "a circle": ([_status(302, Location="/file.bin")] * 20, "more than 10 redirects"),
    "out of the web": (
        [_status(302, Location="file:///etc/passwd")],
        "redirects to file:///etc/passwd, which is no web address",
    ),
    "a page": (
        [lambda handler: handler.send(200, b"\n<!DOCTYPE html><p>Log in")],
        "sent a web page where a file was expected",
    ),
}


@pytest.mark.parametrize(("script", "line"), STAYING.values(), ids=STAYING)
def test_faults_that_stay(
    script: list[Answer], line: str, web: Web, make: Make, tmp_path: Path
) -> None:
    web.files["/file.bin"] = BODY
    web.scripted["/file.bin"] = list(script)
    address = f"{web.url}/file.bin"
    with pytest.raises(InputError) as caught:
        make().fetch(address, tmp_path / "out")
    by_hand = make().cache.by_hand(address, "file.bin")
    assert str(caught.value) == f"{address}: {line}; got in another way, it may lie at {by_hand}"
    assert not (tmp_path / "out").exists()
    web.scripted.clear()
    make().fetch(address, tmp_path / "out")
    assert (tmp_path / "out" / "file.bin").read_bytes() == BODY


def test_a_cut_download_goes_on_where_it_was_in_the_next_run(
    web: Web, make: Make, tmp_path: Path
) -> None:
    web.files["/file.bin"] = BODY
    web.scripted["/file.bin"] = [_cut(700_000), *[_status(500)] * 2]
    with pytest.raises(InputError):
        make().fetch(f"{web.url}/file.bin", tmp_path / "out")
    web.seen.clear()
    make().fetch(f"{web.url}/file.bin", tmp_path / "out")
    [(_, headers)] = web.seen
    assert headers["range"] == "bytes=700000-"
    assert headers["if-range"] == '"v1"'
    assert (tmp_path / "out" / "file.bin").read_bytes() == BODY


def test_nobody_listens(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be reached: .*refused \(3 attempts\)"):
        make().fetch("http://127.0.0.1:9/file.bin", tmp_path / "out")


def test_pauses_grow_and_are_as_long_as_the_server_asks(
    web: Web, make: Make, tmp_path: Path, pauses: list[float]
) -> None:
    web.files["/file.bin"] = BODY
    asked = [_status(429, Retry_After="7"), _status(503), _status(503), _status(503)]
    web.scripted["/file.bin"] = asked
    make(retries=4).fetch(f"{web.url}/file.bin", tmp_path / "out")
    assert pauses[0] == 7
    for pause, longest in zip(pauses[1:], (1, 2, 4), strict=True):
        assert longest / 2 <= pause <= longest


def test_from_https_to_http_is_not_followed(make: Make) -> None:
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "http://host/file"})

    downloader = make().downloader
    downloader._client = httpx.Client(transport=httpx.MockTransport(answer))
    with pytest.raises(InputError, match="redirects from https to http, which is not followed"):
        downloader.text("https://host/file")


def test_a_key_goes_to_its_own_host_only(
    web: Web, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    web.files["/stored"] = BODY
    elsewhere = web.url.replace("127.0.0.1", "localhost")
    path = "/datasets/a/b/resolve/main/x.json"
    web.scripted[path] = [_status(302, Location=f"{elsewhere}/stored")]
    make().fetch("hf://datasets/a/b/x.json", tmp_path / "out")
    (_, first), (_, second) = web.seen
    assert first["authorization"] == "Bearer hf_secret"
    assert "authorization" not in second
    written = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert not any(b"hf_secret" in content for content in written)
