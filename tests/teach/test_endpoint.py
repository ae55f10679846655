"""A teacher behind an endpoint: what is asked, kept, counted and paid."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_examples
from citepipe.errors import InputError
from citepipe.generate.client import Client, Pauses
from citepipe.options.prompt import PromptOptions
from citepipe.options.reward import RewardOptions
from citepipe.options.teacher import EndpointOptions, TeacherOptions
from citepipe.teach.endpoint import Endpoint
from citepipe.teach.teacher import teach
from tests.teach.chat_server import Handler, Server, completion, running

EXAMPLES = [
    Example(str(n), "asqa", f"Question {n}?", (Document("T", f"Text {n}."),)) for n in range(6)
]
PROMPT = PromptOptions(instruction="Say.", max_input_tokens=1000)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as running_server:
        yield running_server


def make(server: Server, folder: Path, **settings: Any) -> Endpoint:
    values = {"url": server.url, "model": "m", "retries": 2, "timeout": 1.0, "concurrency": 1}
    options = EndpointOptions.model_validate(values | settings)
    client = Client(options, Pauses(first=0.01, longest=0.01))
    return Endpoint(options, PROMPT, folder / "journal.jsonl", client)


def outputs(found: list[Example]) -> list[str | None]:
    return [example.output for example in found]


def test_what_is_asked(server: Server, tmp_path: Path) -> None:
    endpoint = make(server, tmp_path, temperature=0.25, max_tokens=77)
    assert outputs(endpoint.answer(EXAMPLES[:1])) == ["Yes [1]."]
    [(path, _, body)] = server.asked
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": EndpointOptions().system},
            {
                "role": "user",
                "content": "Say.\n\nQuestion: Question 0?\n\nDocument [1](Title: T): Text 0.\n\n"
                "Answer:",
            },
        ],
        "max_tokens": 77,
        "temperature": 0.25,
    }


def test_what_was_answered_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    make(server, tmp_path).answer(EXAMPLES[:4])
    endpoint = make(server, tmp_path)
    found = endpoint.answer(EXAMPLES)
    assert outputs(found) == ["Yes [1]."] * 6
    assert len(server.asked) == 6
    assert endpoint.account.answers == 6
    assert endpoint.account.prompt_tokens == 600
    # Another temperature is another question.
    make(server, tmp_path, temperature=0.0).answer(EXAMPLES[:1])
    assert len(server.asked) == 7


def test_a_question_that_comes_twice_is_asked_once(server: Server, tmp_path: Path) -> None:
    found = make(server, tmp_path).answer([EXAMPLES[0], EXAMPLES[0]])
    assert outputs(found) == ["Yes [1]."] * 2
    assert len(server.asked) == 1


def test_a_journal_that_was_cut_in_a_line_goes_on(server: Server, tmp_path: Path) -> None:
    make(server, tmp_path).answer(EXAMPLES[:3])
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    make(server, tmp_path).answer(EXAMPLES[:3])
    assert len(server.asked) == 4


def _slow(handler: Handler) -> None:
    time.sleep(1.5)
    handler.hang_up()


FAULTS = {
    "429": lambda handler: handler.reply({"error": {"message": "slow down"}}, 429, Retry_After="0"),
    "500": lambda handler: handler.reply(b"oops", 500),
    "half": lambda handler: handler.reply(b'{"choices": [{"mess'),
    "another shape": lambda handler: handler.reply({"answer": "Yes"}),
    "no choices": lambda handler: handler.reply({"choices": []}),
    "text that is none": lambda handler: handler.reply(completion(3)),  # type: ignore[arg-type]
    "hangs up": lambda handler: handler.hang_up(),
    "slow": _slow,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults_that_pass(fault: Any, server: Server, tmp_path: Path) -> None:
    server.wrong.extend([fault, fault])
    assert outputs(make(server, tmp_path).answer(EXAMPLES[:2])) == ["Yes [1]."] * 2


def test_an_endpoint_that_dies_loses_no_answer(server: Server, tmp_path: Path) -> None:
    server.wrong.extend([lambda h: h.reply(completion("Yes."))] * 3 + [FAULTS["500"]] * 9)
    with pytest.raises(InputError, match=r"answered 500: oops \(3 attempts\)"):
        make(server, tmp_path).answer(EXAMPLES)
    server.wrong.clear()
    server.asked.clear()
    assert outputs(make(server, tmp_path).answer(EXAMPLES)) == ["Yes."] * 3 + ["Yes [1]."] * 3
    assert len(server.asked) == 3


def test_what_is_refused_or_cut_off_is_counted(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.wrong = [
        lambda h: h.reply(completion("Yes.")),
        lambda h: h.reply(completion(None, "content_filter")),
        lambda h: h.reply(completion("Yes and", "length")),
        lambda h: h.reply({"error": {"message": "too long"}}, 400),
        lambda h: h.reply(completion("  ")),
    ]
    endpoint = make(server, tmp_path)
    assert outputs(endpoint.answer(EXAMPLES)) == ["Yes.", None, None, None, None, "Yes [1]."]
    assert (endpoint.account.refused, endpoint.account.cut) == (3, 1)
    assert "3 questions refused, 1 answers cut off at max_tokens" in capsys.readouterr().err


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_first_refusal_ends_it_at_once(status: int, server: Server, tmp_path: Path) -> None:
    server.wrong = [lambda h: h.reply({"error": {"message": "bad model"}}, status)] * 9
    with pytest.raises(InputError, match=f"refused with {status}: bad model"):
        make(server, tmp_path).answer(EXAMPLES)
    assert len(server.asked) == 1


def test_spending_ends_before_the_cap(server: Server, tmp_path: Path) -> None:
    # Each costs (100 x 10 + 10 x 1000) / 1e6 = 0.011; at most, the prompt's 32 or so tokens by
    # characters and all of max_tokens, 0.1 and a little.
    prices = {"price_input": 10.0, "price_output": 1000.0, "max_tokens": 100}
    endpoint = make(server, tmp_path, **prices, max_cost=0.125)
    with pytest.raises(InputError) as caught:
        endpoint.answer(EXAMPLES)
    assert endpoint.account.answers == 3
    assert endpoint.account.cost == pytest.approx(0.033)
    assert str(caught.value).startswith(
        "teacher.endpoint.max_cost: 0.125 could be exceeded by the next answer, 0.033 is spent on 3"
    )
    more = make(server, tmp_path, **prices, max_cost=1.0)
    assert outputs(more.answer(EXAMPLES)) == ["Yes [1]."] * 6
    assert len(server.asked) == 6
    assert more.account.cost == pytest.approx(0.066)


def test_many_at_once_do_not_pass_the_cap_together(server: Server, tmp_path: Path) -> None:
    prices = {"price_output": 1000.0, "max_tokens": 100, "max_cost": 0.25, "concurrency": 6}
    with pytest.raises(InputError, match="could be exceeded"):
        make(server, tmp_path, **prices).answer(EXAMPLES)
    assert len(server.asked) == 2


def test_tokens_are_estimated_where_they_are_not_told(server: Server, tmp_path: Path) -> None:
    server.answer = lambda _: completion("x" * 41, usage=None)
    endpoint = make(server, tmp_path)
    endpoint.answer(EXAMPLES[:1])
    sent = [message["content"] for message in server.asked[0][2]["messages"]]
    assert endpoint.account.answer_tokens == 11
    assert endpoint.account.prompt_tokens == sum(-(-len(text) // 4) for text in sent)
    assert endpoint.account.estimated == 1


def test_requests_are_paced(server: Server, tmp_path: Path) -> None:
    endpoint = make(server, tmp_path, requests_per_minute=600, concurrency=6)
    started = time.monotonic()
    endpoint.answer(EXAMPLES[:4])
    assert time.monotonic() - started >= 0.3


def test_the_key_is_sent_and_written_nowhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    server.wrong = [lambda h: h.reply({"error": {"message": "bad key sk-secret"}}, 401)]
    endpoint = make(server, tmp_path, api_key_variable="TEACHER_KEY")
    with pytest.raises(InputError) as caught:
        endpoint.answer(EXAMPLES)
    assert "sk-secret" not in str(caught.value)
    endpoint.answer(EXAMPLES)
    assert server.asked[-1][1]["Authorization"] == "Bearer sk-secret"
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"sk-secret" in content for content in written)
    assert "sk-secret" not in capsys.readouterr().err


def _teach(server: Server, folder: Path, **settings: Any) -> str:
    endpoint = {"url": server.url, "model": "m", "price_output": 1.0, **settings}
    options = {"citations": "endpoint", "endpoint": endpoint}
    return teach(
        folder / "in.json",
        folder / "in.json",
        TeacherOptions.model_validate(options),
        "lexical",
        RewardOptions(),
        None,
        folder / "cache" / "teacher.jsonl",
        folder / "train.json",
        folder / "dev.json",
    )


def test_the_stage_asks_for_what_is_missing_and_writes_an_account(
    server: Server, tmp_path: Path
) -> None:
    given = Example("x", "asqa", "Given?", EXAMPLES[0].docs, output="Given [1].")
    write_examples(tmp_path / "in.json", [given, *EXAMPLES[:2]])
    said = _teach(server, tmp_path)
    assert said == "teach: train answers 3, dev answers 3, tokens 220, cost 2e-05"
    assert outputs(read_examples(tmp_path / "train.json")) == ["Given [1].", *["Yes [1]."] * 2]
    account = json.loads((tmp_path / "account.json").read_text())
    assert account["answers"] == 2
    assert account["cost"] == pytest.approx(2e-5)


def test_the_account_is_written_even_if_it_ends_badly(server: Server, tmp_path: Path) -> None:
    write_examples(tmp_path / "in.json", EXAMPLES)
    server.wrong = [
        lambda h: h.reply(completion("Yes.")),
        *[lambda h: h.reply({"error": "gone"}, 403)] * 8,
    ]
    with pytest.raises(InputError, match="refused with 403"):
        _teach(server, tmp_path, concurrency=1)
    assert json.loads((tmp_path / "account.json").read_text())["answers"] == 1
    assert not (tmp_path / "train.json").exists()


def test_a_model_must_be_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^teacher\.endpoint\.model: missing"):
        make(server, tmp_path, model=None)
