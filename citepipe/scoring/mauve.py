"""MAUVE (Pillutla et al. 2021) of a file of answers against human ones, as ALCE computes it.

mauve-text clusters the states of a language model by a seed: another seed gives a score that is
some points away; another device or version of torch, one that differs only where a text is on the
edge of a cluster.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from citepipe.data.example import Example
from citepipe.errors import InputError
from citepipe.models.pretrained import load_checkpoint

# Words, tokens and texts per batch in ALCE's `compute_mauve`; its seed is mauve-text's own, 25.
_WORDS, _TOKENS, _BATCH = 100, 512, 8


def mauve_score(
    examples: Sequence[Example],
    texts: Sequence[str],
    model: str = "gpt2-large",
    seed: int = 25,
    device: str = "auto",
) -> float:
    """MAUVE, from 0 to 100, of one answer per example against its human `answer`.

    There is a cluster per ten examples: of few the score is coarse, its authors recommend
    thousands.

    Args:
        examples: at least two questions with `answer`.
        texts: cleaned answers without citations, one per example.
        model: the language model behind the features: directory or hub id.
        seed: of the clusters.
        device: where the model runs.

    Raises:
        InputError: mauve-text is not installed, an example has no `answer`, there are too few, or
            there is no such model.
    """
    try:
        from mauve import compute_mauve
        from mauve.utils import featurize_tokens_from_model
    except ImportError:
        raise InputError(
            "mauve: the package mauve-text is not installed; run `pip install 'citepipe[mauve]'`"
        ) from None
    for example in examples:
        if example.answer is None:
            raise InputError(
                f"example {example.id}, field answer: missing; MAUVE compares with a human answer "
                "to every question"
            )
    sides = [
        # mauve-text leaves empty texts out.
        [text for text in map(mauve_text, examples, answers) if text]
        for answers in ([example.answer or "" for example in examples], texts)
    ]
    if (fewest := min(map(len, sides))) < 2:
        raise InputError(f"MAUVE: expected at least 2 examples with some text, got {fewest}")
    # mauve-text would load the model itself, by names with `gpt2` or `bert` and from pickles too.
    checkpoint = load_checkpoint(model, "AutoModel", device, "float32", None, "MAUVE's model")
    if checkpoint.model.config.is_encoder_decoder:
        raise InputError(f"MAUVE's model {model}: expected a decoder or an encoder, it is both")
    encode, most = checkpoint.tokenizer.encode, int(checkpoint.tokenizer.model_max_length)
    cut: Any = {"return_tensors": "pt", "truncation": True, "max_length": min(_TOKENS, most)}
    tokens = [[encode(text, **cut) for text in side] for side in sides]
    human, generated = (
        featurize_tokens_from_model(checkpoint.model, side, _BATCH, name).numpy()
        for side, name in zip(tokens, ("human answers", "answers"), strict=True)
    )
    result = compute_mauve(p_features=human, q_features=generated, seed=seed, verbose=False)
    # The area is a sum of many, and may pass one in its last digits.
    return min(100 * float(result.mauve), 100.0)


def mauve_text(example: Example, answer: str) -> str:
    """Question and answer as MAUVE reads them: the first 100 words, without final punctuation."""
    words = f"{example.question} {answer.strip()}".split()
    return " ".join(words[:_WORDS]).rstrip(string.punctuation)
