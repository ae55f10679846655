"""Rewards of generated answers, for sampling, search and reinforcement learning alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from citepipe.data.example import Example
from citepipe.judge.judge import Judgement, judge
from citepipe.options import JudgeOptions, RewardOptions
from citepipe.rewards.find import Reward, find_rewards, total
from citepipe.text.normalize import clean_output
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.verify.base import Pair, Verifier, decide
from citepipe.verify.load import load_verifier


def reward_answers(
    examples: Sequence[Example],
    answers: Sequence[str],
    verifier: Verifier,
    splitter: Splitter,
    options: RewardOptions,
) -> list[list[Reward]]:
    """The rewards of many answers, whole or cut off anywhere, judged in one batch.

    Args:
        examples: one per answer; the same one may come several times.
        answers: as generated; rewards are on their characters.
        verifier: decides what is supported.
        splitter: finds sentences.
        options: the size of each component.
    """
    judgements = judge_for_rewards(examples, answers, verifier, splitter, options)
    return [
        find_rewards(example, answer, judgement, options)
        for example, answer, judgement in zip(examples, answers, judgements, strict=True)
    ]


def judge_for_rewards(
    examples: Sequence[Example],
    answers: Sequence[str],
    verifier: Verifier,
    splitter: Splitter,
    options: RewardOptions,
) -> list[Judgement]:
    """The judgements behind `reward_answers`.

    Citations are judged by the sane rules (`JudgeOptions.sane`), not by ALCE's peculiarities: a
    policy would learn to use those.
    """
    return judge(
        examples,
        [clean_output(answer) for answer in answers],
        verifier,
        splitter,
        JudgeOptions.sane(options.at_most_citations),
        citations=bool(options.citation_recall or options.citation_precision),
        claims=bool(options.correctness),
    )


_REMEMBERED = 50_000


class Remembering:
    """A verifier that is asked a pair but once in a while: partial answers grow, and what they say
    at their begin was decided before.

    Attributes:
        pairs: how many the verifier behind it was asked.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._known: dict[Pair, bool] = {}
        self.name = verifier.name
        self.question_first: bool = getattr(verifier, "question_first", False)
        self.pairs = 0

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """See `Verifier.entails`."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        before = len(self._known)
        decide(self._verifier, pairs, self._known)
        self.pairs += len(self._known) - before
        return [self._known[pair] for pair in pairs]


class Rewarder:
    """`reward_answers` with a verifier and a splitter loaded once.

    Args:
        verifier: the spec of a verifier (`load_verifier`).
        options: the size of each component, and the splitter.
        cache: where a model's decisions are kept.

    Raises:
        InputError: there is no such verifier or splitter.
    """

    def __init__(self, verifier: str, options: RewardOptions, cache: Path | None) -> None:
        self._verifier = Remembering(load_verifier(verifier, cache))
        self._splitter = load_splitter(options.splitter)
        self._options = options

    @property
    def pairs(self) -> int:
        """Pairs that the verifier was asked so far."""
        return self._verifier.pairs

    def judged(
        self, examples: Sequence[Example], answers: Sequence[str]
    ) -> list[tuple[Judgement, list[Reward]]]:
        """Per answer the judgement, and the rewards, on characters of the answer."""
        judgements = judge_for_rewards(
            examples, answers, self._verifier, self._splitter, self._options
        )
        return [
            (judgement, find_rewards(example, answer, judgement, self._options))
            for example, answer, judgement in zip(examples, answers, judgements, strict=True)
        ]

    def spans(self, examples: Sequence[Example], answers: Sequence[str]) -> list[list[Reward]]:
        """Per answer its rewards, on characters of the answer."""
        return [rewards for _, rewards in self.judged(examples, answers)]

    def reward(self, examples: Sequence[Example], answers: Sequence[str]) -> list[dict[str, float]]:
        """Per answer the sum of each component."""
        return [total(rewards) for rewards in self.spans(examples, answers)]
