"""Best of n: whole answers are sampled and the one with the highest summed reward is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from citepipe.data.example import Example
from citepipe.generate.completion import Generator, Request, Sampling
from citepipe.options import BestOfNOptions
from citepipe.rewards import Rewarder
from citepipe.sample.job import (
    Ids,
    Job,
    Method,
    Record,
    Share,
    answer_record,
    name_of,
    sample_share,
)


def best_of_n(
    examples: Sequence[Example],
    prompts: Sequence[Ids],
    generator: Generator,
    rewarder: Rewarder,
    options: BestOfNOptions,
    seed: int,
) -> list[Record]:
    """Sample `options.n` answers to every question, all rewarded in one batch.

    The seed, a question's id and the sample's number decide the draws.

    Returns:
        Per question a record with all its `candidates`, best first (of equals the one drawn first)
        and their `sampled_tokens`.
    """
    sampling = Sampling(options.temperature, options.top_k, seed)
    requests = [
        Request(
            prompt,
            name_of(example.dataset, example.id),
            options.max_new_tokens,
            samples=options.n,
            sampling=sampling,
        )
        for example, prompt in zip(examples, prompts, strict=True)
    ]
    groups = generator.generate(requests)
    rewards = iter(
        rewarder.reward(
            [example for example in examples for _ in range(options.n)],
            [answer.text for answers in groups for answer in answers],
        )
    )
    records: list[Record] = []
    for example, answers in zip(examples, groups, strict=True):
        candidates = [
            answer_record(answer.text, len(answer.token_ids), answer.finish, next(rewards))
            for answer in answers
        ]
        candidates.sort(key=lambda candidate: -candidate["reward"])
        records.append(
            {
                "id": example.id,
                "dataset": example.dataset,
                "candidates": candidates,
                "sampled_tokens": sum(candidate["tokens"] for candidate in candidates),
            }
        )
    return records


def run(job: Job, share: Share, options: BestOfNOptions) -> str:
    """Sample answers to a share of the questions; see `sample_share`."""
    rewarder = Rewarder(job.verifier, job.reward, job.cache)
    sample = partial(best_of_n, rewarder=rewarder, options=options, seed=job.seed)
    method = Method("best of n", "answers", sample, options.n, rewarder)
    return sample_share(job, share, options, method)
