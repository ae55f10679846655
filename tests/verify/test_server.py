"""A judge behind a server: what is sent, what its answers mean, and what a bad server costs."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.verify.base import Pair
from citepipe.verify.cascade import Cascade, Level
from citepipe.verify.load import load_verifier
from tests.generate.loopback_server import Body, ChatServer, chat, raw, status

pytestmark = pytest.mark.usefixtures("pauses")

PAIRS = [Pair(f"Mill {n} is old.", f"It is {word}.") for n in range(3) for word in ("old", "new")]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        running.answer = truthful
        yield running


def considered(*tokens: tuple[str, dict[str, float]]) -> Body:
    """A completion whose tokens were chosen from others, with their probabilities."""
    content = [
        {
            "token": token,
            "logprob": math.log(others.get(token, 1.0)),
            "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in others.items()],
        }
        for token, others in tokens
    ]
    value = chat("".join(token for token, _ in tokens))
    value["choices"][0]["logprobs"] = {"content": content}
    return value


def truthful(body: Body) -> Body:
    """Yes with 0.6 + 0.1 against 0.2 if old is claimed, else with 0.3 against 0.5."""
    if "It is old" in body["messages"][-1]["content"]:
        return considered(("Yes", {"Yes": 0.6, " yes": 0.1, "No": 0.2, "Maybe": 0.1}))
    return considered(("No", {"No": 0.5, "Yes": 0.3, "Nope": 0.2}))


def judge(server: ChatServer, tmp_path: Path, settings: str = "") -> Any:
    spec = f"server:{server.url}#org/judge:7b?concurrency=1&retries=1{settings}"
    return load_verifier(spec, tmp_path / "c.sqlite")


def test_the_probability_decides_and_no_answer_is_requested_twice(
    server: ChatServer, tmp_path: Path
):
    verifier = judge(server, tmp_path)
    assert verifier.entails([*PAIRS, *PAIRS]) == [True, False] * 6
    assert (verifier.computed, len(server.requests)) == (6, 6)
    supports = dict(own for batch in verifier.supports(PAIRS) for own in batch)
    assert supports[PAIRS[0]] == pytest.approx(0.7 / 0.9)
    assert supports[PAIRS[1]] == pytest.approx(0.3 / 0.8)
    path, _, body = server.requests[0]
    assert path == "/v1/chat/completions"
    system, asked = body.pop("messages")
    assert system["content"].startswith("Determine whether the provided claim is consistent")
    assert asked["content"] == "Document: Mill 0 is old.\nClaim: It is old."
    limits = {"max_tokens": 16, "temperature": 0.0, "logprobs": True, "top_logprobs": 20}
    assert body == {"model": "org/judge:7b", **limits}
    # Another process, and another threshold.
    again = judge(server, tmp_path, "&threshold=0.2-0.7")
    assert again.verdicts(PAIRS) == [True, None] * 3
    assert again.entails(PAIRS) == [True, False] * 3
    assert (again.computed, len(server.requests)) == (0, 6)
    assert again.identity != verifier.identity


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (chat("Yes, it is."), True),
        (chat("**No**"), False),
        (chat("<think>No? Yes.</think>No."), False),
        (considered(("<think>", {}), ("no", {"no": 1.0}), ("</think>", {}), ("Yes", {})), True),
        # What says neither has considered both.
        (considered(("Perhaps", {"Perhaps": 0.6, "yes": 0.3, " No": 0.1})), True),
        # Of a thought that was cut off nothing is known.
        (considered(("<think>", {}), ("yes", {"yes": 1.0})), False),
        # Lies: the word counts.
        *(
            ({"choices": [chat("Yes")["choices"][0] | {"logprobs": {"content": content}}]}, True)
            for content in (
                "yes",
                [{"token": "Yes", "logprob": "high", "top_logprobs": []}],
                [{"token": "Yes", "logprob": math.inf, "top_logprobs": []}],
                [{"token": "Yes", "logprob": 1e9, "top_logprobs": []}],
                [{"token": 7}],
            )
        ),
    ],
)
def test_what_an_answer_means(server: ChatServer, tmp_path: Path, answer: Body, expected: bool):
    server.answer = lambda _: answer
    assert judge(server, tmp_path).entails(PAIRS[:1]) == [expected]


def test_a_word_that_is_not_listed_counts_half_of_what_it_may_have(
    server: ChatServer, tmp_path: Path
):
    """At most as much as the least likely token that is listed, 0.1, or as the rest, 0.02."""
    spreads = [{"The": 0.5, "yes": 0.2, "A": 0.1}, {"no": 0.9, "A": 0.08}]
    for spread, expected in zip(spreads, (0.2 / (0.2 + 0.05), 0.01 / (0.01 + 0.9)), strict=True):
        server.answer = lambda _, own=spread: considered((next(iter(own)), own))
        pair = Pair(f"{expected}", "It is so.")
        assert list(judge(server, tmp_path).supports([pair])) == [[(pair, pytest.approx(expected))]]


def test_granites_yes_is_of_what_is_not_grounded(server: ChatServer, tmp_path: Path):
    server.answer = lambda _: considered(
        ("<think>\n</think>\n<score>", {}), (" no", {" no": 0.9, " yes": 0.1})
    )
    verifier = judge(server, tmp_path, "&template=granite-guardian&logprobs=0")
    assert verifier.entails(PAIRS[:1]) == [True]
    _, _, body = server.requests[0]
    assert body["documents"] == [{"doc_id": "0", "text": "Mill 0 is old."}]
    assert body["messages"][0] == {"role": "assistant", "content": "It is old."}
    assert "logprobs" not in body


def test_a_judge_that_grades_says_what_is_supported_in_part(server: ChatServer, tmp_path: Path):
    answers = iter(["Full Support", "**Partial support**", "No support."])
    server.answer = lambda _: chat(next(answers))
    verifier = judge(server, tmp_path, "&template=graded")
    assert (verifier.graded, verifier.verdicts(PAIRS[:3])) == (True, [True, None, False])
    assert verifier.entails(PAIRS[:3]) == [True, False, False]
    assert "logprobs" not in server.requests[0][2]
    # Nothing is asked again where a part is enough.
    lenient = judge(server, tmp_path, "&template=graded&threshold=0.25")
    assert (lenient.graded, lenient.verdicts(PAIRS[:3])) == (False, [True, True, False])
    assert len(server.requests) == 3


def test_a_server_that_dies_or_talks_nonsense_loses_nothing(server: ChatServer, tmp_path: Path):
    half = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    server.wrong += [half, status(503, {}), raw(b"")]
    verifier = judge(server, tmp_path, "&timeout=5")
    with pytest.raises(InputError, match="http://127") as caught:
        verifier.entails(PAIRS)
    assert "\n" not in str(caught.value)
    server.wrong.clear()
    answered = iter(range(3))

    def dying(body: Body) -> Body:
        if next(answered, None) is None:
            server.die()
        return truthful(body)

    server.answer = dying
    with pytest.raises(InputError, match=r"gave no .*; 3 answers are kept, the same"):
        verifier.entails(PAIRS)
    server.answer, before = truthful, len(server.requests)
    server.start()
    assert judge(server, tmp_path).entails(PAIRS) == [True, False] * 3
    assert len(server.requests) - before == 3


def test_threads_share_a_judge(server: ChatServer, tmp_path: Path):
    verifier = judge(server, tmp_path)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(verifier.entails, [PAIRS] * 4))
    assert found == [[True, False] * 3] * 4
    assert len(server.requests) == 6


def test_what_is_refused_or_unclear_is_not_entailed_and_counted(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    server.wrong += [status(400, {"error": {"message": "too long"}}), status(200, chat("Perhaps"))]
    verifier = judge(server, tmp_path)
    assert verifier.entails(PAIRS) == [False, False] + [True, False] * 2
    assert verifier.computed == 6
    said = "1 of 6 pairs refused (the last one: too long), 1 answered by none of yes, no; they"
    assert said in capsys.readouterr().err


def test_money_is_counted_and_capped_over_all_runs(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Each answer of 100 and 10 tokens costs 0.12; an open one counts about 0.6, by its bytes."""
    money = "&price_input=1000&price_output=2000&max_cost="
    with pytest.raises(InputError, match=r"judge:7b: expected a higher max_cost: .* exceed 0\.9"):
        judge(server, tmp_path, f"{money}0.9").entails(PAIRS)
    assert len(server.requests) == 4
    judge(server, tmp_path, f"{money}9").entails(PAIRS)
    assert len(server.requests) == 6
    assert "answers 6, prompt_tokens 600, answer_tokens 60, " in capsys.readouterr().err
    level = Level(judge(server, tmp_path, f"{money}9"), has_band=False)
    Cascade([level]).entails([*PAIRS, Pair("Mill 9 is old.", "It is old.")])
    account = level.account()
    assert (account["known"], account["cost"]) == (6, pytest.approx(0.12))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("server:http://127.0.0.1:1/v1", "expected server:URL#MODEL"),
        ("server:nowhere#m", "url: "),
        ("server:http://127.0.0.1:1/v1#m?max_tokens=none", "max_tokens: Input should be a valid"),
        ("server:http://127.0.0.1:1/v1#m?speed=1", "speed: Extra inputs"),
        ("server:http://127.0.0.1:1/v1#m?template=x", "template 'x', expected minicheck, granite"),
        ("server:http://127.0.0.1:1/v1#m?threshold=2", "expected a number from 0"),
        ("server:http://127.0.0.1:1/v1#m?api_key_variable=NOT_SET", "environment variable NOT_SET"),
    ],
)
def test_a_spec_that_cannot_be_is_one_clear_line(spec: str, message: str):
    with pytest.raises(InputError, match=message) as caught:
        load_verifier(spec)
    assert "\n" not in str(caught.value)
