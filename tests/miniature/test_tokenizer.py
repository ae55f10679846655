from itertools import chain

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from citepipe.miniature.tokenizer import build_tokenizer
from citepipe.miniature.world import build_world
from citepipe.options import WorldOptions


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """As any stage loads it: saved, and read again by its directory."""
    directory = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory)


def test_one_token_per_word_and_citation(tokenizer: PreTrainedTokenizerBase) -> None:
    text = " Anna Berg starred in Silver River in 1972 [1][3]."
    assert tokenizer.tokenize(text) == [
        *(" Anna", " Berg", " starred", " in", " Silver", " River", " in", " 1972"),
        *(" [1]", "[3]", "."),
    ]


def test_world_texts_come_back_exactly(tokenizer: PreTrainedTokenizerBase) -> None:
    unknown = tokenizer.unk_token_id
    world = build_world(WorldOptions(train=20, dev=5, test=5, expertqa=5), seed=0)
    for drawn in chain.from_iterable(world.splits.values()):
        docs = "".join(f" [{i}] {d.title}: {d.text}\n" for i, d in enumerate(drawn.example.docs, 1))
        text = f"Question: {drawn.example.question}\n{docs}Answer: {drawn.gold}"
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert unknown not in ids
        # No word of the world is spelled in bytes.
        assert len(ids) < len(text.split()) * 2


@pytest.mark.parametrize(
    "text", ["", " ", "[1][2]. [3]", "Zürich [1, 2]\n\n  U.S. 3.5 \u201cx\u201d", "\ttab", "🎬"]
)
def test_any_text_comes_back_exactly(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_pad_and_eos_are_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.decode([tokenizer.eos_token_id], skip_special_tokens=True) == ""
