"""Best of n: whole answers are sampled and the one with the highest summed reward is kept."""

from __future__ import annotations

from collections.abc import Sequence

from citepipe.data.example import Example
from citepipe.generate.completion import Generator, Request, Sampling
from citepipe.options.sample import BestOfNOptions
from citepipe.rewards.answers import Rewarder
from citepipe.sample.record import Candidates, Job, candidate, run_job


def best_of_n(
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    generator: Generator,
    rewarder: Rewarder,
    options: BestOfNOptions,
    seed: int,
) -> Candidates:
    """Sample `options.n` answers to every question, all rewarded in one batch.

    Args:
        examples: the questions.
        prompts: their prompts as token ids.
        generator: draws the answers.
        rewarder: rewards them.
        options: how many are drawn, and how.
        seed: with a question's id and the sample's number, decides the draws.

    Returns:
        Per question its candidates, best first; of equals the one drawn first.
    """
    sampling = Sampling(options.temperature, options.top_k, seed)
    requests = [
        Request(
            prompt,
            f"{example.dataset}/{example.id}",
            options.max_new_tokens,
            samples=options.n,
            sampling=sampling,
        )
        for example, prompt in zip(examples, prompts, strict=True)
    ]
    texts = [answer.text for answers in generator.generate(requests) for answer in answers]
    owners = [example for example in examples for _ in range(options.n)]
    rewards = rewarder.reward(owners, texts)
    candidates = [candidate(t, r) for t, r in zip(texts, rewards, strict=True)]
    groups = [candidates[i : i + options.n] for i in range(0, len(candidates), options.n)]
    return [sorted(group, key=lambda c: -c["reward"]) for group in groups]


def run(job: Job, options: BestOfNOptions) -> str:
    """Sample answers to the questions of a job and keep the best; see `record.run_job`."""

    def search(
        examples: Sequence[Example],
        prompts: Sequence[tuple[int, ...]],
        generator: Generator,
        rewarder: Rewarder,
    ) -> Candidates:
        return best_of_n(examples, prompts, generator, rewarder, options, job.seed)

    at_once = max(1, 4 * options.batch_size // options.n)
    return run_job("best of n", job, options.questions, options.batch_size, at_once, search)
