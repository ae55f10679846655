"""The server engine and its client over loopback: what is sent, understood, and what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from citepipe.errors import InputError
from citepipe.generate.client import Client, each
from citepipe.generate.completion import Completion, Request, Sampling
from citepipe.generate.server import ServerGenerator, server_seed
from citepipe.generate.text import Detokenizer
from citepipe.options import ServerOptions
from tests.generate.loopback_server import (
    CHUNKED,
    LoopbackServer,
    Wrong,
    changed,
    raw,
    status,
    stream_of,
)
from tests.generate.tiny_tokenizers import make_tokenizer

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

pytestmark = pytest.mark.usefixtures("pauses")

TOKENIZER = make_tokenizer("bytes")
DECODE = Detokenizer(TOKENIZER).decode
END: int = TOKENIZER.eos_token_id
TURN_END: int = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
NUMBERS = Callable[[dict[str, Any]], Iterator[tuple[int, float]]]


def encode(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def saying(text: str, end: int = END) -> NUMBERS:
    """A model that generates one text; the n-th token's log-probability is -n/8."""
    return lambda body: ((i, -n / 8) for n, i in enumerate([*encode(text), end]))


def make_server(text: str = " Paris is [1]", **settings: Any) -> LoopbackServer:
    return LoopbackServer(saying(text), DECODE, END, **settings)


def make_generator(
    server: LoopbackServer,
    trained: Path | None = None,
    end_id: int = END,
    stop: tuple[str, ...] = ("\n",),
    **options: Any,
) -> closing[ServerGenerator]:
    settings = {"concurrency": 4, "timeout": 5.0, "retries": 1} | options
    server_options = ServerOptions(url=server.url, **settings)
    return closing(ServerGenerator(server_options, "base", trained, TOKENIZER, end_id, stop))


def models(generator: ServerGenerator) -> list[str]:
    return [server.model for server in generator.servers]


def make_request(first: int = 5, **settings: Any) -> Request:
    return Request((first, 6, 7), f"asqa/{first}", **({"max_new_tokens": 99} | settings))


def sentence_end(text: str) -> int | None:
    """Behind the first full stop."""
    place = text.find(".")
    return None if place < 0 else place + 1


def test_everything_that_decides_the_answer_is_in_the_request():
    with make_server() as server, make_generator(server, stop=("\n", "###")) as generator:
        sampling = Sampling(temperature=0.7, top_k=20, seed=3)
        request = make_request(prefix=(8, 9), sampling=sampling, samples=2)
        generator.generate([request, make_request(sampling=Sampling(1.0, 0, 1))])
        *bodies, other = sorted(server.bodies, key=lambda body: -body["top_k"])
    digest = hashlib.blake2b(b"3|asqa/5/1", digest_size=8).digest()
    seeds = {server_seed(request, 0), int.from_bytes(digest, "little") // 2}
    assert {body.pop("seed") for body in bodies} == seeds
    expected = {"model": "base", "prompt": [5, 6, 7, 8, 9], "max_tokens": 99, "stream": False}
    expected |= {"temperature": 0.7, "top_k": 20, "top_p": 1.0, "min_p": 0.0}
    expected |= {"repetition_penalty": 1.0, "stop": ["\n", "###"], "stop_token_ids": [END]}
    expected |= {"logprobs": 1, "return_token_ids": True}
    assert bodies == [expected, expected]
    # vLLM's way to say that all tokens can be drawn.
    assert other["top_k"] == -1


def test_seeds_belong_to_the_sample_not_to_how_it_is_requested():
    request = make_request(samples=8, sampling=Sampling(1.0, 0, 1))
    seeds = [server_seed(request, i) for i in range(8)]
    assert len({*seeds, server_seed(replace(request, sampling=Sampling(1.0, 0, 2)), 0)}) == 9
    assert seeds[5:] == [server_seed(replace(request, first=5, samples=3), i) for i in range(3)]


@pytest.mark.parametrize("segmented", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("text", "most", "expected", "finish"),
    [
        (" Paris is [1]", 99, " Paris is [1]", "end"),
        (" Paris\nthe rest", 99, " Paris", "stop"),
        (" the the the", len(encode(" the the")), " the the", "length"),
        (" é日é", 99, " é日é", "end"),
    ],
)
def test_answers_are_cut_and_placed_by_their_token_ids(
    segmented: bool, text: str, most: int, expected: str, finish: str
):
    with make_server(text) as server, make_generator(server) as generator:
        request = make_request(max_new_tokens=most, segment_end=sentence_end if segmented else None)
        [[completion]] = generator.generate([request])
    assert (completion.text, completion.finish) == (expected, finish)
    assert "".join(expected[start:end] for start, end in completion.offsets) == expected
    count = len(completion.token_ids)
    assert list(completion.token_ids) == [*encode(text), END][:most][:count]
    assert list(completion.log_probs) == [-n / 8 for n in range(count)]
    if finish == "stop":
        assert DECODE(completion.token_ids).endswith("\n")


def test_a_segments_stream_is_left_as_soon_as_its_end_is_known():
    ids = itertools.chain(encode(" the Paris. is"), itertools.cycle(encode(" the")))
    server = LoopbackServer(lambda _: ((i, -0.5) for i in ids), DECODE, END)
    with server, make_generator(server) as generator:
        request = make_request(segment_end=sentence_end, max_new_tokens=10**9)
        [[completion]] = generator.generate([request])
        assert server.left.acquire(timeout=20)
    assert (completion.text, completion.finish) == (" the Paris.", "segment")
    assert list(completion.token_ids) == encode(" the Paris.")


PARIS = encode(" Paris")


@pytest.mark.parametrize(
    ("end", "their_end", "our_end", "change"),
    [
        # A template's turn ends it.
        (TURN_END, END, TURN_END, []),
        # An end that only the server knows is no text.
        (TURN_END, TURN_END, END, []),
        # An end that the server leaves out is put there.
        (END, END, END, [changed(token_ids=PARIS, logprobs=None)]),
    ],
)
def test_ends_of_answers(end: int, their_end: int, our_end: int, change: list[Wrong]):
    server = LoopbackServer(saying(" Paris", end), DECODE, their_end)
    with server, make_generator(server, end_id=our_end) as generator:
        server.wrong.extend(change)
        [[completion]] = generator.generate([make_request()])
        assert server.bodies[0]["stop_token_ids"] == sorted({END, our_end})
        # Of a server that goes on behind a stop string, what comes after it is left out.
        server.wrong.append(changed(token_ids=encode(" Paris\nmore"), logprobs=None))
        [[cut]] = generator.generate([make_request()])
    assert (cut.text, cut.finish, DECODE(cut.token_ids)) == (" Paris", "stop", " Paris\n")
    assert (completion.text, completion.finish) == (" Paris", "end")
    assert list(completion.token_ids) == [*PARIS, end]
    assert len(completion.log_probs) == (0 if change else len(PARIS) + 1)


def test_results_are_in_order_and_delivered_one_by_one():
    delivered: dict[tuple[int, int], Completion] = {}
    server = LoopbackServer(lambda b: saying(" the" * b["prompt"][0])(b), DECODE, END)
    with server, make_generator(server) as generator:
        requests = [make_request(n, samples=n % 3) for n in range(9)]
        requests.append(make_request(max_new_tokens=0))
        found = generator.generate(requests, lambda n, i, c: delivered.update({(n, i): c}))
        assert len(server.bodies) == 9
    assert delivered == {(n, i): c for n, own in enumerate(found) for i, c in enumerate(own)}
    assert found.pop() == [Completion((), "", (), (), "length")]
    assert [[c.text for c in own] for own in found] == [[" the" * n] * (n % 3) for n in range(9)]


# Which model answers.


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    from safetensors.numpy import save_file

    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({}, tmp_path / "adapter_model.safetensors")
    return tmp_path


def test_an_adapter_is_loaded_named_after_its_files_and_taken_off(adapter: Path):
    with make_server() as server:
        with make_generator(server, adapter) as generator:
            [name] = models(generator)
            assert server.adapters == {name: str(adapter)}
            with make_generator(server, adapter) as other:
                assert models(other) == [name]
            # Who has not loaded it does not take it off; if another one did, it is loaded again.
            assert name in server.adapters
            server.adapters.clear()
            assert generator.generate([make_request()])[0][0].text == " Paris is [1]"
            assert server.bodies[-1]["model"] == name
        assert server.adapters == {}
        (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1}')
        with make_generator(server, adapter) as generator:
            assert models(generator) != [name]
            server.die()


RANK = "LoRA rank 64 is greater than max_lora_rank 16."


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (
            status(404, {"detail": "Not Found"}),
            "loads no adapters by request; start it with: VLLM_",
        ),
        (status(404, {"error": {"message": RANK}}), f"the adapter {{}} was not loaded: {RANK}"),
        (status(500, {"error": {"message": RANK}}), f"the adapter {{}} was not loaded: {RANK}"),
    ],
)
def test_adapters_that_are_not_loaded(wrong: Wrong, line: str, adapter: Path):
    with make_server() as server:
        server.wrong.append(wrong)
        with pytest.raises(InputError) as caught:
            make_generator(server, adapter)
    assert str(caught.value).startswith(f"{server.url}: {line.format(adapter)}")


def test_a_whole_model_must_be_what_is_served(tiny_base: Path):
    with make_server(root=f"{tiny_base}/") as server, make_generator(server, tiny_base) as found:
        assert models(found) == ["base"]
    line = "only adapters are loaded by request; start it with that directory, it serves base$"
    with make_server() as server, pytest.raises(InputError, match=line):
        make_generator(server, tiny_base)


def test_which_model_is_served(adapter: Path, capsys: Captured):
    with make_server() as server:
        server.adapters["mine"] = str(adapter)
        with make_generator(server) as unnamed, make_generator(server, model="mine") as named:
            assert models(unnamed) + models(named) == ["base", "mine"]
        capsys.readouterr()
        with pytest.raises(InputError, match=r"expected it to serve server\.model other, "):
            make_generator(server, model="other")
        server.respond = status(501, {"detail": "no cache"})
        with pytest.raises(InputError, match="which models it serves; /models answered 501: no ca"):
            make_generator(server)
        server.respond = status(200, {"data": []})
        with pytest.raises(InputError, match=r"expected it to serve a model, it serves none$"):
            make_generator(server)
        server.respond = status(200, {"data": [{"name": "x"}]})
        with pytest.raises(InputError, match=r"sent '{'name': 'x'}', data\.0\.id: Field required$"):
            make_generator(server)
    # It is no longer there.
    with pytest.raises(InputError, match=f"^{server.url}: gave no answer: All connection attempts"):
        make_generator(server)
    with make_server(root="/models/llama") as server:
        server.model = "llama"
        with make_generator(server):
            line = f"{server.url}: serves llama; model.base is base, expected the same model\n"
            assert capsys.readouterr().err == line


def test_several_servers_share_the_prompts(adapter: Path):
    def own(server: LoopbackServer) -> set[int]:
        return {body["prompt"][0] for body in server.bodies}

    with make_server() as one, make_server() as two:
        with make_generator(one, adapter, urls=[one.url, two.url]) as generator:
            assert one.adapters == two.adapters == {models(generator)[0]: str(adapter)}
            requests = [make_request(n, prefix=(n,), samples=2) for n in range(10, 18)]
            found = generator.generate(requests)
        assert [len(samples) for samples in found] == [2] * 8
        # All that is asked of a prompt, of one.
        assert len(one.bodies) == len(two.bodies) == 8
        assert not own(one) & own(two)
        assert one.adapters == two.adapters == {}
        line = rf"^{two.url}: the adapter .* was not loaded: no$"
        two.wrong.append(status(500, {"error": {"message": "no"}}))
        with pytest.raises(InputError, match=line):
            make_generator(one, adapter, urls=[one.url, two.url])
        assert one.adapters == {}


@pytest.mark.parametrize(
    ("refused", "line"),
    [
        (("top_k", "return_token_ids"), "takes no top_k, return_token_ids in /completions: no"),
        (("prompt",), "takes no token ids as a prompt in /completions: no; expected a server like"),
    ],
)
def test_what_a_server_lacks_is_named(refused: tuple[str, ...], line: str):
    def strict(handler: Any, body: dict[str, Any]) -> None:
        known = not any(key in body for key in refused)
        handler.send(*((200, {}) if known else (422, {"detail": "no"})))

    with make_server() as server, make_generator(server) as generator:
        server.wrong.extend([strict] * 50)
        with pytest.raises(InputError, match=rf"^{server.url}: {line}"):
            generator.generate([make_request(n) for n in range(4)])
    with make_server() as server, make_generator(server) as generator:
        # What refuses a request of its own, for its length perhaps, lacks nothing.
        server.wrong.append(status(400, {"detail": "too long"}))
        with pytest.raises(InputError, match=r": answered 400: too long$"):
            generator.generate([make_request()])


# What goes wrong.

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
HALF = JSON % 9999 + b'{"ch'
IN_THE_MIDDLE = "ended in the middle of the answer"
ERROR = b'data: {"error": {"message": "engine died", "code": 500}}\n\ndata: [DONE]\n\n'
WHOLE: list[tuple[Wrong, str]] = [
    (raw(b""), "gave no answer: Server disconnected without sending a response."),
    (raw(HALF), "gave no answer: peer closed connection without sending complete message body"),
    (raw(JSON % 2 + b"]["), "sent no JSON"),
    (raw(JSON % 200_000 + b"[" * 200_000), "sent no JSON"),
    (status(200, "<html>\n <b>Welcome</b>"), "sent '<html> <b>Welcome</b>', "),
    (status(200, {"error": "busy"}), "sent '{'error': 'busy'}', choices: Field required"),
    (changed(finish_reason=None, token_ids=[40], logprobs=None), IN_THE_MIDDLE),
    (changed(token_ids=[40] * 100, logprobs=None), "sent 100 tokens or more"),
    (changed(token_ids=[40, 41]), "sent 6 log-probabilities for 2 tokens"),
    (changed(logprobs={"token_logprobs": [float("nan")]}), "sent 'nan', choices.0.logprobs."),
    (status(500, {"error": {"message": "out of\nmemory"}}), "answered 500: out of memory"),
    (status(408, ""), "answered 408: no message"),
]
STREAMED: list[tuple[Wrong, str]] = [
    (stream_of(b"data: [DONE]\n\n", first=2), IN_THE_MIDDLE),
    (stream_of(first=2, is_whole=False), "broke off its stream: peer closed"),
    (stream_of(ERROR, first=2), "broke off its stream: engine died"),
    (stream_of(b"data: \xff\n\n", first=2), "sent no JSON"),
]
FAULTS = [(*fault, False) for fault in WHOLE] + [(*fault, True) for fault in STREAMED]


@pytest.mark.parametrize(("wrong", "line", "streamed"), FAULTS)
def test_a_fault_is_one_line_and_costs_no_other_answer(wrong: Wrong, line: str, streamed: bool):
    with make_server() as server, make_generator(server, timeout=20) as generator:
        segment_end = sentence_end if streamed else None
        requests = [make_request(n, segment_end=segment_end) for n in range(10, 14)]
        [[good]] = generator.generate(requests[:1])
        # Once: it is requested again, and nobody notices.
        server.wrong.append(wrong)
        assert generator.generate(requests[:1]) == [[good]]
        # For ever: the others' answers are delivered first.
        server.wrong_prompts[11] = wrong
        delivered: dict[int, Completion] = {}
        with pytest.raises(InputError) as caught:
            generator.generate(requests, lambda n, i, c: delivered.update({n: c}))
        assert str(caught.value).startswith(f"{server.url}: {line}")
        assert "\n" not in str(caught.value)
        assert delivered == {0: good, 2: good, 3: good}


# Silent in the middle, bytes now and then (of headers, of JSON), and events without a choice.
NEVER_ENDING = [raw(HALF, b""), raw(b"HTTP/1.1 200 OK\r\nX: ", b"y"), raw(HALF, b" ")]
NEVER_ENDING.append(raw(CHUNKED, b'16\r\ndata: {"choices":[]}\n\n\r\n'))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("wrong", NEVER_ENDING)
def test_servers_that_never_end(wrong: Wrong, streamed: bool):
    with make_server() as server, make_generator(server, timeout=0.5) as generator:
        server.wrong_prompts[11] = wrong
        request = make_request(11, segment_end=sentence_end if streamed else None)
        with pytest.raises(InputError, match=r"gave no whole answer in 2 attempts of 0\.5 s"):
            generator.generate([request])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_server_of_other_tokens_is_refused(streamed: bool):
    request = make_request(segment_end=sentence_end if streamed else None, max_new_tokens=1)
    with make_server() as server, make_generator(server) as generator:
        event = b'data: {"choices": [{"text": "x"}]}\n\n'
        server.wrong.append(stream_of(event) if streamed else changed(token_ids=None))
        with pytest.raises(InputError, match=r"returns no token ids .* expected a server"):
            generator.generate([request])
        assert len(server.bodies) == 1
    for wrong in (-1, len(TOKENIZER)):
        server = LoopbackServer(lambda body, i=wrong: [(i, -0.5)], lambda ids: "x", END)
        line = f"sent token {wrong}, but the tokenizer of model.base"
        with server, make_generator(server) as generator, pytest.raises(InputError, match=line):
            generator.generate([request])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("code", "value", "line"),
    [
        (400, {"error": {"message": "too long:\n4097"}}, "too long: 4097"),
        (403, {"detail": "Forbidden"}, "Forbidden"),
        (404, {"object": "error", "message": "x" * 999}, "x" * 200),
    ],
)
def test_a_refusal_is_one_line_at_once(code: int, value: Any, line: str, streamed: bool):
    segment_end = sentence_end if streamed else None
    with make_server() as server, make_generator(server, retries=5) as generator:
        server.wrong_prompts[11] = status(code, value)
        with pytest.raises(InputError) as caught:
            generator.generate([make_request(n, segment_end=segment_end) for n in range(10, 14)])
        assert str(caught.value) == f"{server.url}: answered {code}: {line}"
        assert sum(body["prompt"][0] == 11 for body in server.bodies) == 1


# The client alone.


def ask(client: Client) -> Any:
    async def work() -> object:
        return await client.api.post("/completions", body={"model": "none"}, cast_to=object)

    return client.run(client.attempt(work))


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with make_server() as running:
        running.respond = status(200, {"is": "right"})
        yield running


BAD_URLS = "http:///v1 h:80/v1 ftp://h/v1 http://h/v1?key=1 http://u:k@h/v1 http://h:99999/v1"


@pytest.mark.parametrize("url", BAD_URLS.split())
def test_urls_that_are_none(url: str):
    with pytest.raises(ValidationError, match=r"expected an? (http or https )?URL"):
        ServerOptions(url=url)


def test_the_key_is_sent_and_never_shown(
    server: LoopbackServer, monkeypatch: Patch, capsys: Captured
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("TEST_KEY", "sk-secret\n")
    options = ServerOptions(url=server.url, api_key_variable="TEST_KEY", retries=2)
    with closing(Client(options)) as client:
        server.wrong.extend([status(500, "no sk-secret")] * 2)
        assert ask(client) == {"is": "right"}
        assert server.requests[-1][1]["authorization"] == "Bearer sk-secret"
        server.wrong.append(status(401, {"error": {"message": "bad key sk-secret"}}))
        with pytest.raises(InputError, match=r"answered 401: bad key \*\*\*$"):
            ask(client)
    with closing(Client(ServerOptions(url=server.url))) as client:
        ask(client)
    # No other key of the environment is sent.
    assert server.requests[-1][1]["authorization"] == "Bearer none"
    assert "sk-" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("key", [None, "", " ", "sécret"])
def test_keys_that_are_none(key: str | None, monkeypatch: Patch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("TEST_KEY", key)
    with pytest.raises(InputError, match=r"^api_key_variable: expected a key in .* TEST_KEY, "):
        Client(ServerOptions(api_key_variable="TEST_KEY"))


def test_redirects_are_not_followed(server: LoopbackServer):
    with make_server() as other, closing(Client(ServerOptions(url=server.url))) as client:
        server.wrong.append(status(307, {}, f"Location: {other.url}/completions"))
        with pytest.raises(InputError, match=f"answered 307: redirects to {other.url}/completions"):
            ask(client)
        assert other.requests == []


def test_a_server_on_this_machine_is_reached_without_a_proxy(
    server: LoopbackServer, monkeypatch: Patch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with closing(Client(ServerOptions(url=server.url, retries=0))) as client:
        assert ask(client) == ask(client) == {"is": "right"}
    # Over one connection.
    assert len(server.connections) == 1


VLLM = f"""#!{sys.executable}
import os, socket, sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.generate.loopback_server import LoopbackServer

print("vllm", *sys.argv[1:], flush=True)
time.sleep(float(os.environ.get("LOADING", "0.3")))
if os.environ.get("BROKEN"):
    sys.exit(3)
LoopbackServer.port = port = int(sys.argv[sys.argv.index("--port") + 1])
while os.environ.get("OTHER"):
    with socket.create_server(("127.0.0.1", port)) as other, other.accept()[0] as asked:
        asked.sendall(b"220 no HTTP\\r\\n")
device = int(os.environ["CUDA_VISIBLE_DEVICES"])
LoopbackServer(lambda body: [(device, -0.5), ({END}, -0.5)], lambda ids: " yes", {END}).over.wait()
"""
"""Answers, in the place of vLLM, with the number of its device."""


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "bin" / "vllm"
    path.parent.mkdir()
    path.write_text(VLLM)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")


@pytest.mark.usefixtures("vllm")
def test_a_job_starts_a_server_on_its_device_and_ends_it(
    monkeypatch: Patch, capfd: pytest.CaptureFixture[str]
):
    options = ServerOptions(start=["--max-model-len", "99"], retries=0)
    answered: dict[str, int] = {}
    with ExitStack() as stack:
        for device in ("7", "8"):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", device)
            generator = ServerGenerator(options, "base", None, TOKENIZER, END, revision="v2")
            stack.enter_context(closing(generator))
            [[answer]] = generator.generate([make_request()])
            answered[generator.servers[0].url] = answer.token_ids[0]
    assert list(answered.values()) == [7, 8]
    given = " --revision v2 --tokenizer-revision v2 --max-model-len 99\n"
    assert capfd.readouterr().err.count(given) == 2
    for url in answered:
        with pytest.raises(InputError), closing(Client(ServerOptions(url=url, retries=0))) as gone:
            ask(gone)


@pytest.mark.usefixtures("vllm")
def test_a_server_ends_with_a_job_that_is_killed():
    code = "import os; from citepipe.generate.started import StartedServer as S; S('base', []); "
    # The server has this pipe too, so that nothing returns before it has ended.
    done = subprocess.run(
        [sys.executable, "-c", f"{code}os.kill(os.getpid(), 9)"], stderr=subprocess.PIPE, timeout=60
    )
    assert done.returncode == -9
    assert b"started with base" in done.stderr


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PATH", "", "vllm: No such file or directory; see envs/vllm.yaml"),
        ("BROKEN", "1", "vllm serve ended with status 3 before it was ready"),
        ("LOADING", "60", "vllm serve was not ready within 0.5 s"),
        ("OTHER", "1", "vllm serve was not ready within 1.5 s"),
    ],
)
def test_a_server_that_does_not_start_is_one_line(
    name: str, value: str, words: str, monkeypatch: Patch
):
    monkeypatch.setenv(name, value)
    seconds = {"LOADING": 0.5, "OTHER": 1.5}.get(name, 60)
    monkeypatch.setattr("citepipe.generate.started.PATIENCE", seconds)
    with pytest.raises(InputError, match=f"^server.start: {words}"):
        ServerGenerator(ServerOptions(start=[]), "base", None, TOKENIZER, END)


@pytest.mark.parametrize("failing", [{}, {1: InputError("no 1"), 2: InputError("no 2")}])
def test_no_more_is_under_way_than_allowed_and_it_ends_before_an_error_is_raised(
    failing: dict[int, Exception],
):
    begun: list[int] = []
    ended: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        assert len(begun) - len(ended) <= 3
        for _ in range(item % 3):
            await asyncio.sleep(0)
        ended.append(item)
        if item in failing:
            raise failing[item]

    error = pytest.raises(InputError, match=r"^no 1$") if failing else nullcontext()
    with closing(Client(ServerOptions())) as client, error:
        client.run(each(range(20), work, 3))
    assert sorted(begun) == sorted(ended) == list(range(len(begun)))
    assert len(begun) < 8 if failing else len(begun) == 20
