"""Every sampled token has the span of text that it wrote."""

from pathlib import Path

from citepipe.generate.detokenize import Detokenizer
from citepipe.models.load import load_tokenizer
from citepipe.options.model import ModelOptions


def test_spans_cover_the_text_in_order(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(ModelOptions(base=str(tiny_base)))
    text = " Anna Berg [1], born 1995."
    ids = tokenizer(text)["input_ids"]
    decoded, offsets = Detokenizer(tokenizer).text_and_offsets(ids)
    assert decoded == text
    assert [text[a:b] for a, b in offsets] == [tokenizer.decode([i]) for i in ids]


def test_a_character_split_over_tokens_belongs_to_the_one_that_completes_it(
    tiny_base: Path,
) -> None:
    tokenizer = load_tokenizer(ModelOptions(base=str(tiny_base)))
    ids = tokenizer("a€b")["input_ids"]
    assert len(ids) == 5, "the euro sign is three bytes that were never merged"
    decoded, offsets = Detokenizer(tokenizer).text_and_offsets(ids)
    assert decoded == "a€b"
    assert offsets == [(0, 1), (1, 1), (1, 1), (1, 2), (2, 3)]


def test_the_end_of_sequence_writes_nothing(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(ModelOptions(base=str(tiny_base)))
    ids = [*tokenizer("Who")["input_ids"], tokenizer.eos_token_id]
    decoded, offsets = Detokenizer(tokenizer).text_and_offsets(ids)
    assert decoded == "Who"
    assert offsets[-1] == (3, 3)


def test_bytes_that_are_cut_off_stay_inside_the_text(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(ModelOptions(base=str(tiny_base)))
    ids = tokenizer("a€")["input_ids"][:-1]
    decoded, offsets = Detokenizer(tokenizer).text_and_offsets(ids)
    assert offsets[0] == (0, 1)
    assert offsets[-1][1] == len(decoded)
