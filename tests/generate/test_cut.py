"""Where answers end."""

from __future__ import annotations

import re

import pytest

from citepipe.generate.completion import Completion, FinishReason
from citepipe.generate.cut import Cut
from citepipe.generate.detokenize import Detokenizer
from tests.generate.tiny_tokenizers import KINDS, make_tokenizer


def _follow(cut: Cut, token_ids: list[int]) -> tuple[FinishReason | None, int]:
    """Why an answer ends, and with which of the tokens."""
    for count, token_id in enumerate(token_ids, start=1):
        if finish := cut.add(token_id):
            return finish, count
    return None, len(token_ids)


def _cut(kind: str, answer: str, prefix: str = "", **others: object) -> tuple[str, Completion]:
    """Where an answer ends behind a prefix of it; the tokens are those of both together."""
    tokenizer = make_tokenizer(kind)
    ids = tokenizer(prefix + answer)["input_ids"]
    before = len(tokenizer(prefix)["input_ids"]) if prefix else 0
    arguments = {"stop": ("\n",), "segment_end": None, "end_ids": {tokenizer.eos_token_id}}
    cut = Cut(Detokenizer(tokenizer), ids[:before], **{**arguments, **others})
    finish, count = _follow(cut, ids[before:])
    told = ids[before:][:count]
    return str(finish), cut.completion(told, [-1.0] * count, finish or "length")


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_ends_before_its_stop_string(kind: str) -> None:
    finish, completion = _cut(kind, "the Paris\nthe")
    assert finish == "stop"
    assert completion.text == "the Paris"
    assert completion.offsets[-1] == (9, 9), "the line break itself writes nothing"
    assert len(completion.log_probs) == len(completion.token_ids)
    finish, completion = _cut(kind, "the Paris is the", stop=("is t", "zz"))
    assert finish == "stop"
    assert completion.text == "the Paris "
    finish, completion = _cut(kind, "the 日 Paris", stop=("日",))
    assert (finish, completion.text) == ("stop", "the ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_continuation_keeps_the_space_in_front_of_it(kind: str) -> None:
    finish, completion = _cut(kind, " is Paris", prefix="the Paris")
    assert finish == "None"
    assert completion.text == " is Paris"
    assert completion.offsets[0][0] == 0
    assert completion.offsets[-1][1] == len(completion.text)


def test_a_stop_string_is_looked_for_behind_the_prefix_only() -> None:
    tokenizer = make_tokenizer("bytes")
    before, after = tokenizer("i")["input_ids"], tokenizer("sis")["input_ids"]
    cut = Cut(Detokenizer(tokenizer), before, ("is",), None, set())
    assert _follow(cut, after) == ("stop", len(after))
    assert cut.completion(after, [], "stop").text == "s"


@pytest.mark.parametrize("kind", KINDS)
def test_a_segment_keeps_the_token_that_reaches_over_its_end(kind: str) -> None:
    tokenizer = make_tokenizer(kind)

    def end(text: str) -> int | None:
        return text.find("ari") + 2 if "ari" in text else None

    finish, completion = _cut(kind, "the Paris is", segment_end=end)
    assert finish == "segment"
    assert completion.text.startswith("the Par")
    assert completion.offsets[-1][0] < len("the Pa") <= completion.offsets[-1][1]
    assert tokenizer.decode(list(completion.token_ids)) == completion.text


def test_the_token_that_ends_answers_comes_first() -> None:
    tokenizer = make_tokenizer("bytes")
    end = tokenizer("the")["input_ids"][0]
    cut = Cut(Detokenizer(tokenizer), (), ("\n",), lambda _: 0, {end})
    assert cut.add(end) == "end"
    assert cut.completion([end], [-0.5], "end") == Completion((end,), "", ((0, 0),), (-0.5,), "end")


class Collapsing(Detokenizer):
    """A decoder whose texts are not what their tokens say one by one."""

    def decode(self, token_ids):  # type: ignore[no-untyped-def]
        return re.sub(r"(.)\1+", r"\1", super().decode(token_ids))


def test_a_decoder_that_joins_tokens_is_believed_over_them() -> None:
    tokenizer = make_tokenizer("bytes")
    detokenizer = Collapsing(tokenizer)
    assert not detokenizer.is_additive
    assert Detokenizer(tokenizer).is_additive
    ids = tokenizer("a iis b")["input_ids"]
    cut = Cut(detokenizer, (), ("is",), None, set())
    finish, count = _follow(cut, ids)
    assert finish == "stop"
    assert cut.completion(ids[:count], [], "stop").text == "a "
