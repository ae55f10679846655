"""Which text every sampled token wrote, and where answers end."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citepipe.generate.completion import Completion, FinishReason
from citepipe.generate.text import Cut, Detokenizer
from citepipe.models.load import load_tokenizer
from citepipe.options import ModelOptions
from tests.generate.tiny_tokenizers import BYTES, KINDS, make_tokenizer
from tests.text.odd_texts import ODD

FRAGMENTS = [
    "the",
    " ",
    "  ",
    "Paris",
    "é",
    "日本",
    "語",
    "👩‍👩‍👧",
    "e\u0301",
    "שלום",
    "[1]",
    ".",
    "\n",
]
TEXTS = st.lists(st.sampled_from([*FRAGMENTS, "<|im_end|>"]), max_size=12).map("".join)


def written(kind: str, text: str, taken: slice = slice(None)) -> list[str]:
    """What each token of a text wrote."""
    tokenizer = make_tokenizer(kind)
    decoded, offsets = Detokenizer(tokenizer).text_and_offsets(tokenizer(text)["input_ids"][taken])
    return [decoded[start:end] for start, end in offsets]


def test_spans_of_a_byte_level_tokenizer(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(ModelOptions(base=str(tiny_base)))
    spans = Detokenizer(tokenizer).text_and_offsets
    text = " Anna Berg [1], born 1995."
    ids = tokenizer(text)["input_ids"]
    decoded, offsets = spans(ids)
    assert decoded == text
    assert [text[a:b] for a, b in offsets] == [tokenizer.decode([i]) for i in ids]
    # The euro sign is three bytes that were never merged; it belongs to the last of them.
    ids = tokenizer("a€b")["input_ids"]
    assert spans(ids) == ("a€b", [(0, 1), (1, 1), (1, 1), (1, 2), (2, 3)])
    decoded, offsets = spans(ids[:3])
    assert offsets[0] == (0, 1)
    assert offsets[-1][1] == len(decoded), "bytes that are cut off stay inside the text"
    assert spans([*ids, tokenizer.eos_token_id])[1][-1] == (3, 3), "the end writes nothing"


def test_bytes_of_no_character_are_written_one_by_one() -> None:
    # The decoder reads the three as one run; also the line break in it is then no character.
    tokenizer = make_tokenizer("sentencepiece")
    ids = tokenizer.convert_tokens_to_ids(["▁is", "<0xC3>", "<0x0A>", "<0xFF>", "▁Paris"])
    decoded, offsets = Detokenizer(tokenizer).text_and_offsets(ids)
    assert decoded == "is\ufffd\ufffd\ufffd Paris"
    assert offsets == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 11)]


@pytest.mark.parametrize("kind", ["sentencepiece", "metaspace"])
def test_the_first_token_loses_its_space_and_no_other(kind: str) -> None:
    assert written(kind, "the Paris the") == ["the", " Paris", " the"]
    assert written(kind, "é  the<|im_end|>") == ["", "é", " ", " the", "<|im_end|>"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_cut_inside_of_a_character(kind: str) -> None:
    # Three of four bytes are there: a decoder makes one character of them, or three.
    assert written(kind, "Paris𓀀", slice(-1))[-3:] in (["\ufffd"] * 3, ["\ufffd", "", ""])


@ODD
@given(st.sampled_from(KINDS), st.data())
def test_any_ids_write_each_character_of_the_text_once(kind: str, data: st.DataObject) -> None:
    tokenizer = make_tokenizer(kind)
    end = tokenizer.eos_token_id
    # A model can have more embeddings than its tokenizer has tokens.
    one = st.one_of(st.integers(0, len(tokenizer) + 2), st.just(end))
    encoded = TEXTS.map(lambda text: tokenizer(text)["input_ids"])
    ids = data.draw(st.lists(st.one_of(one.map(lambda i: [i]), encoded), max_size=12))
    ids = list(itertools.chain.from_iterable(ids))
    detokenizer = Detokenizer(tokenizer)
    text, offsets = detokenizer.text_and_offsets(ids)
    assert text == tokenizer.decode(ids, skip_special_tokens=True)
    assert len(offsets) == len(ids)
    place = 0
    for token, (start, stop) in zip(ids, offsets, strict=True):
        assert place == start <= stop
        assert stop == start or token not in (end, len(tokenizer), len(tokenizer) + 2)
        place = stop
    assert place == len(text)


@ODD
@given(st.sampled_from(KINDS), TEXTS, st.integers(0, 80))
def test_a_character_is_written_by_the_token_with_its_last_byte(
    kind: str, text: str, count: int
) -> None:
    tokenizer = make_tokenizer(kind)
    ids = tokenizer(text)["input_ids"][:count]
    decoded, offsets = Detokenizer(tokenizer).text_and_offsets(ids)
    spelled = [_spelled(token, kind) for token in tokenizer.convert_ids_to_tokens(ids)]
    before = b""
    for place, (start, stop) in enumerate(offsets):
        before += spelled[place]
        whole = before.decode(errors="ignore")
        if kind != "bytes":
            whole = whole.removeprefix(" ")
        if decoded.startswith(whole):  # else the bytes are cut off at the end
            assert stop == len(whole) or decoded[len(whole) : stop].strip("\ufffd") == ""
        assert start <= stop


def _spelled(token: str, kind: str) -> bytes:
    """The bytes that a token stands for."""
    if kind != "bytes":
        if token in BYTES:
            return bytes([BYTES.index(token)])
        return token.replace("▁", " ").encode()
    if token == "<|im_end|>":
        return token.encode()
    # GPT-2 writes bytes that are no visible character as characters from 256 on.
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return bytes(ord(c) if ord(c) < 256 else others[ord(c) - 256] for c in token)


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
