from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest

from citepipe.data.example import Example
from citepipe.errors import InputError
from citepipe.scoring.mauve import mauve_score, mauve_text

pytest.importorskip("mauve", reason="mauve-text, an optional package, is not installed")

WORDS = ["river", "film", "prize", "Anna", "Berg", "was", "in", "the", "directed", "born"]
QUESTION = "Who directed Silver River?"


@pytest.fixture(scope="module")
def tiny_gpt2(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model; mauve-text loads none without `gpt2` or `bert` in its path."""
    return Path(shutil.copytree(tiny_base, tmp_path_factory.mktemp("gpt2") / "model"))


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
    assert mauve_score(examples, human, str(tiny_gpt2), device="cpu") == pytest.approx(100)
    others = [mauve_score(examples, generated, str(tiny_gpt2), s, "cpu") for s in (1, 2, 3)]
    assert set(others) != {score}


@pytest.mark.parametrize(
    ("examples", "model", "message"),
    [
        ([example("a", 0), example(None, 1)], "tiny", "example 1, field answer: missing"),
        ([example("a")], "tiny", "at least 2 examples with some text, got 1"),
        # A question of punctuation alone and an empty answer make an empty text.
        ([Example("0", "eli5", "...", (), answer="")] * 2, "tiny", "with some text, got 0"),
        ([example("a")] * 2, "nobody/gpt2", "neither a local directory nor a model of the hub"),
    ],
)
def test_what_cannot_be_compared(
    examples: list[Example], model: str, message: str, tiny_gpt2: Path
):
    with pytest.raises(InputError, match=message):
        mauve_score(examples, [""] * len(examples), str(tiny_gpt2) if model == "tiny" else model)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(InputError, match=r"pip install 'citepipe\[mauve\]'"):
        mauve_score([example("a")] * 2, ["b", "c"])
