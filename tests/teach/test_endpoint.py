"""A teacher behind an endpoint: what is sent, kept, counted and paid."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from citepipe.config import load_config
from citepipe.data.example import Document, Example
from citepipe.errors import InputError
from citepipe.generate import chat as module
from citepipe.options import EndpointOptions, PromptOptions
from citepipe.teach.endpoint import Endpoint
from tests.generate.loopback_server import ChatServer, Wrong, chat, status
from tests.teach.test_teacher import outputs_of, run_teach

Patch = pytest.MonkeyPatch

pytestmark = pytest.mark.usefixtures("pauses")

EXAMPLES = [
    Example(str(n), "asqa", f"Question {n}?", (Document("T", f"Text {n}."),)) for n in range(6)
]
PROMPT = PromptOptions(instruction="Say.", max_input_tokens=1000)
YES = "Yes [1].\nMore."
PLAIN = status(200, chat("Yes."))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


Ask = Callable[..., tuple[list[str | None], Endpoint]]


@pytest.fixture
def ask(server: ChatServer, tmp_path: Path) -> Ask:
    """Answers of a new endpoint with the journal of before, and the endpoint."""

    def answer(examples: Any = EXAMPLES, **settings: Any) -> tuple[list[str | None], Endpoint]:
        values = {"url": server.url, "model": "m", "retries": 2, "concurrency": 1} | settings
        options = EndpointOptions.model_validate(values)
        with closing(Endpoint(options, PROMPT, tmp_path / "journal.jsonl")) as endpoint:
            return [example.output for example in endpoint.answer(examples)], endpoint

    return answer


def error(message: str, code: int = 400) -> Wrong:
    return status(code, {"error": {"message": message}})


def test_what_is_sent(server: ChatServer, ask: Ask):
    assert ask(EXAMPLES[:1], temperature=0.25, max_tokens=77)[0] == [YES]
    question = "Question 0?\n\nDocument [1](Title: T): Text 0.\n\nAnswer:"
    [(path, _, body)] = server.requests
    assert path == "/v1/chat/completions"
    messages = [
        {"role": "system", "content": EndpointOptions().system},
        {"role": "user", "content": f"Say.\n\nQuestion: {question}"},
    ]
    assert body == {"model": "m", "messages": messages, "max_tokens": 77, "temperature": 0.25}


def test_what_was_answered_is_not_requested_again(server: ChatServer, ask: Ask, tmp_path: Path):
    assert ask([EXAMPLES[0], *EXAMPLES[:4]])[0] == [YES] * 5
    assert len(server.requests) == 4
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    outputs, endpoint = ask()
    assert outputs == [YES] * 6
    # Two were new, and one was cut off in the journal.
    assert len(server.requests) == 7
    assert (endpoint.account()["answers"], endpoint.account()["prompt_tokens"]) == (6, 600)
    # Another temperature is another question.
    ask(EXAMPLES[:1], temperature=0.0)
    assert len(server.requests) == 8


@pytest.mark.parametrize("answer", [{"error": {"message": "busy"}}, {"choices": []}, [1]])
def test_what_is_no_answer_is_requested_again(answer: Any, server: ChatServer, ask: Ask):
    server.wrong.extend([status(200, answer)] * 2)
    assert ask(EXAMPLES[:2])[0] == [YES] * 2
    server.wrong.extend([PLAIN] * 3 + [status(200, answer)] * 3)
    with pytest.raises(InputError, match="sent no chat completion"):
        ask(temperature=0.0)
    assert ask(temperature=0.0)[0] == ["Yes."] * 3 + [YES] * 3


def test_what_is_refused_or_cut_off_is_counted(
    server: ChatServer, ask: Ask, capsys: pytest.CaptureFixture[str]
):
    answers = [("Yes.",), (None, "content_filter"), ("Yes and", "length"), ("  ",)]
    server.wrong.extend([*(status(200, chat(*answer)) for answer in answers), error("too long")])
    outputs, endpoint = ask()
    assert outputs == ["Yes.", None, None, None, None, YES]
    account = {"answers": 5, "prompt_tokens": 500, "answer_tokens": 50, "estimated": 0}
    account |= {"cut": 1, "refused": 3, "cost": 0}
    assert endpoint.account() | {"cost": 0} == account
    line = "3 questions refused (the last one: too long), 1 answers cut off at max_tokens"
    assert line in capsys.readouterr().err
    # Only the question that cost nothing is sent again.
    assert ask()[0] == ["Yes.", None, None, None, YES, YES]
    assert len(server.requests) == 7


def test_nothing_but_refusals_is_the_requests_fault(
    server: ChatServer, ask: Ask, monkeypatch: Patch
):
    monkeypatch.setattr(module, "REFUSALS_IN_A_ROW", 3)
    server.wrong.extend([error("no"), error("no"), PLAIN, error("no"), error("no such")])
    assert ask()[0] == [None, None, "Yes.", None, None, YES]
    server.wrong.extend([error("no such field")] * 3)
    with pytest.raises(InputError, match="answered 400: no such field"):
        ask()
    # A key or model that is refused is none of a question's.
    server.wrong.append(error("bad key", 401))
    with pytest.raises(InputError, match="answered 401: bad key"):
        ask()


def test_spending_ends_before_the_cap(server: ChatServer, ask: Ask):
    # Each costs (100 x 10 + 10 x 1000) / 1e6 = 0.011; at most, the prompt's 150 bytes or so and
    # all of max_tokens, 0.1 and a little.
    prices = {"price_input": 10.0, "price_output": 1000.0, "max_tokens": 100}
    line = r"the next answer could exceed 0\.125, 0\.033 is spent; 3 answers are kept"
    with pytest.raises(InputError, match=line):
        ask(**prices, max_cost=0.125)
    outputs, endpoint = ask(**prices, max_cost=1.0)
    assert outputs == [YES] * 6
    assert len(server.requests) == 6
    assert endpoint.spent == pytest.approx(0.066)
    # What was spent stays spent at other prices.
    _, cheap = ask(EXAMPLES[:1], model="cheap", price_output=1.0)
    assert cheap.spent == pytest.approx(0.066 + 0.00001)


def test_questions_wait_for_each_other_at_the_cap(server: ChatServer, ask: Ask):
    # Two fit at their most, 0.1 each, and all six at what they cost, 0.01 each.
    under_way: list[int] = []
    most: list[int] = []
    two = threading.Barrier(2)

    def answer(_: Any) -> Any:
        under_way.append(1)
        most.append(len(under_way))
        two.wait(20)
        under_way.pop()
        return chat("Yes.")

    server.answer = answer
    prices = {"price_output": 1000.0, "max_tokens": 100, "max_cost": 0.25}
    assert ask(**prices, concurrency=6)[0] == ["Yes."] * 6
    assert max(most) == 2


ANSWERS_COST = {"price_output": 1000.0, "max_tokens": 100}


@pytest.mark.parametrize(
    ("usage", "options", "line"),
    [
        # 0.05 each, at most 0.1: after three answers, six under way, another one would not fit.
        ((0, 50), ANSWERS_COST | {"max_cost": 0.24, "concurrency": 6}, r"0\.15 is spent; 3 ans"),
        # Thoughts: 0.5 each though max_tokens would cost 0.1, and what happened once may again.
        ((0, 500), ANSWERS_COST | {"max_cost": 1.4}, r"exceed 1\.4, 1 is spent; 2 answers"),
        # Three bytes a character, which may be a token each: 600 bytes and some more, of 0.001.
        (
            (600, 0),
            {"price_input": 1000.0, "max_cost": 1.4, "max_tokens": 1},
            r"exceed 1\.4, 1\.2 is spent; 2 answers|0\.6 is spent; 1 answers",
        ),
    ],
)
def test_what_may_be_spent_counts(
    usage: tuple[int, int], options: dict[str, float], line: str, server: ChatServer, ask: Ask
):
    server.answer = lambda _: chat("Yes.", usage=usage)
    with pytest.raises(InputError, match=line):
        ask([replace(e, docs=(Document("T", "汉字" * 100),)) for e in EXAMPLES], **options)


def test_options_that_make_no_sense():
    with pytest.raises(ValidationError, match="max_cost: expected price_input or price_output"):
        EndpointOptions(max_cost=1.0)
    raw_config = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())
    raw_config["teacher"] = {"endpoint": {"model": "m", "api_key_variable": "sk-proj-secret"}}
    with pytest.raises(InputError, match="expected the name of an environment variable") as caught:
        load_config(raw_config)
    assert "secret" not in str(caught.value)


def test_a_key_in_an_answer_is_written_nowhere(
    server: ChatServer, ask: Ask, tmp_path: Path, monkeypatch: Patch
):
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    server.answer = lambda _: chat("The key is sk-secret [1].")
    assert ask(EXAMPLES[:1], api_key_variable="TEACHER_KEY")[0] == ["The key is *** [1]."]
    assert server.requests[-1][1]["authorization"] == "Bearer sk-secret"
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"sk-secret" in content for content in written)


ODD = {
    "thoughts": (chat("<think>\nWell [9].\n</think>\n\nYes [1]."), "Yes [1]."),
    "thoughts that a template opened": (chat("Well [9].\n</think>\n\nYes [1]."), "Yes [1]."),
    "thoughts without an end": (chat("<think>\nWell [9]."), None),
    "half a character": (chat("So \ud83d [1]."), "So ? [1]."),
    "more tokens than there are": (chat("Yes.", usage=(10**400, 1)), "Yes."),
    "tokens that are no number": (chat("Yes.", usage=(True, True)), "Yes."),
    "tokens that are not returned": (chat("Yes.", usage=None), "Yes."),
    "no text": (chat(3), None),
}


@pytest.mark.parametrize(("sent", "output"), ODD.values(), ids=ODD)
def test_odd_answers_are_paid_once(sent: Any, output: str | None, server: ChatServer, ask: Ask):
    server.answer = lambda _: sent
    assert ask(EXAMPLES[:1])[0] == [output]
    # What was written down is read again.
    outputs, again = ask(EXAMPLES[:1])
    assert outputs == [output]
    assert len(server.requests) == 1
    account = again.account()
    if account["estimated"]:
        messages = [m["content"] for m in server.requests[0][2]["messages"]]
        assert account["prompt_tokens"] == sum(-(-len(text) // 4) for text in messages)
    assert account["answer_tokens"] == (1 if account["estimated"] else 10)


@pytest.mark.parametrize("record", [5, {"asked": "x", "reply": {"text": "Yes [1]."}}])
def test_a_journal_that_is_none(record: Any, ask: Ask, tmp_path: Path):
    (tmp_path / "journal.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=r"journal\.jsonl: expected the journal of a teacher"):
        ask()


def test_demonstrations_may_have_turns_of_their_own(server: ChatServer, tmp_path: Path):
    demo = {"question": "D?", "answer": " So [1].", "docs": [{"title": "A", "text": "B."}]}
    file = {"instruction": "Say.", "demo_sep": "\n\n", "demos": [demo]}
    file |= {"demo_prompt": "{INST} {Q}\n{D}\nAnswer: {A}", "doc_prompt": "[{ID}] {T}: {P}\n"}
    (tmp_path / "p.json").write_text(json.dumps(file))
    layout = PromptOptions(files={"asqa": str(tmp_path / "p.json")}, shots=1, demo_turns=True)
    options = EndpointOptions(url=server.url, model="m", system=None)
    with closing(Endpoint(options, layout, tmp_path / "journal.jsonl")) as endpoint:
        endpoint.answer(EXAMPLES[:1])
    assert [(m["role"], m["content"]) for m in server.requests[0][2]["messages"]] == [
        ("user", "Say. D?\n[1] A: B.\n\nAnswer:"),
        ("assistant", "So [1]."),
        ("user", "Say. Question 0?\n[1] T: Text 0.\n\nAnswer:"),
    ]


# The stage.


def stage(
    endpoint: dict[str, Any], folder: Path, examples: list[Example] = EXAMPLES, **others: Any
) -> str:
    endpoint = {"model": "m", "concurrency": 1, **endpoint}
    return run_teach(folder, examples, citations="endpoint", endpoint=endpoint, **others)


def test_the_stage_requests_what_is_missing_and_writes_an_account(
    server: ChatServer, tmp_path: Path
):
    given = Example("x", "asqa", "Given?", EXAMPLES[0].docs, output="Given [1].")
    examples = [given, *EXAMPLES[:2]]
    server.wrong.extend([PLAIN] + [error("gone", 403)] * 8)
    options = {"url": server.url, "price_output": 1.0}
    with pytest.raises(InputError, match="answered 403"):
        stage(options, tmp_path, examples)
    assert json.loads((tmp_path / "account.json").read_text())["answers"] == 1
    assert not (tmp_path / "train.json").exists()
    server.wrong.clear()
    line = stage(options, tmp_path, examples)
    assert line == "teach: tokens 220, cost 2e-05, train answers 3, dev answers 3"
    assert outputs_of(tmp_path) == ["Given [1].", "Yes.", YES]
    assert json.loads((tmp_path / "account.json").read_text())["cost"] == pytest.approx(2e-5)


def test_mistakes_are_found_before_anything_is_sent(server: ChatServer, tmp_path: Path):
    with pytest.raises(InputError, match=r"^teacher\.endpoint\.model: missing"):
        stage({"url": server.url, "model": None}, tmp_path)
    with pytest.raises(InputError, match=r"^teacher\.prompt\.files\.asqa: missing"):
        stage({"url": server.url}, tmp_path, prompt={"shots": 2})
    assert not server.requests


def test_a_run_that_is_killed_pays_for_nothing_twice(server: ChatServer, tmp_path: Path):
    five = threading.Event()

    def answer(_: Any) -> Any:
        if len(server.requests) > 5:
            five.set()
            server.over.wait(30)
        return chat("Yes.")

    server.answer = answer
    endpoint = {"url": server.url}
    program = (
        "import sys; from pathlib import Path; from tests.teach.test_endpoint import stage; "
        f"stage({endpoint!r}, Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as process:
        assert five.wait(60)
        process.kill()
    server.requests.clear()
    server.answer = lambda _: chat("No.")
    stage(endpoint, tmp_path)
    assert len(server.requests) == 1
    assert outputs_of(tmp_path) == ["Yes."] * 5 + ["No."]
