"""Segment-level beam search: answers grow segment by segment, steered by their rewards.

As the paper's released code does it (`fgrlhf/utils.py`, `generate_beam_search`), but level by
level over many questions at once: all open beams of all questions are continued in one batch, all
new partial answers are rewarded in one batch, then every question prunes its beams.

Decided otherwise than there, on purpose:

- The score of a beam is the reward of its whole partial answer. There it is the sum of what each
  segment earns by itself, where a gold answer that takes two segments to be said is missed.
- As many first segments are drawn as at every other level, `beams` x `samples_per_beam`; there only
  `beams` are, and all of them stay.
- An answer ends at a line's end, at which ALCE cuts it; there it goes on behind it.
- `max_new_tokens` is the length of an answer; there it is that of each segment.
- A segment ends where a sentence does; at every full stop, as there, only with
  `split_at_every_stop`. The mark that ends it is the model's own, where there one is put behind
  segments that lack it.
- Rewards that differ by rounding only are equal.

An answer that is still open at the end is a candidate like those that the model ended. What is
learnt is its text with an end behind it, which earns what it is ranked by: misses are charged to
all alike, and nothing for what it did not come to say.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.generate.completion import FinishReason, Generator, Request, Sampling
from citepipe.options import PredictOptions, SegmentSearchOptions
from citepipe.rewards import Rewarder
from citepipe.sample.job import Ids, Job, Method, Record, Share, answer_record, sample_share
from citepipe.sample.predict import predict
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.text.statements import is_list, read_answer


@dataclass(slots=True)
class Beam:
    """A partial answer: its tokens so far and their text, why its last segment ended, and its
    rewards with their sum.

    It has `ended` if the model ended it, it abstained, or it is as long as an answer may be.
    """

    token_ids: Ids = ()
    text: str = ""
    finish: FinishReason = "segment"
    ended: bool = False
    rewards: dict[str, float] = field(default_factory=dict)
    reward: float = 0.0


@dataclass(slots=True)
class Searched:
    """A question under search.

    Attributes:
        depth: segments that an answer may have.
        dice: draws which parents are dropped.
        beams: its partial answers, best first.
        tokens: how many were sampled.
        steps: what was drawn and kept at each level, for the record.
    """

    example: Example
    prompt: Ids
    depth: int
    dice: random.Random
    beams: list[Beam] = field(default_factory=list)
    tokens: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_list(self) -> bool:
        """Its answer is a comma-separated list."""
        return is_list(self.example.dataset)

    def open_beams(self, level: int) -> list[tuple[int, Beam]]:
        """The beams that are continued at a level, with their place among all."""
        if level == 0:
            return [(0, Beam())]
        if level >= self.depth:
            return []
        return [(place, beam) for place, beam in enumerate(self.beams) if not beam.ended]


def segment_end(text: str, listing: bool, splitter: Splitter | None) -> int | None:
    """Where the first segment of a continuation ends, or None while that cannot be said yet.

    Args:
        text: the continuation so far.
        listing: the answer is a comma-separated list: a segment ends with its comma.
        splitter: finds sentences; a segment ends with its sentence and the citations behind it,
            which is known as soon as the next one begins. None ends it at the first full stop,
            wherever that stands.
    """
    if listing or splitter is None:
        place = text.find("," if listing else ".")
        return None if place < 0 else place + 1
    if not any(mark in text for mark in ".!?\n。！？؟।"):
        return None
    statements = read_answer(text, "", splitter).statements
    return statements[0].end if len(statements) > 1 else None


def segment_search(
    examples: Sequence[Example],
    prompts: Sequence[Ids],
    generator: Generator,
    rewarder: Rewarder,
    options: SegmentSearchOptions,
    splitter: Splitter,
    seed: int,
) -> list[Record]:
    """Search for well rewarded answers to all questions, level by level.

    At each level every open beam is continued by `samples_per_beam` segments, and an answer begun
    by as many as `beams` of them are. Old and new beams compete; the `beams` best stay: of equals
    the newer, of those the ones behind the later parent, and of one parent's those drawn first. For
    lists an open parent is dropped with a probability that falls linearly to 0, so that the search
    goes on. Every draw depends on the seed and the question only.

    Returns:
        Per question a record: its final beams as `candidates`, best first; how many tokens were
        sampled (`sampled_tokens`); and its `steps`: per level all segments that were `drawn`, with
        the place of the beam that they continue (`parent`, None at the first level), their own
        `text`, and rewards and `tokens` of the partial answer with them; and which beams were
        `kept`, best first: `["drawn", i]`, or `["before", j]` for the j-th beam of before.
    """
    searched = [
        Searched(
            example,
            prompt,
            options.depth_list if is_list(example.dataset) else options.depth,
            random.Random(f"{seed}/{example.dataset}/{example.id}/drop"),
        )
        for example, prompt in zip(examples, prompts, strict=True)
    ]
    deepest = max((own.depth for own in searched), default=0)
    for level in range(deepest):
        drawn = _draw(searched, generator, options, splitter, seed, level, level + 1 < deepest)
        if not any(drawn):
            break
        rewards = iter(
            rewarder.reward(
                [own.example for own, new in zip(searched, drawn, strict=True) for _ in new],
                [child.text for new in drawn for _, _, child in new],
            )
        )
        for own, new in zip(searched, drawn, strict=True):
            for _, _, child in new:
                child.rewards = next(rewards)
                # Sums that differ by rounding only are equal, whatever the order of their parts.
                child.reward = round(sum(child.rewards.values()), 6)
            if new:
                _prune(own, new, options, level)
    return [
        {
            "id": own.example.id,
            "dataset": own.example.dataset,
            "candidates": [
                answer_record(beam.text, len(beam.token_ids), beam.finish, beam.rewards)
                for beam in own.beams
            ],
            "sampled_tokens": own.tokens,
            "steps": own.steps,
        }
        for own in searched
    ]


Drawn = tuple[int, str, Beam]
"""The place of the parent, the text of the new segment, and the partial answer with it."""


def _draw(
    searched: Sequence[Searched],
    generator: Generator,
    options: SegmentSearchOptions,
    splitter: Splitter,
    seed: int,
    level: int,
    keep: bool,
) -> list[list[Drawn]]:
    """Per question the continuations of its open beams by one segment, in the parents' order."""
    count = options.samples_per_beam * (1 if level else options.beams)
    sampling = Sampling(options.temperature, options.top_k, seed)
    rule = None if options.split_at_every_stop else splitter
    parents = [(q, *found) for q, own in enumerate(searched) for found in own.open_beams(level)]
    requests = [
        Request(
            searched[q].prompt,
            f"{searched[q].example.dataset}/{searched[q].example.id}/{level}/{place}",
            options.max_new_tokens - len(parent.token_ids),
            prefix=parent.token_ids,
            samples=count,
            sampling=sampling,
            segment_end=partial(segment_end, listing=searched[q].is_list, splitter=rule),
        )
        for q, place, parent in parents
    ]
    drawn: list[list[Drawn]] = [[] for _ in searched]
    found = generator.generate(requests, keep=keep) if requests else []
    for (q, place, parent), completions in zip(parents, found, strict=True):
        for completion in completions:
            searched[q].tokens += len(completion.token_ids)
            token_ids = parent.token_ids + completion.token_ids
            ended = (
                completion.finished
                or len(token_ids) >= options.max_new_tokens
                or _abstains(completion.text)
            )
            child = Beam(token_ids, parent.text + completion.text, completion.finish, ended)
            drawn[q].append((place, completion.text, child))
    return drawn


def _prune(
    own: Searched, drawn: Sequence[Drawn], options: SegmentSearchOptions, level: int
) -> None:
    """Keep the best of the new beams and those of before, and note it."""
    # The sort is stable, so of equals those of this level stay; of these those of the last parent,
    # in the order in which they were drawn.
    newer = sorted(range(len(drawn)), key=lambda place: -drawn[place][0])
    rivals: list[tuple[str, int, Beam]] = [("drawn", place, drawn[place][2]) for place in newer]
    drops = own.is_list and 0 < level < own.depth - 1
    chance = options.drop_parent * (own.depth - 1 - level) / max(own.depth - 2, 1)
    for place, beam in enumerate(own.beams):
        if not drops or beam.ended or own.dice.random() >= chance:
            rivals.append(("before", place, beam))
    kept = sorted(rivals, key=lambda rival: -rival[2].reward)[: options.beams]
    own.steps.append(
        {
            "drawn": [
                {
                    "parent": place if level else None,
                    **answer_record(beam.text, len(beam.token_ids), beam.finish, beam.rewards),
                    "text": text,
                }
                for place, text, beam in drawn
            ],
            "kept": [[kind, place] for kind, place, _ in kept],
        }
    )
    own.beams = [beam for _, _, beam in kept]


def _abstains(text: str) -> bool:
    """Whether a segment says that there is no answer (the paper's code, `is_abstaining`)."""
    return "It is unclear " in text or (
        "answer" in text and ("There is no " in text or "There are no " in text)
    )


def run(job: Job, share: Share, options: SegmentSearchOptions) -> str:
    """Search answers to a share of the questions; see `sample_share`."""
    return sample_share(job, share, options, _method("segment search", job, options))


def run_prediction(
    job: Job,
    options: PredictOptions,
    tests: Mapping[str, Path],
    outs: Mapping[str, Path],
    search: SegmentSearchOptions,
) -> str:
    """Answer test questions by the beams whose citations are worth most; see `predict`.

    The verifier is queried as in training, but no gold answer is read: only the rewards of
    citations count. An answer that a verifier chose flatters that verifier's scores; those of
    another one are fair.
    """
    job = replace(job, reward=job.reward.model_copy(update={"correctness": 0.0, "refusal": 0.0}))
    decoding = {
        "decoding": "segment_search",
        "verifier": job.verifier,
        "beams": search.beams,
        "samples_per_beam": search.samples_per_beam,
        "temperature": search.temperature,
        "top_k": search.top_k,
    }
    search = search.model_copy(update={"max_new_tokens": options.max_new_tokens})
    method = _method("predict by search", job, search)
    return predict(job, options, tests, outs, decoding, method)


def _method(label: str, job: Job, options: SegmentSearchOptions) -> Method:
    """The search, with what it needs."""
    rewarder = Rewarder(job.verifier, job.reward, job.cache)
    splitter = load_splitter(job.reward.splitter)
    sample = partial(
        segment_search, rewarder=rewarder, options=options, splitter=splitter, seed=job.seed
    )
    each = options.beams * options.samples_per_beam
    return Method(label, "segments", sample, each, rewarder, options.depth)
