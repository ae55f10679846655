"""The server engine over loopback: what it asks and understands, and servers that go wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.generate.client import Pauses
from citepipe.generate.completion import Completion, Request, Sampling
from citepipe.generate.detokenize import Detokenizer
from citepipe.generate.journal import Journal
from citepipe.generate.server import ServerGenerator, server_seed
from citepipe.options import ServerOptions
from tests.generate.loopback_server import (
    ID_STYLES,
    Handler,
    LoopbackServer,
    Wrong,
    changed,
    choices,
    half,
    lying,
    page,
    raw,
    silent,
    status,
    stream_of,
)
from tests.generate.tiny_tokenizers import make_tokenizer

QUICK = Pauses(first=0.001, longest=0.002)
TOKENIZER = make_tokenizer("bytes")
DECODE = Detokenizer(TOKENIZER).decode
END: int = TOKENIZER.eos_token_id
TURN_END: int = TOKENIZER.convert_tokens_to_ids("<|im_end|>")


def encode(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def saying(
    text: str, end: int | None = END
) -> Callable[[dict[str, Any]], Iterator[tuple[int, float]]]:
    """A model that says one thing; the n-th token's log-probability is -n/8."""

    def answer(body: dict[str, Any]) -> Iterator[tuple[int, float]]:
        ids = encode(text) + ([] if end is None else [end])
        return ((i, -n / 8) for n, i in enumerate(ids))

    return answer


def make_server(text: str = " Paris is [1]", **settings: Any) -> LoopbackServer:
    return LoopbackServer(saying(text), DECODE, END, **settings)


def make_generator(server: LoopbackServer, **options: Any) -> ServerGenerator:
    settings = {"concurrency": 4, "timeout": 5.0, "retries": 1} | options
    return ServerGenerator(
        ServerOptions(url=server.url, **settings), "base", None, TOKENIZER, END, QUICK
    )


def make_request(first: int = 5, **settings: Any) -> Request:
    return Request((first, 6, 7), f"asqa/{first}", **({"max_new_tokens": 99} | settings))


def sentence_end(text: str) -> int | None:
    """Behind the first full stop."""
    place = text.find(".")
    return None if place < 0 else place + 1


# What is asked.


def test_everything_that_decides_the_answer_is_in_the_request() -> None:
    with make_server() as server, make_generator(server) as generator:
        sampling = Sampling(temperature=0.7, top_k=20, seed=3)
        request = make_request(prefix=(8, 9), sampling=sampling, stop=("\n", "###"), samples=2)
        generator.generate([request])
        digest = hashlib.blake2b(b"3|asqa/5/1", digest_size=8).digest()
        assert sorted(body.pop("seed") for body in server.bodies) == sorted(
            [server_seed(request, 0), int.from_bytes(digest, "little") // 2]
        )
        expected = {
            "model": "base",
            "prompt": [5, 6, 7, 8, 9],
            "max_tokens": 99,
            "temperature": 0.7,
            "top_k": 20,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop": ["\n", "###"],
            "stop_token_ids": [END],
            "logprobs": 1,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        assert server.bodies == [expected, expected]


def test_all_tokens_can_be_drawn_where_top_k_is_0() -> None:
    with make_server() as server, make_generator(server) as generator:
        generator.generate([make_request(sampling=Sampling(1.0, 0, 1))])
        assert server.bodies[0]["top_k"] == -1


def test_seeds_belong_to_the_sample_not_to_how_it_is_asked_for() -> None:
    request = make_request(samples=8, sampling=Sampling(1.0, 0, 1))
    seeds = [server_seed(request, i) for i in range(8)]
    assert len(set(seeds)) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds[5:] == [server_seed(replace(request, first=5, samples=3), i) for i in range(3)]
    assert server_seed(replace(request, sampling=Sampling(1.0, 0, 2)), 0) not in seeds


# What is understood.


@pytest.mark.parametrize("ids", ID_STYLES)
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
def test_answers_in_every_way_of_telling_token_ids(
    ids: str, segmented: bool, text: str, most: int, expected: str, finish: str
) -> None:
    with make_server(text, ids=ids) as server, make_generator(server) as generator:
        request = make_request(max_new_tokens=most, segment_end=sentence_end if segmented else None)
        [[completion]] = generator.generate([request])
    assert completion.text == expected
    assert completion.finish == finish
    written = "".join(expected[start:end] for start, end in completion.offsets)
    assert written == expected
    if ids == "none":
        assert completion.log_probs == ()
        assert (completion.token_ids[-1] == END) == (finish == "end")
    else:
        whole = [*encode(text), END][:most]
        count = len(completion.token_ids)
        assert list(completion.token_ids) == whole[:count]
        assert list(completion.log_probs) == [-n / 8 for n in range(count)]
        if finish == "stop":
            assert DECODE(completion.token_ids).endswith("\n")


@pytest.mark.parametrize("ids", ID_STYLES)
def test_a_segments_stream_is_left_as_soon_as_its_end_is_known(ids: str) -> None:
    def endless(body: dict[str, Any]) -> Iterator[tuple[int, float]]:
        yield from ((i, -0.5) for i in encode(" the Paris. is"))
        for i in itertools.cycle(encode(" the")):
            yield i, -0.5

    server = LoopbackServer(endless, DECODE, END, ids=ids)
    with server, make_generator(server) as generator:
        request = make_request(segment_end=sentence_end, max_new_tokens=10**9)
        [[completion]] = generator.generate([request])
        assert server.left.acquire(timeout=20)
    assert completion.text == " the Paris."
    assert completion.finish == "segment"
    assert not completion.finished
    assert list(completion.token_ids) == encode(" the Paris.")


def test_a_template_turns_end_ends_an_answer() -> None:
    with LoopbackServer(saying(" Paris", TURN_END), DECODE, END) as server:
        generator = ServerGenerator(
            ServerOptions(url=server.url), "base", None, TOKENIZER, TURN_END, QUICK
        )
        [[completion]] = generator.generate([make_request()])
        generator.close()
        assert server.bodies[0]["stop_token_ids"] == sorted([END, TURN_END])
    assert (completion.text, completion.finish) == (" Paris", "end")
    assert completion.token_ids[-1] == TURN_END


def test_an_end_that_the_server_does_not_tell_is_put_there() -> None:
    def without_end(choice_ids: list[int]) -> list[int]:
        return choice_ids[:-1]

    cut = changed(
        token_ids=without_end,
        logprobs=lambda known: {"token_logprobs": known["token_logprobs"][:-1]},
    )
    with make_server() as server, make_generator(server) as generator:
        server.wrong.append(cut)
        [[completion]] = generator.generate([make_request()])
    assert completion.finish == "end"
    assert list(completion.token_ids) == [*encode(" Paris is [1]"), END]
    assert completion.log_probs == ()


def test_an_end_that_only_the_server_knows_is_kept_out_of_the_text() -> None:
    server = LoopbackServer(saying(" Paris", TURN_END), DECODE, TURN_END)
    with server, make_generator(server) as generator:
        [[completion]] = generator.generate([make_request()])
    assert (completion.text, completion.finish) == (" Paris", "end")
    assert list(completion.token_ids) == [*encode(" Paris"), TURN_END]
    assert len(completion.log_probs) == len(completion.token_ids)


def test_a_server_that_does_not_stop_is_cut() -> None:
    late = changed(token_ids=[*encode(" Paris\nmore")], logprobs=None)
    with make_server() as server, make_generator(server) as generator:
        server.wrong.append(late)
        [[completion]] = generator.generate([make_request()])
    assert (completion.text, completion.finish) == (" Paris", "stop")
    assert DECODE(completion.token_ids) == " Paris\n"


def test_nothing_is_asked_for_no_tokens() -> None:
    with make_server() as server, make_generator(server) as generator:
        [[completion]] = generator.generate([make_request(max_new_tokens=0)])
        assert completion == Completion((), "", (), (), "length")
        assert server.bodies == []


def test_results_are_in_order_and_told_of_one_by_one() -> None:
    def answer(body: dict[str, Any]) -> Iterator[tuple[int, float]]:
        return saying(" the" * body["prompt"][0])(body)

    told: dict[tuple[int, int], Completion] = {}
    with LoopbackServer(answer, DECODE, END) as server, make_generator(server) as generator:
        assert generator.capacity == 16
        requests = [make_request(n, samples=n % 3) for n in range(9)]
        found = generator.generate(requests, lambda n, i, c: told.update({(n, i): c}))
    assert [[c.text for c in own] for own in found] == [[" the" * n] * (n % 3) for n in range(9)]
    assert told == {(n, i): c for n, own in enumerate(found) for i, c in enumerate(own)}


@pytest.mark.parametrize("segmented", [False, True], ids=["whole", "streamed"])
def test_greedy_answers_are_those_of_the_engine_in_process(
    segmented: bool, tiny_base: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from citepipe.generate.local import HuggingFaceGenerator

    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    lock = threading.Lock()

    def answer(body: dict[str, Any]) -> Iterator[tuple[int, float]]:
        ids = list(body["prompt"])
        while True:
            with lock, torch.inference_mode():
                scores = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            ids.append(int(scores.argmax()))
            yield ids[-1], float(scores[ids[-1]])

    end = tokenizer.eos_token_id
    prompts = ["Who directed Silver River?", "Where was Anna Berg born?", "Document [1]", "It"]
    requests = [
        Request(
            tuple(tokenizer(text)["input_ids"]),
            f"asqa/{number}",
            max_new_tokens=12,
            prefix=tuple(tokenizer(" Anna Berg")["input_ids"]) if number % 2 else (),
            # Letters end something often with random weights.
            stop=("e",),
            segment_end=(lambda text: text.find("a") + 1 or None) if segmented else None,
        )
        for number, text in enumerate(prompts)
    ]
    expected = HuggingFaceGenerator(model, tokenizer, 4).generate(requests)
    decode = Detokenizer(tokenizer).decode
    with LoopbackServer(answer, decode, end, root=str(tiny_base)) as server:
        generator = ServerGenerator(
            ServerOptions(url=server.url), str(tiny_base), None, tokenizer, end, QUICK
        )
        found = generator.generate(requests)
        generator.close()
    for [own], [other] in zip(found, expected, strict=True):
        assert own.token_ids == other.token_ids
        assert (own.text, own.offsets, own.finish) == (other.text, other.offsets, other.finish)
        assert own.log_probs == pytest.approx(other.log_probs, abs=1e-4)
    assert len({c.finish for own in expected for c in own}) > 1


# Which model answers.


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    from safetensors.numpy import save_file

    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({}, directory / "adapter_model.safetensors")
    return directory


def with_adapter(server: LoopbackServer, adapter: Path, **options: Any) -> ServerGenerator:
    return ServerGenerator(
        ServerOptions(url=server.url, **options), "base", adapter, TOKENIZER, END, QUICK
    )


def test_an_adapter_is_loaded_named_after_its_files_and_taken_off(adapter: Path) -> None:
    with make_server() as server:
        with with_adapter(server, adapter) as generator:
            name = generator.model
            assert server.adapters == {name: str(adapter)}
            generator.generate([make_request()])
            assert server.bodies[0]["model"] == name
            with with_adapter(server, adapter) as other:
                assert other.model == name
            # Who has not loaded it does not take it off.
            assert name in server.adapters
        assert server.adapters == {}
        (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1}')
        with with_adapter(server, adapter) as generator:
            assert generator.model != name


def test_an_adapter_that_somebody_took_off_is_loaded_again(adapter: Path) -> None:
    with make_server() as server, with_adapter(server, adapter) as generator:
        server.adapters.clear()
        assert generator.generate([make_request()])[0][0].text == " Paris is [1]"
        assert generator.model in server.adapters


def test_a_server_that_loads_no_adapters(adapter: Path) -> None:
    with make_server(adapters_by_request=False) as server, pytest.raises(InputError) as caught:
        with_adapter(server, adapter)
    assert str(caught.value) == (
        f"{server.url}: loads no adapters by request; start it with: "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora --max-lora-rank 64 "
        "--generation-config vllm"
    )


@pytest.mark.parametrize("code", [400, 404, 500])
def test_an_adapter_that_the_server_cannot_load(code: int, adapter: Path) -> None:
    message = "LoRA rank 64 is greater than max_lora_rank 16."
    with make_server() as server:
        server.wrong.append(status(code, {"error": {"message": message}}))
        with pytest.raises(InputError) as caught:
            with_adapter(server, adapter)
    assert str(caught.value) == f"{server.url}: the adapter {adapter} was not loaded: {message}"


def test_a_server_that_cannot_take_an_adapter_off_is_no_error(adapter: Path) -> None:
    with make_server() as server:
        generator = with_adapter(server, adapter)
        server.die()
        generator.close()


def test_a_whole_model_must_be_what_is_served(tiny_base: Path) -> None:
    def make(server: LoopbackServer) -> ServerGenerator:
        options = ServerOptions(url=server.url)
        return ServerGenerator(options, "base", tiny_base, TOKENIZER, END, QUICK)

    with make_server(root=f"{tiny_base}/") as server, make(server) as generator:
        assert generator.model == "base"
    with make_server() as server, pytest.raises(InputError) as caught:
        make(server)
    assert str(caught.value) == (
        f"{server.url}: expected it to serve {tiny_base}, a whole model; start it with that "
        "directory, it serves base"
    )


def test_a_model_by_name(adapter: Path) -> None:
    with make_server() as server:
        server.adapters["mine"] = str(adapter)
        with make_generator(server) as generator:
            assert generator.model == "base"
        with make_generator(server, model="mine") as generator:
            assert generator.model == "mine"
        with pytest.raises(InputError) as caught:
            make_generator(server, model="other")
        assert str(caught.value) == (
            f"{server.url}: expected it to serve server.model other, it serves mine, base"
        )


def test_another_base_model_is_worth_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with make_server(model="llama", root="/models/llama") as server, make_generator(server):
        assert capsys.readouterr().err == (
            f"{server.url}: serves llama; model.base is base, expected the same model\n"
        )


def test_a_server_that_serves_nothing() -> None:
    with make_server() as server:
        server.wrong_models = status(200, {"object": "list", "data": []})
        with pytest.raises(InputError) as caught:
            make_generator(server)
        assert str(caught.value) == f"{server.url}: expected it to serve a model, it serves none"
        server.wrong_models = status(200, {"data": [{"name": "x"}]})
        with pytest.raises(InputError) as caught:
            make_generator(server)
        assert str(caught.value) == (
            f"{server.url}/models: expected a list of models, sent '{{'data': [{{'name': 'x'}}]}}' "
            "(2 attempts)"
        )


def test_a_server_without_token_ids_is_worth_one_word(capsys: pytest.CaptureFixture[str]) -> None:
    with make_server(ids="none") as server, make_generator(server) as generator:
        generator.generate([make_request(samples=3)])
        assert capsys.readouterr().err == (
            f"{server.url}: tells no token ids; answers are tokenised anew and have no "
            "log-probabilities\n"
        )


# What goes wrong.

BROKEN = "closed the connection before its answer was whole"
SILENT = "sent nothing for 0.3 s"
CUT_OFF = "ended its stream in the middle of the answer"
FIRST = b'data: {"choices": [{"index": 0, "text": "", "finish_reason": null}]}\n\n'
ERROR = b'data: {"error": {"message": "engine died", "code": 500}}\n\ndata: [DONE]\n\n'
FAULTS: dict[str, tuple[Wrong, str]] = {
    "closes at once": (raw(b""), BROKEN),
    "closes in the headers": (raw(b"HTTP/1.1 200 OK\r\nContent-"), BROKEN),
    "half an answer": (half, BROKEN),
    "says it is longer": (lying(9), SILENT),
    "says it is shorter": (lying(-40), "expected JSON, sent '{\"object\": \"text_completion\""),
    "no HTTP": (raw(b"\x00\x01\x02 what is this\r\n\r\n"), "sent what is not HTTP"),
    "no JSON": (page("]["), "expected JSON, sent ']['"),
    "a page": (page("<html>\n <b>Welcome</b>"), "expected JSON, sent '<html> <b>Welcome</b>'"),
    "an empty answer": (page(""), "sent an empty answer"),
    "not text": (
        lambda handler, body: handler.send_bytes(200, b"\xff\xfe\x00", "application/json"),
        "expected JSON, sent '\ufffd\ufffd?'",
    ),
    "a list": (status(200, [1, 2]), "expected a completion, sent '[1, 2]'"),
    "no list of choices": (
        status(200, {"choices": "x"}),
        "expected a completion, sent '{'choices': 'x'}'",
    ),
    "no choice": (choices(0), "sent 0 completions, expected 1"),
    "two choices": (choices(2), "sent 2 completions, expected 1"),
    "no text": (changed(text=None), "sent a completion without a text"),
    "another finish reason": (
        changed(finish_reason="banana"),
        "finish_reason: expected stop or length, sent 'banana'",
    ),
    "no finish reason": (
        changed(finish_reason=None),
        "finish_reason: expected stop or length, sent 'None'",
    ),
    "token ids left out": (changed(token_ids=None, logprobs=None), "left out the token ids"),
    "token ids that are none": (changed(token_ids=[1, "2"]), "expected token ids, sent '[1, '2']'"),
    "token ids below 0": (changed(token_ids=[-1]), "expected token ids, sent '[-1]'"),
    "too many tokens": (
        changed(token_ids=[40] * 100, logprobs=None),
        "sent more than the 99 tokens that were asked for",
    ),
    "too few log-probabilities": (
        changed(logprobs={"token_logprobs": [-1.0, -2.0]}, token_ids=[40, 41, 42]),
        "sent 2 log-probabilities for 3 tokens",
    ),
    "log-probabilities that are none": (
        changed(logprobs={"token_logprobs": [None]}, token_ids=[40]),
        "expected log-probabilities, sent '[None]'",
    ),
    "log-probabilities that are no number": (
        changed(logprobs={"token_logprobs": [float("nan")]}, token_ids=[40]),
        "expected log-probabilities, sent '[nan]'",
    ),
    "500": (status(500, {"error": {"message": "out of\nmemory"}}), "answered 500: out of memory"),
    "502 from a proxy": (page("<h1>Bad Gateway</h1>", 502), "answered 502: <h1>Bad Gateway</h1>"),
    "429": (status(429, {"message": "slow down"}, "Retry-After: 0"), "answered 429: slow down"),
    "408": (page("", 408), "answered 408"),
    "silent": (silent(), SILENT),
    "silent in the middle": (
        silent(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        SILENT,
    ),
}  # fmt: skip
STREAM_FAULTS: dict[str, tuple[Wrong, str]] = {
    "closes at once": FAULTS["closes at once"],
    "500": FAULTS["500"],
    "a whole answer": (
        status(200, {"choices": []}),
        "expected a stream of events, sent '{\"choices\": []}'",
    ),
    "a page": (page("<html>"), "expected a stream of events, sent '<html>'"),
    "ends without a finish": (stream_of(first=2), CUT_OFF),
    "is done without a finish": (stream_of(b"data: [DONE]\n\n", first=2), CUT_OFF),
    "half an event": (stream_of(b'data: {"choi', first=2), CUT_OFF),
    "breaks off": (stream_of(first=2, close=True), BROKEN),
    "silent": (stream_of(first=2, quiet=True), SILENT),
    "an error": (stream_of(ERROR, first=2), "reported an error in its stream: engine died"),
    "no JSON": (stream_of(b"data: {oops\n\n", first=2), "expected JSON, sent '{oops'"),
    "another shape": (
        stream_of(b"data: [7]\n\n", first=1),
        "expected a completion, sent '[7]'",
    ),
    "another finish reason": (
        stream_of(FIRST.replace(b"null", b'"abort"'), first=1),
        "finish_reason: expected stop or length, sent 'abort'",
    ),
    "token ids left out": (
        stream_of(FIRST.replace(b'""', b'" x"'), first=1),
        "left out the token ids",
    ),
    "no chunks": (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        "sent what is not HTTP",
    ),
}  # fmt: skip
KINDS = [pytest.param(*FAULTS[name], False, id=name) for name in FAULTS] + [
    pytest.param(*STREAM_FAULTS[name], True, id=f"stream: {name}") for name in STREAM_FAULTS
]


@pytest.mark.parametrize(("wrong", "line", "streamed"), KINDS)
def test_a_fault_is_one_line_and_costs_no_other_answer(
    wrong: Wrong, line: str, streamed: bool
) -> None:
    timeout = 0.3 if line == SILENT else 20.0
    with make_server() as server, make_generator(server, timeout=timeout) as generator:
        segment_end = sentence_end if streamed else None
        requests = [make_request(n, segment_end=segment_end) for n in range(10, 14)]
        [[good]] = generator.generate(requests[:1])
        # Once: it is asked for again, and nobody notices.
        server.wrong.append(wrong)
        assert generator.generate(requests[:1]) == [[good]]
        # For ever: the others' answers are delivered first.
        server.wrong_prompts[11] = wrong
        told: dict[int, Completion] = {}
        with pytest.raises(InputError) as caught:
            generator.generate(requests, lambda n, i, c: told.update({n: c}))
        shown = str(caught.value)
        assert shown.startswith(f"{server.url}/completions: {line}")
        assert shown.endswith(" (2 attempts)")
        assert shown.count("\n") == 0
        assert told == {0: good, 2: good, 3: good}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("code", "value", "message"),
    [
        (400, {"error": {"message": "too long:\n4097"}}, "refused with 400: too long: 4097"),
        (401, {"error": "no key"}, "refused with 401: no key"),
        (403, {"detail": "Forbidden"}, "refused with 403: Forbidden"),
        (404, {"object": "error", "message": "no such model"}, "refused with 404: no such model"),
        (422, {"detail": [{"msg": "bad"}]}, 'refused with 422: [{"msg": "bad"}]'),
        (400, {"message": "x" * 999}, "refused with 400: " + "x" * 200),
    ],
)
def test_a_refusal_is_one_line_at_once(code: int, value: Any, message: str, streamed: bool) -> None:
    with make_server() as server, make_generator(server, retries=5) as generator:
        server.wrong_prompts[11] = status(code, value)
        segment_end = sentence_end if streamed else None
        requests = [make_request(n, segment_end=segment_end) for n in range(10, 14)]
        told: list[int] = []
        with pytest.raises(InputError) as caught:
            generator.generate(requests, lambda n, i, c: told.append(n))
        assert str(caught.value) == f"{server.url}/completions: {message}"
        assert sorted(told) == [0, 2, 3]
        assert len(server.bodies) == 4


def test_what_is_left_of_a_longer_answer_is_no_answer_to_the_next_request() -> None:
    def longer(handler: Handler, body: dict[str, Any]) -> None:
        data = json.dumps(handler.server.owner.completion(body)).encode()
        handler.send_bytes(200, data + b"HTTP/1.1 ", "application/json", length=len(data))

    with make_server() as server, make_generator(server, concurrency=1) as generator:
        server.wrong.extend([longer] * 3)
        found = generator.generate([make_request(n) for n in range(9)])
        assert [own[0].text for own in found] == [" Paris is [1]"] * 9


def test_a_server_that_is_not_there() -> None:
    with make_server() as server:
        pass
    with pytest.raises(InputError) as caught:
        make_generator(server)
    assert str(caught.value) == (
        f"{server.url}/models: cannot be reached: Connection refused (2 attempts)"
    )


def dying(after: int) -> Wrong:
    """The server drops everything with the given request, and those that come with it."""
    count = itertools.count(1)

    def wrong(handler: Handler, body: dict[str, Any]) -> None:
        server = handler.server.owner
        if next(count) == after:
            server.die()
            handler.hang_up()
        else:
            handler.send_json(200, server.completion(body))

    return wrong


def test_a_server_that_dies_loses_nothing_and_is_asked_only_for_the_rest(tmp_path: Path) -> None:
    requests = [make_request(n, samples=2) for n in range(10, 20)]
    with make_server() as server:
        with make_generator(server) as generator:
            [[good]] = generator.generate([make_request(9)])
            server.bodies.clear()
            server.wrong.extend([dying(8)] * 20)
            told: list[tuple[int, int]] = []
            journal = Journal(tmp_path / "journal.jsonl", generator)
            with pytest.raises(InputError) as caught:
                journal.generate(requests, lambda n, i, c: told.append((n, i)))
        # The first to give up may have met a dying server twice, or one that is gone.
        said = str(caught.value).removeprefix(f"{server.url}/completions: ")
        assert said in (
            "cannot be reached: Connection refused (2 attempts)",
            "closed the connection before its answer was whole (2 attempts)",
        )
        # What the others sent meanwhile may have come through or not.
        assert 4 <= len(told) <= 10
        server.wrong.clear()
        server.bodies.clear()
        server.start()
        with make_generator(server) as generator:
            journal = Journal(tmp_path / "journal.jsonl", generator)
            assert journal.known == len(told)
            assert journal.generate(requests) == [[good] * 2] * 10
        seeds = {server_seed(request, i) for request in requests for i in range(2)}
        seeds -= {server_seed(requests[n], i) for n, i in told}
        assert {body["seed"] for body in server.bodies} == seeds
        assert len(server.bodies) == 20 - len(told)


def test_a_server_that_comes_back_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with make_server() as server:
        options = ServerOptions(url=server.url, concurrency=2, retries=400)
        generator = ServerGenerator(
            options, "base", None, TOKENIZER, END, Pauses(first=0.01, longest=0.01)
        )
        server.wrong.append(dying(1))
        restart = threading.Timer(0.2, server.start)
        restart.start()
        found = generator.generate([make_request(n) for n in range(6)])
        generator.close()
        assert [own[0].text for own in found] == [" Paris is [1]"] * 6
        said = capsys.readouterr().err.splitlines()
        assert said[0].endswith("; trying again")
        assert said[1:] == [f"{server.url}: answers again"]


def test_an_interrupt_comes_through_and_what_was_told_is_kept(tmp_path: Path) -> None:
    with make_server() as server, make_generator(server) as generator:
        journal = Journal(tmp_path / "journal.jsonl", generator)
        count = itertools.count(1)

        def done(number: int, sample: int, completion: Completion) -> None:
            if next(count) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            journal.generate([make_request(n) for n in range(20)], done)
        assert Journal(tmp_path / "journal.jsonl", generator).known >= 3
        assert json.dumps(server.bodies[0]["prompt"]) == "[0, 6, 7]"
