"""A rollout: answers sampled from the policy, with rewards on their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Generator, Request, Sampling
from citepipe.options.rl import PPOOptions
from citepipe.rewards.answers import Rewarder
from citepipe.rewards.place import Placement, place
from citepipe.train.actor_critic import ActorCritic, Batch
from citepipe.train.advantages import generalized_advantages, penalize_kl, whiten


class Rollout(NamedTuple):
    """What PPO learns from.

    Notation: G questions, n answers to each, B = G * n, T tokens of the longest answer.
    """

    prompts: list[tuple[int, ...]]
    """G prompts as token ids."""
    answers: list[tuple[int, ...]]
    """B answers as token ids, those to one question next to each other."""
    log_probs: torch.Tensor
    """(B, T), of the sampled tokens under the policy that sampled them."""
    values: torch.Tensor
    """(B, T), by the value model before it learns from this rollout."""
    advantages: torch.Tensor
    """(B, T), whitened if so configured."""
    returns: torch.Tensor
    """(B, T), advantages before whitening plus values."""
    figures: dict[str, float]
    """Means over answers: `reward`, `reward_{component}`, `kl`, `tokens`; and `sampler_gap`, the
    largest difference between a log-probability in sampling and in training."""


def collect(
    actor: ActorCritic,
    generator: Generator,
    rewarder: Rewarder,
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    options: PPOOptions,
    placement: Placement,
    pad_id: int,
    key: str,
    seed: int,
) -> Rollout:
    """Sample `options.samples_per_prompt` answers to each prompt and work out their advantages.

    Args:
        actor: policy, reference and value model.
        generator: samples from the policy.
        rewarder: finds the rewards, for all answers in one batch.
        examples: the questions.
        prompts: their prompts as token ids.
        options: sampling, KL penalty, advantages.
        placement: rewards on the tokens that earned them, or their sum on the last token.
        pad_id: the padding token.
        key: names the rollout; with the seed it decides the draws.
        seed: of the draws.
    """
    owners = [e for e in examples for _ in range(options.samples_per_prompt)]
    requests = [
        Request(prompt, f"{key}/{question}/{i}", options.max_new_tokens)
        for question, prompt in enumerate(prompts)
        for i in range(options.samples_per_prompt)
    ]
    sampling = Sampling(options.temperature, options.top_k, seed)
    completions = generator.generate(requests, sampling)
    spans = rewarder.spans(owners, [completion.text for completion in completions])
    answers = [completion.token_ids for completion in completions]
    log_probs, reference, values = _evaluate(actor, prompts, answers, options, pad_id)
    length = log_probs.shape[1]
    rewards, mask = torch.zeros_like(log_probs), torch.zeros_like(log_probs)
    for row, (found, completion) in enumerate(zip(spans, completions, strict=True)):
        placed = place(found, completion.offsets, placement)
        rewards[row, : len(placed)] = torch.tensor(placed)
        mask[row, : len(completion.token_ids)] = 1
    penalized = penalize_kl(rewards, log_probs, reference, mask, options.kl_coef)
    if options.whiten_rewards:
        penalized = whiten(penalized, mask, shift_mean=False)
    advantages, returns = generalized_advantages(
        penalized, values, mask, options.gamma, options.lam
    )
    if options.whiten_advantages:
        advantages = whiten(advantages, mask)
    figures = {
        "reward": float(rewards.sum() / len(answers)),
        "kl": float((log_probs - reference).sum() / len(answers)),
        "tokens": float(mask.sum() / len(answers)),
        "sampler_gap": _gap(completions, log_probs, length),
    }
    for component in sorted({reward.component for found in spans for reward in found}):
        total = sum(r.value for found in spans for r in found if r.component == component)
        figures[f"reward_{component}"] = total / len(answers)
    return Rollout(list(prompts), answers, log_probs, values, advantages, returns, figures)


@torch.no_grad()
def _evaluate(
    actor: ActorCritic,
    prompts: Sequence[tuple[int, ...]],
    answers: Sequence[tuple[int, ...]],
    options: PPOOptions,
    pad_id: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities under policy and reference, and values, each (B, T) on the CPU."""
    length, count = max(map(len, answers)), options.samples_per_prompt
    parts: list[list[torch.Tensor]] = [[], [], []]
    at_once = max(1, options.micro_batch_size // count)
    for start in range(0, len(prompts), at_once):
        end = min(start + at_once, len(prompts))
        batch = Batch.build(
            prompts[start:end], answers[count * start : count * end], pad_id, actor.model.device
        )
        found = (
            actor.log_probs(batch, "policy"),
            actor.log_probs(batch, "reference"),
            actor.values(batch),
        )
        for part, tensor in zip(parts, found, strict=True):
            part.append(torch.nn.functional.pad(tensor.cpu(), (0, length - tensor.shape[1])))
    return torch.cat(parts[0]), torch.cat(parts[1]), torch.cat(parts[2])


def _gap(completions: Sequence[Completion], log_probs: torch.Tensor, length: int) -> float:
    """The largest difference between sampling's and training's log-probability of a token."""
    sampled = torch.zeros(len(completions), length)
    for row, completion in enumerate(completions):
        sampled[row, : len(completion.log_probs)] = torch.tensor(completion.log_probs)
    return float((sampled - log_probs).abs().max())
