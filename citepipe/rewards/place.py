"""Places rewards on tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from citepipe.rewards.find import Reward

Placement = Literal["fine_grained", "holistic"]


def place(
    rewards: Sequence[Reward],
    offsets: Sequence[tuple[int, int]],
    placement: Placement = "fine_grained",
) -> list[float]:
    """One reward per token; rewards that fall on one token add up.

    Args:
        rewards: on characters of the answer.
        offsets: per sampled token the characters `[start, end)` of the answer that it wrote, in
            the order of the text. A token that wrote none (the end of sequence, the first bytes
            of a character) has an empty span.
        placement: `fine_grained` puts each reward on the token that wrote its character; a
            character that no token wrote (cut off, or stripped) counts as written by the last
            token that wrote something before it, else by the first one. `holistic` puts the sum
            on the last token.

    Returns:
        len(offsets) values; their sum is the sum of the rewards unless there are no tokens.
    """
    placed = [0.0] * len(offsets)
    if not offsets:
        return placed
    if placement == "holistic":
        placed[-1] = sum(reward.value for reward in rewards)
        return placed
    writing = [token for token, (start, end) in enumerate(offsets) if end > start] or [0]
    starts = [offsets[token][0] for token in writing]
    for reward in rewards:
        nearest = max(bisect_right(starts, reward.char) - 1, 0)
        placed[writing[nearest]] += reward.value
    return placed
