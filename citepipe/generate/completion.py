"""What every generator takes and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

SegmentEnd = Callable[[str], int | None]
"""Where the first segment of a generated text ends, or None while that cannot be said yet."""

FinishReason = Literal["end", "stop", "segment", "length"]
"""Why a completion ended: by a token that ends answers, at a stop string, at the end of a segment,
or because it is as long as it may be."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: greedily if `temperature` is 0, else at random.

    Attributes:
        temperature: logits are divided by it.
        top_k: only the k likeliest tokens can be drawn; 0 for all.
        seed: with a request's key and the number of the sample, the seed of its draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to answer, once or several times.

    Attributes:
        prompt: token ids.
        key: names the request; with the seed and the number of the sample it decides every random
            draw, so that the result does not depend on what else is in the batch.
        max_new_tokens: tokens to add to each sample, at most.
        prefix: token ids of the part of the answer that is there already, which is continued.
        samples: how many completions.
        sampling: how tokens are chosen.
        segment_end: if given, a sample is also cut where this says that a segment ends.
        first: the number of the first sample in the draws' key, for those who ask for the rest of
            some samples.
    """

    prompt: tuple[int, ...]
    key: str
    max_new_tokens: int
    prefix: tuple[int, ...] = ()
    samples: int = 1
    sampling: Sampling = Sampling()
    segment_end: SegmentEnd | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What was added to a prompt and its prefix.

    Attributes:
        token_ids: every generated token, with the one that ended it (end of sequence, the last of
            a stop string); tokens that begin after the end of a segment are dropped.
        text: what those tokens add to the text of the prefix, before the first stop string.
        offsets: per token, the span of `text` that it wrote; empty spans for tokens that wrote
            nothing (the end of sequence, the first bytes of a multi-byte character).
        log_probs: per token, its log-probability under the model (at temperature 1, over the
            whole vocabulary). Empty if a server does not tell them.
        finish: why it ended.
    """

    token_ids: tuple[int, ...]
    text: str
    offsets: tuple[tuple[int, int], ...]
    log_probs: tuple[float, ...]
    finish: FinishReason

    @property
    def finished(self) -> bool:
        """The model ended the answer itself, by an end of sequence or a stop string."""
        return self.finish in ("end", "stop")


Done = Callable[[int, int, Completion], None]
"""Told of a completion as soon as it is there: number of its request, of its sample, and itself."""


class Generator(Protocol):
    """Anything that continues prompts."""

    @property
    def capacity(self) -> int:
        """Completions worth asking for at once; fewer leave it idle, more gain nothing."""
        ...

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """Complete every request.

        Args:
            requests: what to complete; requests with the same prompt share its work.
            done: told of every completion when it is there, in any order.
            keep: the next call continues these completions (with the same model): what was
                computed for them should be kept until then, as far as that is possible.

        Returns:
            Per request its `samples` completions.
        """
        ...

    def close(self) -> None:
        """Give back what is held: memory, connections, an adapter on a server."""
        ...
