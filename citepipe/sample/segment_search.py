"""Segment-level beam search: answers grow segment by segment, steered by their rewards.

As the paper's released code does it (`fgrlhf/utils.py`, `generate_beam_search`), but level by
level over many questions at once: all open beams of all questions are continued in one batch, all
new partial answers are rewarded in one batch, then every question prunes its beams. The score of
a beam is the total reward of its partial answer, which is the sum of the changes that its segments
brought.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from citepipe.data.example import Example
from citepipe.generate.completion import Generator, Request, Sampling
from citepipe.options.sample import SegmentSearchOptions
from citepipe.rewards.answers import Rewarder
from citepipe.sample.record import Candidates, Job, candidate, run_job
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.text.statements import is_list


@dataclass(slots=True)
class Beam:
    """A partial answer.

    Attributes:
        token_ids: the answer's tokens so far.
        text: their text.
        ended: the model ended it, it abstained, or it is as long as an answer may be.
        reward: its total reward.
        rewards: the same by component.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    ended: bool = False
    reward: float = 0.0
    rewards: dict[str, float] = field(default_factory=dict)


def segment_end(text: str, listing: bool, splitter: Splitter | None) -> int | None:
    """Where the first segment of a continuation ends, or None while that cannot be said yet.

    Args:
        text: the continuation so far.
        listing: the answer is a comma-separated list: a segment ends with its comma.
        splitter: finds sentences; a segment ends with its sentence, which is known as soon as the
            next one begins. None ends it at the first full stop, wherever that stands.
    """
    if listing or splitter is None:
        place = text.find("," if listing else ".")
        return None if place < 0 else place + 1
    if not any(mark in text for mark in ".!?"):
        return None
    sentences = splitter(text)
    return sentences[0][1] if len(sentences) > 1 else None


def segment_search(
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    generator: Generator,
    rewarder: Rewarder,
    options: SegmentSearchOptions,
    splitter: Splitter,
    seed: int,
) -> Candidates:
    """Search for well rewarded answers to all questions, level by level.

    At each level every open beam is continued by `samples_per_beam` segments (by `beams` segments
    at the first). Old and new beams compete; the `beams` best stay, of equals the newer. For lists
    an open parent is dropped with a probability that falls linearly to 0, so that the search goes
    on. Every draw depends on the seed and the question only.

    Returns:
        Per question its final beams as candidates, best first.
    """
    beams: list[list[Beam]] = [[] for _ in examples]
    depths = [options.depth_list if is_list(e.dataset) else options.depth for e in examples]
    dice = [random.Random(f"{seed}/{e.dataset}/{e.id}/drop") for e in examples]
    for level in range(max(depths)):
        parents = _open_beams(beams, depths, level)
        if not parents:
            break
        keep = level + 1 < max(depths)
        children = _continue(
            parents, examples, prompts, generator, options, splitter, seed, level, keep
        )
        totals = rewarder.reward(
            [examples[q] for q, _, _ in children], [child.text for _, _, child in children]
        )
        for (_, _, child), rewards in zip(children, totals, strict=True):
            child.rewards = rewards
            child.reward = sum(rewards.values())
        for q, example in enumerate(examples):
            # Newer first: the sort is stable, so of equals the newer stays.
            new = [child for owner, _, child in reversed(children) if owner == q]
            if not new:
                continue
            kept = beams[q]
            if is_list(example.dataset) and 0 < level < depths[q] - 1:
                chance = options.drop_parent * (depths[q] - 1 - level) / max(depths[q] - 2, 1)
                kept = [b for b in kept if b.ended or dice[q].random() >= chance]
            beams[q] = sorted(new + kept, key=lambda b: -b.reward)[: options.beams]
    return [[candidate(b.text, b.rewards) for b in group] for group in beams]


def _open_beams(
    beams: Sequence[Sequence[Beam]], depths: Sequence[int], level: int
) -> list[tuple[int, int, Beam]]:
    """(question, place among its beams, beam) of every beam to continue at this level."""
    if level == 0:
        return [(q, 0, Beam()) for q in range(len(beams))]
    return [
        (q, place, beam)
        for q, group in enumerate(beams)
        if level < depths[q]
        for place, beam in enumerate(group)
        if not beam.ended
    ]


def _continue(
    parents: Sequence[tuple[int, int, Beam]],
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    generator: Generator,
    options: SegmentSearchOptions,
    splitter: Splitter,
    seed: int,
    level: int,
    keep: bool,
) -> list[tuple[int, int, Beam]]:
    """Each parent's continuations by one segment, in the parents' order."""
    count = options.beams if level == 0 else options.samples_per_beam
    sampling = Sampling(options.temperature, options.top_k, seed)
    rule = None if options.split_at_every_stop else splitter
    requests = [
        Request(
            prompts[q],
            f"{examples[q].dataset}/{examples[q].id}/{level}/{place}",
            options.max_new_tokens - len(parent.token_ids),
            prefix=parent.token_ids,
            samples=count,
            sampling=sampling,
            segment_end=partial(segment_end, listing=is_list(examples[q].dataset), splitter=rule),
        )
        for q, place, parent in parents
    ]
    children: list[tuple[int, int, Beam]] = []
    found = generator.generate(requests, keep=keep)
    for (q, place, parent), completions in zip(parents, found, strict=True):
        for completion in completions:
            token_ids = parent.token_ids + completion.token_ids
            ended = (
                completion.finished
                or len(token_ids) >= options.max_new_tokens
                or _abstains(completion.text)
            )
            text = parent.text + completion.text
            children.append((q, place, Beam(token_ids, text, ended)))
    return children


def _abstains(text: str) -> bool:
    """Whether a segment says that there is no answer (the paper's code, `is_abstaining`)."""
    return "It is unclear " in text or (
        "answer" in text and ("There is no " in text or "There are no " in text)
    )


def run(job: Job, options: SegmentSearchOptions) -> str:
    """Search answers to the questions of a job and keep the best; see `record.run_job`."""
    splitter = load_splitter(job.reward.splitter)

    def search(
        examples: Sequence[Example],
        prompts: Sequence[tuple[int, ...]],
        generator: Generator,
        rewarder: Rewarder,
    ) -> Candidates:
        return segment_search(examples, prompts, generator, rewarder, options, splitter, job.seed)

    at_once = max(1, 4 * options.batch_size // options.beams)
    return run_job("segment search", job, options.questions, options.batch_size, at_once, search)
