from itertools import chain

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from citepipe.miniature.corpus import Corpus, build_tokenizer
from citepipe.miniature.world import build_world
from citepipe.options import MiniatureOptions, WorldOptions

OPTIONS = MiniatureOptions()


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(build_tokenizer(), OPTIONS.prompt, seed=0)


def test_no_answer_outside_the_drills_cites(corpus: Corpus) -> None:
    for read in (corpus.answer, corpus.facts):
        for _ in range(200):
            text = corpus.tokenizer.decode(read().ids)
            _, _, answer = text.rpartition("Answer:" if "Answer:" in text else "Facts:")
            assert answer.endswith(".<eos>")
            assert "[" not in answer


def test_answers_weigh_fully_and_prompts_little(corpus: Corpus) -> None:
    read = corpus.answer()
    cue = read.ids.index(corpus.tokenizer.convert_tokens_to_ids("Answer:"))
    assert set(read.weights[: cue + 1]) == {0.03}
    assert set(read.weights[cue + 1 :]) == {1.0}


def test_abstract_drill_repeats_every_chunk_with_its_number(corpus: Corpus) -> None:
    read = corpus.abstract_drill()
    text = corpus.tokenizer.decode(read.ids).removesuffix("<eos>")
    numbered, _, repeated = text.partition("Facts:")
    chunks = dict(part.strip().split(" ", 1) for part in numbered.split(".")[:-1])
    assert list(chunks) == ["[1]", "[2]", "[3]", "[4]", "[5]"]
    again = [part.strip().rsplit(" ", 1) for part in repeated.split(".")[:-1]]
    assert sorted((number, chunk) for chunk, number in again) == sorted(chunks.items())
    cue = read.ids.index(corpus.tokenizer.convert_tokens_to_ids("Facts:"))
    # Nobody could predict which chunk is repeated next: each one's first token has no weight.
    assert set(read.weights[: cue + 2]) == {0.0}
    assert read.weights[cue + 1 :].count(0.0) == 5


def test_document_drill_cites_the_document_that_it_quotes(corpus: Corpus) -> None:
    quoted = 0
    for _ in range(100):
        text = corpus.tokenizer.decode(corpus.document_drill().ids)
        docs, _, quotes = text.partition("Facts:")
        lines = docs.split("\n")
        for quote in quotes.rstrip(".").replace(",", ".").split("."):
            words, _, number = quote.strip().rpartition(" ")
            line = lines[int(number.strip("[]")) - 1].replace(":", "")
            assert set(words.split()) <= set(line.rstrip(".").split())
            quoted += 1
    assert quoted >= 200


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
    world = build_world(WorldOptions(train=20, dev=5, test=5, expertqa=5), seed=0)
    for drawn in chain.from_iterable(world.values()):
        docs = "".join(f" [{i}] {d.title}: {d.text}\n" for i, d in enumerate(drawn.example.docs, 1))
        answer = drawn.answer([[claim.document] for claim in drawn.claims])
        text = f"Question: {drawn.example.question}\n{docs}Answer: {answer}"
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        # No word of the world is spelled in bytes.
        assert len(ids) < len(text.split()) * 2


@pytest.mark.parametrize(
    "text", ["", " ", "[1][2]. [3]", "Zürich [1, 2]\n\n  U.S. 3.5 \u201cx\u201d", "\ttab", "🎬"]
)
def test_any_text_comes_back_exactly(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
