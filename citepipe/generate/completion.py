"""What every generator takes and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

SegmentEnd = Callable[[str], int | None]
"""Where the first segment of a generated text ends, or None while that cannot be said yet."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to continue.

    Attributes:
        token_ids: the prompt, followed by whatever part of the answer is already there.
        key: names the sequence; together with the seed it decides every random draw, so that the
            result does not depend on what else is in the batch.
        max_new_tokens: tokens to add, at most.
    """

    token_ids: tuple[int, ...]
    key: str
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: greedily if `temperature` is 0, else at random.

    Attributes:
        temperature: logits are divided by it.
        top_k: only the k likeliest tokens can be drawn; 0 for all.
        seed: with a request's key, the seed of its draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A continuation.

    Attributes:
        token_ids: every generated token, with the one that ended it (end of sequence, newline);
            tokens that begin after the end of a segment are dropped.
        text: the text of those tokens before the first newline.
        offsets: per token, the span of `text` that it wrote; empty spans for tokens that wrote
            nothing (the end of sequence, the first bytes of a multi-byte character).
        log_probs: per token, its log-probability under the model (at temperature 1, over the
            whole vocabulary).
        finished: the model ended the answer itself, by an end of sequence or a newline; False if
            it ran into `max_new_tokens`, or stopped at the end of a segment.
    """

    token_ids: tuple[int, ...]
    text: str
    offsets: tuple[tuple[int, int], ...]
    log_probs: tuple[float, ...]
    finished: bool


class Generator(Protocol):
    """Anything that continues prompts."""

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        segment_end: SegmentEnd | None = None,
    ) -> list[Completion]:
        """Continue every request; the result is in the requests' order.

        Args:
            requests: what to continue.
            sampling: how to choose tokens.
            segment_end: if given, a sequence is also cut where this says that a segment ends.
        """
        ...
