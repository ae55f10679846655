"""A sample that is being generated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from citepipe.generate.completion import FinishReason, Request
from citepipe.generate.cut import Cut

if TYPE_CHECKING:
    import numpy as np


@dataclass(eq=False, slots=True)
class Sequence:
    """One sample of a request.

    Attributes:
        request: what was asked.
        number: of the request among all.
        sample: its number among the request's samples.
        cut: says when it ends.
        draws: (max_new_tokens,) the random numbers that choose its tokens; None if greedy.
        answer: token ids of the prefix and of what was generated.
        log_probs: of the generated tokens.
        columns: where keys and values of the answer's first tokens stand in a cache.
        slot: its place among the sequences of its row.
    """

    request: Request
    number: int
    sample: int
    cut: Cut
    draws: np.ndarray | None
    answer: list[int]
    log_probs: list[float] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    slot: int = 0

    @property
    def token_ids(self) -> list[int]:
        """What was generated so far."""
        return self.answer[len(self.request.prefix) :]

    def add(self, token_id: int, log_prob: float) -> FinishReason | None:
        """Add a token; returns why the sequence ends with it, or None if it goes on."""
        self.answer.append(token_id)
        self.log_probs.append(log_prob)
        finish = self.cut.add(token_id)
        if finish is None and len(self.log_probs) >= self.request.max_new_tokens:
            return "length"
        return finish
