"""A teacher behind an endpoint: what is asked, kept, counted and paid."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from citepipe.config import load_config
from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_examples
from citepipe.data.prompts import fit
from citepipe.errors import InputError
from citepipe.generate.client import Client, Pauses
from citepipe.options import EndpointOptions, PromptOptions, RewardOptions, TeacherOptions
from citepipe.teach.endpoint import Endpoint
from citepipe.teach.teacher import teach
from tests.teach.chat_server import Handler, Server, completion, running

SHARED = Path(__file__).parents[3] / "shared" / "data"
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
    "an error that claims success": lambda handler: handler.reply({"error": {"message": "busy"}}),
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
    line = "3 questions refused (the last one: too long), 1 answers cut off at max_tokens"
    assert line in capsys.readouterr().err
    # Of another call's questions only those are told, and nothing is asked again.
    server.wrong = [lambda h: h.reply(completion("Yes."))] * 9
    assert outputs(make(server, tmp_path).answer(EXAMPLES)) == outputs(endpoint.answer(EXAMPLES))
    assert len(server.asked) == 6
    endpoint.answer(EXAMPLES[:1])
    assert capsys.readouterr().err.count("refused") == 2


def test_a_filter_may_refuse_the_first_question(server: Server, tmp_path: Path) -> None:
    refuses = [lambda h: h.reply({"error": {"message": "filtered"}}, 400)]
    server.wrong = [*refuses * 4]
    found = make(server, tmp_path).answer(EXAMPLES)
    assert outputs(found) == [None] * 4 + ["Yes [1]."] * 2
    # They were refused for good once something was answered: a rerun asks for nothing.
    make(server, tmp_path).answer(EXAMPLES)
    assert len(server.asked) == 6


def test_what_was_refused_stays_so_in_a_rerun(server: Server, tmp_path: Path) -> None:
    server.wrong = [
        lambda h: h.reply(completion("Yes.")),
        lambda h: h.reply({"error": {"message": "filtered"}}, 400),
        lambda h: h.reply(completion("Yes.")),
        lambda h: h.reply({"error": {"message": "gone"}}, 403),
    ]
    with pytest.raises(InputError, match="refused with 403: gone"):
        make(server, tmp_path).answer(EXAMPLES)
    server.asked.clear()
    found = make(server, tmp_path).answer(EXAMPLES)
    assert outputs(found) == ["Yes.", None, "Yes.", *["Yes [1]."] * 3]
    assert len(server.asked) == 3


def test_nothing_but_refusals_is_the_requests_fault(server: Server, tmp_path: Path) -> None:
    server.wrong = [lambda h: h.reply({"error": {"message": "no such field"}}, 400)] * 5
    with pytest.raises(InputError, match="refused with 400: no such field"):
        make(server, tmp_path).answer(EXAMPLES)
    # None of them was believed.
    assert outputs(make(server, tmp_path).answer(EXAMPLES)) == ["Yes [1]."] * 6


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_first_refusal_ends_it_at_once(status: int, server: Server, tmp_path: Path) -> None:
    server.wrong = [lambda h: h.reply({"error": {"message": "bad model"}}, status)] * 9
    with pytest.raises(InputError, match=f"refused with {status}: bad model"):
        make(server, tmp_path).answer(EXAMPLES)
    assert len(server.asked) == 1


def test_spending_ends_before_the_cap(server: Server, tmp_path: Path) -> None:
    # Each costs (100 x 10 + 10 x 1000) / 1e6 = 0.011; at most, the prompt's 150 bytes or so and
    # all of max_tokens, 0.1 and a little.
    prices = {"price_input": 10.0, "price_output": 1000.0, "max_tokens": 100}
    endpoint = make(server, tmp_path, **prices, max_cost=0.125)
    with pytest.raises(InputError) as caught:
        endpoint.answer(EXAMPLES)
    assert endpoint.account.answers == 3
    assert endpoint.account.cost == pytest.approx(0.033)
    assert str(caught.value) == (
        "teacher.endpoint: the next answer could exceed the cap (max_cost 0.125, 0.033 is spent) "
        "after 3 answers; they are kept, with a higher cap the same command goes on"
    )
    more = make(server, tmp_path, **prices, max_cost=1.0)
    assert outputs(more.answer(EXAMPLES)) == ["Yes [1]."] * 6
    assert len(server.asked) == 6
    assert more.account.cost == pytest.approx(0.066)


@pytest.mark.parametrize("concurrency", [1, 6])
def test_many_at_once_wait_for_each_other_at_the_cap(
    concurrency: int, server: Server, tmp_path: Path
) -> None:
    # Two fit at their most, 0.1 each, and all six at what they cost, 0.01 each.
    prices = {"price_output": 1000.0, "max_tokens": 100, "max_cost": 0.25}
    most, now, lock = 0, 0, threading.Lock()

    def answer(_: Any) -> Any:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return completion("Yes.")

    server.answer = answer
    endpoint = make(server, tmp_path, **prices, concurrency=concurrency)
    assert outputs(endpoint.answer(EXAMPLES)) == ["Yes."] * 6
    assert 1 <= most <= min(concurrency, 2)


def test_all_that_is_answered_costs_more_than_the_cap(server: Server, tmp_path: Path) -> None:
    # 0.05 each, at most 0.1: after three answers another one would fit no more.
    server.answer = lambda _: completion("Yes.", usage=(0, 50))
    prices = {"price_output": 1000.0, "max_tokens": 100, "max_cost": 0.24, "concurrency": 6}
    endpoint = make(server, tmp_path, **prices)
    with pytest.raises(InputError, match=r"max_cost 0\.24, 0\.15 is spent\) after 3 answers"):
        endpoint.answer(EXAMPLES)


def test_a_token_may_be_a_single_byte(server: Server, tmp_path: Path) -> None:
    # Three bytes each; billed a token each.
    texts = ("汉字" * 100,)
    examples = [replace(e, docs=tuple(Document("T", t) for t in texts)) for e in EXAMPLES]
    server.answer = lambda body: completion(
        "Yes.", usage=(sum(len(m["content"]) for m in body["messages"]), 1)
    )
    endpoint = make(server, tmp_path, price_input=1000.0, max_cost=1.2, max_tokens=1)
    with pytest.raises(InputError, match="could exceed the cap"):
        endpoint.answer(examples)
    assert 0 < endpoint.account.cost <= 1.2


def test_what_was_billed_for_thoughts_is_expected_again(server: Server, tmp_path: Path) -> None:
    server.answer = lambda _: completion("Yes.", usage=(0, 500))
    endpoint = make(server, tmp_path, price_output=1000.0, max_tokens=100, max_cost=1.4)
    with pytest.raises(InputError, match=r"1 is spent\) after 2 answers"):
        endpoint.answer(EXAMPLES)


def test_a_cap_in_tokens(server: Server, tmp_path: Path) -> None:
    # 110 each; at most the prompt's bytes and 100.
    endpoint = make(server, tmp_path, max_tokens=100, max_tokens_total=540)
    with pytest.raises(InputError, match=r"max_tokens_total 540, 330 are taken\) after 3 answers"):
        endpoint.answer(EXAMPLES)


def test_what_was_spent_stays_spent_at_other_prices(server: Server, tmp_path: Path) -> None:
    make(server, tmp_path, price_output=1000.0).answer(EXAMPLES[:3])
    endpoint = make(server, tmp_path, model="cheap", price_output=1.0)
    endpoint.answer(EXAMPLES[:1])
    assert endpoint.account.cost == pytest.approx(3 * 0.01 + 0.00001)


def test_a_cap_needs_prices() -> None:
    with pytest.raises(ValidationError, match="max_cost: expected price_input or price_output"):
        EndpointOptions(max_cost=1.0)


def test_a_key_in_place_of_its_variable_is_not_shown() -> None:
    raw = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())
    raw["teacher"] = {"endpoint": {"model": "m", "api_key_variable": "sk-proj-secret"}}
    with pytest.raises(InputError) as caught:
        load_config(raw)
    assert "expected the name of an environment variable" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_run_that_is_killed_pays_for_nothing_twice(server: Server, tmp_path: Path) -> None:
    write_examples(tmp_path / "in.json", EXAMPLES)
    five = threading.Event()

    def answer(_: Any) -> Any:
        if len(server.asked) > 5:
            five.set()
            time.sleep(30)
        return completion("Yes.")

    server.answer = answer
    endpoint = {"url": server.url, "model": "m", "concurrency": 1}
    program = (
        "import sys; from pathlib import Path; from tests.teach.test_endpoint import stage; "
        f"stage({endpoint!r}, Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as process:
        assert five.wait(60)
        process.kill()
    server.asked.clear()
    server.answer = lambda _: completion("No.")
    stage(endpoint, tmp_path)
    assert len(server.asked) == 1
    found = [example.output for example in read_examples(tmp_path / "train.json")]
    assert found == ["Yes."] * 5 + ["No."]


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
    return stage({"url": server.url, "model": "m", "price_output": 1.0, **settings}, folder)


def stage(endpoint: dict[str, Any], folder: Path, **others: Any) -> str:
    options = {"citations": "endpoint", "endpoint": endpoint, **others}
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


def test_a_prompt_file_that_is_missing_is_told_before_anything_is_asked(
    server: Server, tmp_path: Path
) -> None:
    write_examples(tmp_path / "in.json", EXAMPLES)
    with pytest.raises(InputError, match=r"^teacher\.prompt\.files\.asqa: missing"):
        stage({"url": server.url, "model": "m"}, tmp_path, prompt={"shots": 2})
    assert not server.asked


def test_demonstrations_may_have_turns_of_their_own(server: Server, tmp_path: Path) -> None:
    demo = {"question": "D?", "answer": " So [1].", "docs": [{"title": "A", "text": "B."}]}
    file = {
        "instruction": "Say.",
        "demo_sep": "\n\n",
        "demo_prompt": "{INST} {Q}\n{D}\nAnswer: {A}",
        "doc_prompt": "[{ID}] {T}: {P}\n",
        "demos": [demo],
    }
    (tmp_path / "p.json").write_text(json.dumps(file))
    prompt = {"files": {"asqa": str(tmp_path / "p.json")}, "shots": 1}
    together = (
        "Say. D?\n[1] A: B.\n\nAnswer: So [1].\n\nSay. Question 0?\n[1] T: Text 0.\n\nAnswer:"
    )
    for turns, said in (
        (False, [("user", together)]),
        (
            True,
            [
                ("user", "Say. D?\n[1] A: B.\n\nAnswer:"),
                ("assistant", "So [1]."),
                ("user", "Say. Question 0?\n[1] T: Text 0.\n\nAnswer:"),
            ],
        ),
    ):
        options = EndpointOptions(url=server.url, model="m", system=None)
        shown = PromptOptions.model_validate({**prompt, "demo_turns": turns})
        Endpoint(options, shown, tmp_path / "journal.jsonl").answer(EXAMPLES[:1])
        messages = server.asked[-1][2]["messages"]
        assert [(m["role"], m["content"]) for m in messages] == said


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("dataset", ["asqa", "qampari", "eli5"])
def test_alces_two_shot_prompt_is_not_shortened(dataset: str, tmp_path: Path) -> None:
    path = str(SHARED / f"alce_prompt_{dataset}_default.json")
    told = TeacherOptions.model_validate({"prompt": {"files": {dataset: path}, "shots": 2}})
    docs = tuple(Document("A title", " ".join(["word"] * 100)) for _ in range(5))
    prompt = fit(Example("0", dataset, "Who?", docs), told.prompt, lambda t: range(len(t) // 4))
    assert not prompt.shortened


def test_documents_that_were_shortened_are_counted(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = replace(EXAMPLES[0], docs=(Document("T", "word " * 2000),))
    make(server, tmp_path).answer([long, EXAMPLES[1]])
    assert "teacher: documents of 1 prompts were shortened" in capsys.readouterr().err
    assert len(server.asked[0][2]["messages"][1]["content"]) <= 4 * PROMPT.max_input_tokens


ODD = {
    "thoughts": (completion("<think>\nWell [9].\n</think>\n\nYes [1]."), "Yes [1]."),
    "thoughts without an end": (completion("<think>\nWell [9]."), None),
    "parts": (
        completion([{"type": "text", "text": "Yes "}, {"type": "text", "text": "[1]."}]),  # type: ignore[arg-type]
        "Yes [1].",
    ),
    "half a character": (
        b'{"choices": [{"message": {"content": "So \\ud83d [1]."}, "finish_reason": "stop"}]}',
        "So ? [1].",
    ),
    "more tokens than there are": (completion("Yes.", usage=(10**400, 1)), "Yes."),
    "tokens that are no number": (completion("Yes.", usage=(True, True)), "Yes."),
    "no reason to end": (completion("Yes.", finish=None), "Yes."),  # type: ignore[arg-type]
    "a refusal in words": (
        {"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]},
        None,
    ),
}


@pytest.mark.parametrize(("sent", "output"), ODD.values(), ids=ODD)
def test_odd_answers(sent: Any, output: str | None, server: Server, tmp_path: Path) -> None:
    server.answer = lambda _: sent
    assert outputs(make(server, tmp_path).answer(EXAMPLES[:1])) == [output]
    # What was written down is read again.
    again = make(server, tmp_path)
    assert outputs(again.answer(EXAMPLES[:1])) == [output]
    assert len(server.asked) == 1
    assert 0 <= again.account.answer_tokens < 100


def test_an_answer_that_repeats_the_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    server.answer = lambda _: completion("The key is sk-secret [1].")
    endpoint = make(server, tmp_path, api_key_variable="TEACHER_KEY")
    assert outputs(endpoint.answer(EXAMPLES[:1])) == ["The key is *** [1]."]
    assert b"sk-secret" not in (tmp_path / "journal.jsonl").read_bytes()


def test_the_words_of_an_error_that_claims_success(server: Server, tmp_path: Path) -> None:
    server.answer = lambda _: {"error": {"message": "no credit", "code": 402}}
    with pytest.raises(InputError, match=r"sent an error: no credit \(3 attempts\)"):
        make(server, tmp_path).answer(EXAMPLES)


@pytest.mark.parametrize(
    "line",
    [
        "5",
        '{"asked": "x"}',
        '{"asked": "x", "reply": {"text": 5, "finish": "stop", "prompt_tokens": 1, '
        '"answer_tokens": 1, "estimated": false, "cost": 0.0}}',
        '{"asked": "x", "reply": {"text": "", "finish": "stop", "prompt_tokens": -1, '
        '"answer_tokens": 1, "estimated": false, "cost": 0.0}}',
    ],
)
def test_a_journal_that_is_none(line: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"journal\.jsonl: expected the journal of a teacher"):
        make(server, tmp_path)


def test_retries_keep_the_pace_too(server: Server, tmp_path: Path) -> None:
    server.wrong = [FAULTS["500"]] * 3
    endpoint = make(server, tmp_path, requests_per_minute=600, retries=3)
    started = time.monotonic()
    endpoint.answer(EXAMPLES[:1])
    assert time.monotonic() - started >= 0.3


def test_tokens_are_paced(server: Server, tmp_path: Path) -> None:
    # 30 or so tokens by characters and 100 that may come: the third begins after 2 x 130 / 1000 s.
    endpoint = make(server, tmp_path, tokens_per_minute=60_000, max_tokens=100, concurrency=6)
    started = time.monotonic()
    endpoint.answer(EXAMPLES[:3])
    assert time.monotonic() - started >= 0.2


def test_a_failure_ends_the_waiting_of_others(server: Server, tmp_path: Path) -> None:
    server.wrong = [lambda h: h.reply({"error": {"message": "bad key"}}, 401)]
    endpoint = make(server, tmp_path, requests_per_minute=10, concurrency=6)
    with pytest.raises(InputError, match="bad key"):
        endpoint.answer(EXAMPLES)
    assert len(server.asked) == 1
