"""Proximal policy optimization with rewards on the tokens that earned them.

Simplified against FineGrainedRLHF: no dropout while training, and no padding of prompts to a fixed
length.
"""

from __future__ import annotations

import torch

from citepipe.options import ModelOptions, PPOOptions
from citepipe.train.actor_critic import ValueKind
from citepipe.train.advantages import generalized_advantages, penalize_kl, whiten
from citepipe.train.learning import Targets
from citepipe.train.losses import policy_loss, value_loss
from citepipe.train.rollout import Rollout


class PPO:
    """Clipped policy and value losses on generalized advantages (see `learning.Method`)."""

    name, section = "ppo", "rl"

    def __init__(self, options: PPOOptions, model: ModelOptions) -> None:
        self.options = options
        self.value_kind: ValueKind | None = options.value or (
            "shared" if model.adapter is None else "adapter"
        )

    def policy_learns(self, step: int) -> bool:
        """Not before the value model has learnt from `value_warmup` rollouts."""
        return step >= self.options.value_warmup

    def targets(self, rollout: Rollout, kl_coef: float) -> Targets:
        """Advantages and returns of rewards less the KL penalty against the start."""
        options, mask, values = self.options, rollout.mask, rollout.values
        assert values is not None
        rewards = penalize_kl(
            rollout.rewards, rollout.log_probs, rollout.reference_log_probs, mask, kl_coef
        )
        if options.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = generalized_advantages(
            rewards, values, mask, options.gamma, options.lam
        )
        if options.whiten_advantages:
            advantages = whiten(advantages, mask)
        return Targets(
            rollout.log_probs, rollout.reference_log_probs, advantages, values, returns, kl_coef
        )

    def policy_loss(
        self, log_probs: torch.Tensor, targets: Targets, mask: torch.Tensor, tokens: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `losses.policy_loss`."""
        return policy_loss(
            log_probs, targets.log_probs, targets.advantages, mask, self.options.clip_ratio, tokens
        )

    def value_loss(
        self, values: torch.Tensor, targets: Targets, mask: torch.Tensor, tokens: float
    ) -> torch.Tensor:
        """The weighted `losses.value_loss`."""
        assert targets.values is not None
        assert targets.returns is not None
        return self.options.value_coef * value_loss(
            values, targets.values, targets.returns, mask, self.options.clip_value, tokens
        )
