"""A rollout: answers sampled from the policy, with rewards on their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from citepipe.data.example import Example
from citepipe.generate.completion import Generator, Request, Sampling
from citepipe.options import RLOptions
from citepipe.rewards import Placement, Rewarder, place, total
from citepipe.train.actor_critic import ActorCritic
from citepipe.train.advantages import masked_mean
from citepipe.train.micro_batches import TokenBudget, micro_batches, with_back_off
from citepipe.train.processes import Processes


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its sampled answers."""

    prompt: tuple[int, ...]
    answers: list[tuple[int, ...]]
    """Token ids of each answer."""
    texts: list[str]
    rewards: list[list[float]]
    """Per answer the reward of each token."""
    totals: list[dict[str, float]]
    """Per answer the sum of each component."""
    sampled: list[list[float]]
    """Per answer each token's log-probability when it was sampled."""


class Part(NamedTuple):
    """Some of the answers to a question, which one pass takes together."""

    question: int
    first: int
    last: int
    """One past the last answer."""


class Rollout(NamedTuple):
    """What reinforcement learning learns from.

    Notation: G questions, n answers to each, B = G * n in the questions' order, T tokens of the
    longest answer. All tensors are on the CPU and 0 on padding.
    """

    asked: list[Asked]
    """G questions."""
    mask: torch.Tensor
    """(B, T): 1 on an answer's tokens."""
    rewards: torch.Tensor
    """(B, T)."""
    log_probs: torch.Tensor
    """(B, T), of the sampled tokens under the policy that sampled them."""
    reference_log_probs: torch.Tensor
    """(B, T), under the model that training started from."""
    values: torch.Tensor | None
    """(B, T), by the value model before it learns from this rollout; None without one."""
    figures: dict[str, float]
    """`reward` and its standard deviation over answers, `reward_{component}`, `kl` and `tokens`,
    means over answers; `entropy`, the mean over tokens (nats); and `sampler_gap`, the largest
    difference between a token's log-probability in sampling and in training."""


def passes(
    asked: Sequence[Asked], questions: Sequence[int], shared: bool, budget: int
) -> list[list[Part]]:
    """The answers to some questions, in passes of at most `budget` tokens.

    Answers to a question stay together as far as the budget allows.

    Args:
        asked: all questions.
        questions: which of them.
        shared: a prompt stands once in front of its answers, not once per answer.
        budget: tokens of a pass, padding included; one answer alone may exceed it.
    """
    parts, lengths = [], []
    for question in questions:
        count = len(asked[question].answers)
        together = count
        while together > 1 and _tokens(asked[question], 0, together, shared) > budget:
            together = -(-together // 2)
        for first in range(0, count, together):
            last = min(first + together, count)
            parts.append(Part(question, first, last))
            lengths.append(_tokens(asked[question], first, last, shared))
    return [[parts[i] for i in chosen] for chosen in micro_batches(lengths, budget)]


def collect(
    actor: ActorCritic,
    generator: Generator,
    rewarder: Rewarder,
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    options: RLOptions,
    placement: Placement,
    pad_id: int,
    key: str,
    seed: int,
    budget: TokenBudget,
    processes: Processes,
) -> Rollout:
    """Sample `options.samples_per_prompt` answers to each prompt, reward and score them.

    Args:
        actor: policy, reference and value model.
        generator: samples from the policy.
        rewarder: finds the rewards, for all answers in one batch.
        examples: the questions.
        prompts: their prompts as token ids.
        options: how to sample.
        placement: rewards on the tokens that earned them, or their sum on the last token.
        pad_id: the padding token.
        key: names the rollout; with the seed it decides the draws.
        seed: of the draws.
        budget: tokens of a pass.
        processes: each does its share; all get the whole.
    """
    mine = processes.share(range(len(prompts)))
    with actor.sampling():
        asked = _ask(
            generator,
            rewarder,
            [examples[i] for i in mine],
            [prompts[i] for i in mine],
            [f"{key}/{i}" for i in mine],
            options,
            placement,
            seed,
        )
    rows = with_back_off(
        budget, key, actor.device, lambda: _score(actor, asked, pad_id, budget.tokens)
    )
    whole = processes.gather(list(zip(asked, rows, strict=True)))
    asked = [question for question, _ in whole]
    lengths = torch.tensor([len(answer) for question in asked for answer in question.answers])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).float()
    stacked = [
        pad_sequence([row[part] for _, own in whole for row in own], batch_first=True)
        for part in range(len(whole[0][1][0]))
    ]
    log_probs, entropy, reference = stacked[:3]
    rewards, sampled = (
        pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        for rows in (
            [row for question in asked for row in question.rewards],
            [row for question in asked for row in question.sampled],
        )
    )
    totals = [own for question in asked for own in question.totals]
    figures = {
        "reward": float(rewards.sum() / len(rewards)),
        "reward_std": float(rewards.sum(dim=1).std(correction=0)),
        **{
            f"reward_{component}": sum(own[component] for own in totals) / len(totals)
            for component in sorted(totals[0])
        },
        "kl": float((log_probs - reference).sum() / len(rewards)),
        "entropy": float(masked_mean(entropy, mask)),
        "tokens": float(mask.sum() / len(rewards)),
        "sampler_gap": float((sampled - log_probs).abs().max()),
    }
    values = stacked[3] if len(stacked) > 3 else None
    return Rollout(asked, mask, rewards, log_probs, reference, values, figures)


def _tokens(asked: Asked, first: int, last: int, shared: bool) -> int:
    answers = asked.answers[first:last]
    return sum(map(len, answers)) + len(asked.prompt) * (1 if shared else len(answers))


def _ask(
    generator: Generator,
    rewarder: Rewarder,
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    keys: Sequence[str],
    options: RLOptions,
    placement: Placement,
    seed: int,
) -> list[Asked]:
    """Answers to some questions, with their rewards."""
    count = options.samples_per_prompt
    sampling = Sampling(options.temperature, options.top_k, seed)
    completions = generator.generate(
        [
            Request(prompt, key, options.max_new_tokens, samples=count, sampling=sampling)
            for prompt, key in zip(prompts, keys, strict=True)
        ]
    )
    owners = [example for example in examples for _ in range(count)]
    spans = rewarder.spans(owners, [answer.text for answers in completions for answer in answers])
    asked = []
    for question, (prompt, answers) in enumerate(zip(prompts, completions, strict=True)):
        own = slice(question * count, (question + 1) * count)
        asked.append(
            Asked(
                prompt,
                [answer.token_ids for answer in answers],
                [answer.text for answer in answers],
                [
                    place(found, answer.offsets, placement)
                    for found, answer in zip(spans[own], answers, strict=True)
                ],
                [total(found) for found in spans[own]],
                [list(answer.log_probs) for answer in answers],
            )
        )
    return asked


def _score(
    actor: ActorCritic, asked: Sequence[Asked], pad_id: int, budget: int
) -> list[list[tuple[torch.Tensor, ...]]]:
    """Per question and answer the rows of `Scores` that there are, each (its tokens,), on the CPU.

    The order is log-probabilities, entropy, the reference's log-probabilities, values.
    """
    scored: list[list[tuple[torch.Tensor, ...]]] = [[()] * len(own.answers) for own in asked]
    for parts in passes(asked, range(len(asked)), actor.shares_prompts, budget):
        batch = actor.batch(
            [asked[part.question].prompt for part in parts],
            [asked[part.question].answers[part.first : part.last] for part in parts],
            pad_id,
        )
        tensors = [tensor.cpu() for tensor in actor.scores(batch) if tensor is not None]
        rows = zip(*tensors, strict=True)
        for part in parts:
            for i in range(part.first, part.last):
                length = len(asked[part.question].answers[i])
                scored[part.question][i] = tuple(row[:length].clone() for row in next(rows))
    return scored
