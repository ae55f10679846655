"""The losses of reinforcement learning: pure functions of tensors.

Notation as in `advantages`: B answers, T tokens; `mask` (B, T). Losses are sums over tokens divided
by `tokens`, the number of tokens of the whole minibatch, so that micro-batches of any size add up
to the loss of the minibatch.
"""

from __future__ import annotations

import torch


def policy_loss(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip: float,
    tokens: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, eq. 7), negated.

    Args:
        log_probs: (B, T), of the sampled tokens under the policy in training; has the gradient.
        old_log_probs: (B, T), under the policy that sampled them.
        advantages: (B, T).
        mask: (B, T).
        clip: the probability ratio counts only within [1 - clip, 1 + clip].
        tokens: tokens in the minibatch.

    Returns:
        the loss, and how many tokens were clipped, both scalars.
    """
    ratio = torch.exp((log_probs - old_log_probs) * mask)
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = (torch.maximum(plain, clipped) * mask).sum() / tokens
    return loss, ((clipped > plain) * mask).sum().detach()


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor,
    clip: float,
    tokens: float,
) -> torch.Tensor:
    """Half the squared error of the values, the worse of plain and clipped (FineGrainedRLHF).

    Args:
        values: (B, T), of the value model in training; has the gradient.
        old_values: (B, T), when the answers were sampled.
        returns: (B, T), what the values should be.
        mask: (B, T).
        clip: values count only within this distance of the old ones.
        tokens: tokens in the minibatch.
    """
    clipped = torch.clamp(values, old_values - clip, old_values + clip)
    worse = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return 0.5 * (worse * mask).sum() / tokens


def kl_loss(
    log_probs: torch.Tensor,
    reference_log_probs: torch.Tensor,
    mask: torch.Tensor,
    tokens: float,
) -> torch.Tensor:
    """The KL divergence from the reference, per token, by an estimate that is never negative.

    exp(d) - d - 1 with d = log p_ref - log p (DeepSeekMath, arXiv 2402.03300, eq. 4).

    Args:
        log_probs: (B, T), of the sampled tokens under the policy in training; has the gradient.
        reference_log_probs: (B, T), under the reference.
        mask: (B, T).
        tokens: tokens in the minibatch.
    """
    difference = (reference_log_probs - log_probs) * mask
    return ((torch.exp(difference) - difference - 1) * mask).sum() / tokens
