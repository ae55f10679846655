"""From a judgement to rewards on characters of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from citepipe.data.example import Example
from citepipe.judge.judge import Judgement
from citepipe.options import RewardOptions
from citepipe.text.normalize import clean_output, raw_char
from citepipe.text.statements import is_list

COMPONENTS = ("citation_recall", "citation_precision", "correctness")


class Reward(NamedTuple):
    """A value that belongs to one character of the raw answer."""

    component: str
    char: int
    value: float


def find_rewards(
    example: Example, raw: str, judgement: Judgement, options: RewardOptions
) -> list[Reward]:
    """The rewards of one answer.

    Citation recall stands on the last character of each statement (of a list item: the comma
    behind it), citation precision on the bracket that closes each citation, correctness for each
    gold answer on the answer's last character. Of the gold answers of a list only
    `options.expected_list_items` are expected: hits all count, misses up to what is missing to
    that number. A component of size 0 gives no rewards.

    Args:
        example: what was asked.
        raw: the answer as it was generated.
        judgement: the verdicts on `clean_output(raw)`.
        options: the size of each component.
    """
    rewards: list[Reward] = []

    def add(component: str, size: float, char: int, good: bool) -> None:
        if size:
            rewards.append(Reward(component, raw_char(raw, char), size if good else -size))

    for verdict in judgement.statements:
        add("citation_recall", options.citation_recall, verdict.statement.last, verdict.supported)
        for cited in verdict.citations:
            add(
                "citation_precision",
                options.citation_precision,
                cited.citation.end - 1,
                cited.right,
            )
    last = max(len(clean_output(raw)) - 1, 0)
    hits = [gold.hit for gold in judgement.gold]
    misses = len(hits) - sum(hits)
    if is_list(example.dataset):
        misses = max(min(options.expected_list_items, len(hits)) - sum(hits), 0)
    for good in [True] * sum(hits) + [False] * misses:
        add("correctness", options.correctness, last, good)
    return rewards


def total(rewards: Sequence[Reward]) -> dict[str, float]:
    """The sum of the rewards of each component, 0 for one without any."""
    sums = dict.fromkeys(COMPONENTS, 0.0)
    for reward in rewards:
        sums[reward.component] += reward.value
    return sums
