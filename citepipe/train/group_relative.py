"""Reinforcement learning without a value model: an answer is judged by the others to its question.

With fine-grained rewards every token has an advantage of its own, from the rewards from there on;
with holistic ones all tokens of an answer have the same.
"""

from __future__ import annotations

import torch

from citepipe.options import GroupOptions, GRPOOptions, RLOOOptions
from citepipe.rewards import Placement
from citepipe.train.advantages import group_relative, leave_one_out, penalize_kl
from citepipe.train.learning import Targets
from citepipe.train.losses import kl_loss, policy_loss
from citepipe.train.rollout import Rollout


class _GroupMethod:
    """What both share (see `learning.Method`)."""

    value_kind = value_loss = None

    def __init__(self, options: GroupOptions, placement: Placement) -> None:
        self.options = options
        self.dense = placement == "fine_grained"

    def policy_learns(self, step: int) -> bool:
        """At every step."""
        return True

    def policy_loss(
        self, log_probs: torch.Tensor, targets: Targets, mask: torch.Tensor, tokens: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `losses.policy_loss`."""
        return policy_loss(
            log_probs, targets.log_probs, targets.advantages, mask, self.options.clip_ratio, tokens
        )


class GRPO(_GroupMethod):
    """Group relative policy optimization (DeepSeekMath, arXiv 2402.03300).

    Unlike there, losses are means over all tokens of a minibatch, not over those of each answer
    first, which makes tokens of long answers count less.
    """

    name, section = "grpo", "grpo"

    def __init__(self, options: GRPOOptions, placement: Placement) -> None:
        super().__init__(options, placement)

    def targets(self, rollout: Rollout, kl_coef: float) -> Targets:
        """Advantages in standard deviations over the answers to a question."""
        advantages = group_relative(
            rollout.rewards, rollout.mask, self.options.samples_per_prompt, self.dense
        )
        return Targets(
            rollout.log_probs, rollout.reference_log_probs, advantages, None, None, kl_coef
        )

    def policy_loss(
        self, log_probs: torch.Tensor, targets: Targets, mask: torch.Tensor, tokens: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The clipped surrogate, and the weighted divergence from the start."""
        loss, clipped = super().policy_loss(log_probs, targets, mask, tokens)
        divergence = kl_loss(log_probs, targets.reference_log_probs, mask, tokens)
        return loss + targets.kl_coef * divergence, clipped


class RLOO(_GroupMethod):
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740).

    The ratio is clipped as in PPO, which changes nothing in the first update of a rollout.
    """

    name, section = "rloo", "rloo"

    def __init__(self, options: RLOOOptions, placement: Placement) -> None:
        super().__init__(options, placement)

    def targets(self, rollout: Rollout, kl_coef: float) -> Targets:
        """Advantages of rewards less the KL penalty over the mean of the others."""
        rewards = penalize_kl(
            rollout.rewards, rollout.log_probs, rollout.reference_log_probs, rollout.mask, kl_coef
        )
        advantages = leave_one_out(
            rewards, rollout.mask, self.options.samples_per_prompt, self.dense
        )
        return Targets(
            rollout.log_probs, rollout.reference_log_probs, advantages, None, None, kl_coef
        )
