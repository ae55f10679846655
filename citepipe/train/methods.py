"""What a rollout is, and what each method of reinforcement learning makes of it.

Notation: B answers, those to one question next to each other, T tokens of the longest answer.
Tensors are 0 on padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from citepipe.options import GRPOOptions, PPOOptions, RLOOOptions, RLOptions
from citepipe.train import advantages
from citepipe.train.batch import Row


class Sample(NamedTuple):
    """An answer that was sampled, T tokens long."""

    row: Row
    """Its prompt, and its tokens, that which ended it included."""
    text: str
    rewards: list[float]
    """(T,)."""
    totals: dict[str, float]
    """The sum of each component of the rewards."""
    log_probs: list[float]
    """(T,), as the sampler computed them."""
    citations: Sequence[bool] = ()
    """Of each whether it is right, where citations are rewarded."""
    parts: Sequence[list[float]] = ()
    """C times (T,), the rewards of each component, where they are normalised apart."""


class Rollout(NamedTuple):
    """What reinforcement learning learns from, on the CPU."""

    samples: list[Sample]
    """B answers."""
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
    """`reward` and its standard deviation over answers, `reward_{component}`, `kl`, `tokens` and
    `citations`, means over answers; `citations_right`, the share of the citations; `entropy`, the
    mean over tokens (nats); and `sampler_gap`, the largest difference between a token's
    log-probability in sampling and in training."""
    parts: torch.Tensor | None = None
    """(C, B, T), the rewards of each component, where they are normalised apart."""


class Targets(NamedTuple):
    """What the losses of a rollout's updates need, each (B, T), the rollout's own among it."""

    log_probs: torch.Tensor
    reference_log_probs: torch.Tensor
    advantages: torch.Tensor
    values: torch.Tensor | None = None
    returns: torch.Tensor | None = None
    """What the values should be."""

    def of(self, rows: list[int], mask: torch.Tensor) -> Targets:
        """The same for some answers, as long as their mask and on its device."""
        parts: list[Any] = [t if t is None else t[rows, : mask.shape[1]].to(mask) for t in self]
        return Targets(*parts)


class Method(NamedTuple):
    """A way to learn from rollouts."""

    section: str
    """Of the configuration."""
    options: type[RLOptions]
    targets: Callable[[Rollout, Any, float, bool], Targets]
    """From a rollout, the options, the present weight of the KL penalty, and whether rewards stay
    on the tokens that earned them."""
    has_values: bool = False
    """A value model is trained beside the policy."""
    kl_in_loss: bool = False
    """The loss has the KL divergence from the start, in place of a penalty in the rewards."""


def ppo(rollout: Rollout, options: PPOOptions, kl_coef: float, dense: bool) -> Targets:
    """Proximal policy optimization: generalized advantages of rewards less the KL penalty.

    Simplified against FineGrainedRLHF: no dropout while training, and no padding of prompts to a
    fixed length.
    """
    assert rollout.values is not None
    rewards, mask = _penalized(rollout, kl_coef), rollout.mask
    if options.whiten_rewards:
        rewards = advantages.whiten(rewards, mask, options.whiten_rewards)
    estimated, returns = advantages.generalized_advantages(
        rewards, rollout.values, mask, options.gamma, options.lam
    )
    if options.whiten_advantages:
        estimated = advantages.whiten(estimated, mask)
    return Targets(
        rollout.log_probs, rollout.reference_log_probs, estimated, rollout.values, returns
    )


def grpo(rollout: Rollout, options: GRPOOptions, kl_coef: float, dense: bool) -> Targets:
    """Group relative policy optimization (DeepSeekMath, arXiv 2402.03300).

    Unlike there, losses are means over all tokens of a minibatch, not over those of each answer
    first, which makes tokens of long answers count less.
    """
    rewards, count = rollout.rewards, options.samples_per_prompt
    if rollout.parts is None:
        estimated = advantages.group_relative(rewards, rollout.mask, count, dense)
    else:
        estimated = advantages.decoupled(rollout.parts, rollout.mask, count, dense)
    return Targets(rollout.log_probs, rollout.reference_log_probs, estimated)


def rloo(rollout: Rollout, options: RLOOOptions, kl_coef: float, dense: bool) -> Targets:
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740).

    The ratio is clipped as in PPO, which changes nothing in the first update of a rollout.
    """
    rewards, count = _penalized(rollout, kl_coef), options.samples_per_prompt
    estimated = advantages.leave_one_out(rewards, rollout.mask, count, dense)
    return Targets(rollout.log_probs, rollout.reference_log_probs, estimated)


METHODS = {
    "ppo": Method("rl", PPOOptions, ppo, has_values=True),
    "grpo": Method("grpo", GRPOOptions, grpo, kl_in_loss=True),
    "rloo": Method("rloo", RLOOOptions, rloo),
}


def _penalized(rollout: Rollout, kl_coef: float) -> torch.Tensor:
    return advantages.penalize_kl(
        rollout.rewards, rollout.log_probs, rollout.reference_log_probs, rollout.mask, kl_coef
    )
