"""Rewards: found on characters of an answer, placed on the tokens that wrote them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from citepipe.data.example import Example
from citepipe.data.files import AnswerFile
from citepipe.judgement import Judgement, answerable, judge, verdict_records
from citepipe.options import RewardOptions
from citepipe.progress import say
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.text.statements import Answer, is_list, notes_of
from citepipe.verify.base import Pair, Verifier, identity_of, provenance_of
from citepipe.verify.load import load_verifier

COMPONENTS = ("citation_recall", "citation_precision", "correctness")
Placement = Literal["fine_grained", "holistic"]

_REMEMBERED = 50_000  # decisions

Standing = list[tuple[int, int, dict[str, float]]]
"""Rewards where they stand in an answer: of each token that has some the characters `[start, end)`
that it wrote, and its rewards by component."""


class Reward(NamedTuple):
    """A value that belongs to one character of the raw answer, or to its end (`len(raw)`)."""

    component: str
    char: int
    value: float


def find_rewards(
    example: Example,
    raw: str,
    judgement: Judgement,
    options: RewardOptions,
    answerable: bool | None = None,
) -> list[Reward]:
    """The rewards of one answer.

    Citation recall stands on the character that closes each statement (`Statement.last`, or a
    citation behind it that counts), citation precision on the bracket that closes each citation,
    correctness for each gold answer on what ends the answer: only there is it decided that nothing
    else will be said. Of the gold answers of a list only `options.expected_list_items` are
    expected: hits all count, misses up to what is missing to that number. A component of size 0
    gives no rewards. With one for refusals the answer's end also has whether it declines exactly
    where it should, which is worth nothing if it is unknown whether the question is `answerable`;
    one that rightly declines misses nothing.
    """
    rewards: list[Reward] = []

    def add(component: str, char: int, good: bool) -> None:
        size: float = getattr(options, component)
        if size:
            rewards.append(Reward(component, char, size if good else -size))

    for verdict in judgement.claims:
        closing = [cited.citation.end - 1 for cited in verdict.citations]
        add("citation_recall", max(verdict.statement.last, *closing, 0), verdict.supported)
        for cited in verdict.citations:
            add("citation_precision", cited.citation.end - 1, cited.right)
    hits, expected = sum(judgement.gold), len(judgement.gold)
    if is_list(example.dataset):
        expected = min(options.expected_list_items, expected)
    if options.refusal and judgement.refused and answerable is False:
        expected = hits
    for good in [True] * hits + [False] * max(expected - hits, 0):
        add("correctness", len(raw), good)
    if answerable is not None:
        add("refusal", len(raw), judgement.refused != answerable)
    elif options.refusal:
        rewards.append(Reward("refusal", len(raw), 0.0))
    return rewards


def total(rewards: Sequence[Reward]) -> dict[str, float]:
    """The sum of the rewards of each component, 0 for one of `COMPONENTS` without any."""
    sums = dict.fromkeys(COMPONENTS, 0.0)
    for reward in rewards:
        sums[reward.component] = sums.get(reward.component, 0.0) + reward.value
    return sums


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
        placement: `fine_grained` puts each reward on the token that wrote its character, and
            what belongs to the answer's end on the last token (the end of sequence, unless the
            answer was cut off); a character in a gap between tokens counts as written by the one
            before it, else by the first one. `holistic` puts the sum on the last token.

    Returns:
        len(offsets) values; their sum is the sum of the rewards unless there are no tokens.
    """
    placed = [0.0] * len(offsets)
    if not offsets:
        return placed
    if placement == "holistic":
        placed[-1] = sum(reward.value for reward in rewards)
        return placed
    writing = [token for token, (start, end) in enumerate(offsets) if end > start]
    starts = [offsets[token][0] for token in writing]
    length = offsets[writing[-1]][1] if writing else 0
    for reward in rewards:
        nearest = max(bisect_right(starts, reward.char) - 1, 0)
        placed[writing[nearest] if reward.char < length else -1] += reward.value
    return placed


def standing(
    rewards: Sequence[Reward],
    offsets: Sequence[tuple[int, int]],
    placement: Placement = "fine_grained",
) -> Standing:
    """Where `place` puts the rewards, by component, for people to see."""
    parts = {
        name: place([own for own in rewards if own.component == name], offsets, placement)
        for name in total(rewards)
    }
    found = (
        (*span, {name: round(own[n], 6) for name, own in parts.items() if own[n]})
        for n, span in enumerate(offsets)
    )
    return [own for own in found if own[2]]


class Rewarder:
    """Judges generated answers and finds their rewards, for sampling, search and RL alike.

    Answers are read by the sane rules, not by ALCE's peculiarities: a policy would learn to use
    those. Partial answers grow, and what they state at their beginning
    was decided before: decisions are remembered. The verifier may be given by its spec, then with
    the file of its decisions (`load_verifier`). `pairs` counts what it received so far.
    """

    def __init__(
        self, verifier: Verifier | str, options: RewardOptions, cache: Path | None = None
    ) -> None:
        self._verifier = load_verifier(verifier, cache) if isinstance(verifier, str) else verifier
        self._splitter: Splitter = load_splitter(options.splitter)
        self._options = options
        self._known: dict[Pair, bool | None] = {}
        self.pairs = 0

    def judged(
        self, examples: Sequence[Example], answers: Sequence[str]
    ) -> list[tuple[Judgement, list[Reward]]]:
        """Per answer, as generated, whole or cut off anywhere, the judgement and the rewards."""
        if len(self._known) > _REMEMBERED:
            self._known = {}  # and not cleared: another thread may read it
        remembered = len(self._known)
        judgements = judge(
            examples,
            self.read(examples, answers),
            self._verifier,
            self._options.at_most_citations,
            citations=bool(self._options.citation_recall or self._options.citation_precision),
            claims=bool(self._options.correctness),
            known=self._known,
            refusals=bool(self._options.refusal),
        )
        known: Sequence[bool | None] = [None] * len(examples)
        if self._options.refusal:
            known = answerable(examples, self._verifier, self._known)
        self.pairs += len(self._known) - remembered
        return [
            (judgement, find_rewards(example, answer, judgement, self._options, own))
            for example, answer, judgement, own in zip(
                examples, answers, judgements, known, strict=True
            )
        ]

    def read(self, examples: Sequence[Example], answers: Sequence[str]) -> list[Answer]:
        """The answers as they are judged."""
        return [
            example.read(answer, self._splitter)
            for example, answer in zip(examples, answers, strict=True)
        ]

    def spans(self, examples: Sequence[Example], answers: Sequence[str]) -> list[list[Reward]]:
        """Per answer its rewards, on characters of the answer."""
        return [rewards for _, rewards in self.judged(examples, answers)]

    def reward(self, examples: Sequence[Example], answers: Sequence[str]) -> list[dict[str, float]]:
        """Per answer the sum of each component."""
        return [total(rewards) for rewards in self.spans(examples, answers)]


def reward_file(file: AnswerFile, verifier: Verifier, options: RewardOptions) -> dict[str, Any]:
    """The rewards of a file of answers, with every verdict that they follow from.

    Returns:
        `per_example`: id, dataset, `verdict_records`, `rewards` (on characters of the answer) and
        `totals`; `means` of the totals; `left_out`; `provenance`.
    """
    rewarder = Rewarder(verifier, options)
    for line in notes_of(rewarder.read(file.examples, file.outputs)):
        say(f"{file.path}: {line}")
    judged = rewarder.judged(file.examples, file.outputs)
    per_example: list[dict[str, Any]] = []
    for example, (judgement, rewards) in zip(file.examples, judged, strict=True):
        totals = total(rewards)
        per_example.append(
            {
                "id": example.id,
                "dataset": example.dataset,
                **verdict_records(judgement),
                "rewards": [reward._asdict() for reward in rewards],
                "totals": totals | {"total": sum(totals.values())},
            }
        )
    return {
        "per_example": per_example,
        "means": {
            name: sum(own["totals"][name] for own in per_example) / len(per_example)
            for name in per_example[0]["totals"]
        },
        "left_out": file.left_out,
        "provenance": {
            "verifier": verifier.name,
            "identity": identity_of(verifier),
            **provenance_of(verifier),
            "options": options.model_dump(),
            "input": {"file": file.path.name, "sha256": file.sha256},
        },
    }
