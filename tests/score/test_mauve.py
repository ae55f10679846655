from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import pytest

from citepipe.data.example import Example
from citepipe.errors import InputError
from citepipe.score.mauve import mauve_score, mauve_text

pytest.importorskip("mauve", reason="mauve-text, an optional package, is not installed")

WORDS = ["river", "film", "prize", "Anna", "Berg", "was", "in", "the", "directed", "born"]
QUESTION = "Who directed Silver River?"


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with random weights and a tokenizer of bytes; mauve-text wants its name so."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    torch.set_num_threads(1)
    torch.manual_seed(2)
    pieces = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    directory = tmp_path_factory.mktemp("tiny-gpt2")
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(pieces),
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=1024,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.3,
        )
    ).save_pretrained(directory)
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    GPT2Tokenizer(vocabulary, [], model_max_length=1024).save_pretrained(directory)
    return directory


def example(answer: str | None, number: int = 0) -> Example:
    return Example(str(number), "eli5", QUESTION, (), answer=answer)


def sample(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(3, 60))) + "." for _ in range(n)]


def test_the_text_is_a_hundred_words_without_final_punctuation():
    assert mauve_text(example(None), "  Anna\n Berg (did).) ") == f"{QUESTION} Anna Berg (did"
    assert mauve_text(example(None), "") == "Who directed Silver River"
    # Four words of the question, 95 of the answer, and the stop goes that ends the last one.
    assert mauve_text(example(None), "a " * 95 + "b. c") == f"{QUESTION} {'a ' * 95}b"


def test_equal_sides_are_100(tiny_gpt2: Path):
    answers = sample(20, 0)
    examples = [example(answer, i) for i, answer in enumerate(answers)]
    score = mauve_score(examples, answers, str(tiny_gpt2), device="cpu")
    assert score == pytest.approx(100)
    assert score <= 100


def test_sides_with_nothing_in_common(tiny_gpt2: Path):
    # All human texts are in one cluster, all others in the other. Of a mixture with a share w of
    # one side the divergences are -ln w and -ln(1 - w), so the curve is (1 - w)^5 over w^5, and
    # the area below it 5 B(6, 5); its 25 points and straight lines give a little more.
    examples = [example("Anna Berg directed it", i) for i in range(8)]
    score = mauve_score(examples, ["in the river"] * 8, str(tiny_gpt2), device="cpu")
    area = 5 * math.factorial(5) * math.factorial(4) / math.factorial(10)
    assert score == pytest.approx(100 * area, rel=0.05)


def test_the_score_is_that_of_mauve_text_with_its_own_features(tiny_gpt2: Path):
    from mauve import compute_mauve

    human, generated = sample(60, 1), sample(60, 2)
    for i in range(0, 60, 2):
        generated[i] = human[i]
    examples = [example(answer, i) for i, answer in enumerate(human)]
    expected = compute_mauve(
        p_text=[mauve_text(e, e.answer or "") for e in examples],
        q_text=[mauve_text(e, text) for e, text in zip(examples, generated, strict=True)],
        featurize_model_name=str(tiny_gpt2),
        max_text_length=512,
        batch_size=8,
    )
    score = mauve_score(examples, generated, str(tiny_gpt2), device="cpu")
    assert score == pytest.approx(100 * expected.mauve, abs=1e-9)
    assert 1 < score < 99.9
    # Again, with the same seed, and with another one.
    assert mauve_score(examples, generated, str(tiny_gpt2), device="cpu") == score
    others = [mauve_score(examples, generated, str(tiny_gpt2), s, "cpu") for s in (1, 2, 3)]
    assert set(others) != {score}


@pytest.mark.parametrize(
    ("examples", "model", "message"),
    [
        ([example("a", 0), example(None, 1)], "tiny", "example 1, field answer: missing"),
        ([example("a")], "tiny", "at least 2 examples with some text, got 1"),
        # A question of punctuation alone and an empty answer make an empty text.
        ([Example("0", "eli5", "...", ())] * 2, "tiny", "field answer: missing"),
        ([Example("0", "eli5", "...", (), answer="")] * 2, "tiny", "with some text, got 0"),
        ([example("a")] * 2, "empty", r"MAUVE's model .*not a model directory"),
        ([example("a")] * 2, "nobody/gpt2", "neither a local directory nor a model of the hub"),
    ],
)
def test_what_cannot_be_compared(
    examples: list[Example], model: str, message: str, tiny_gpt2: Path, tmp_path: Path
):
    target = {"tiny": str(tiny_gpt2), "empty": str(tmp_path)}.get(model, model)
    with pytest.raises(InputError, match=message):
        mauve_score(examples, [""] * len(examples), target)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(InputError, match=r"pip install 'citepipe\[mauve\]'"):
        mauve_score([example("a")] * 2, ["b", "c"])
