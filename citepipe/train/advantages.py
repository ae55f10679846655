"""Returns and advantages: pure functions of tensors.

Notation: B answers, T tokens of the longest answer; `mask` (B, T) is 1 on an answer's tokens and 0
on padding, which stands at the end of each row.
"""

from __future__ import annotations

import torch


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of `values` (B, T) over the tokens of `mask`, as a scalar."""
    return (values * mask).sum() / mask.sum()


def whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """Scale values to standard deviation 1 over the tokens of `mask`.

    FineGrainedRLHF's `whiten` divides by the square root of the standard deviation
    (`fgrlhf/utils.py`); this divides by the standard deviation.

    Args:
        values: (B, T).
        mask: (B, T).
        shift_mean: also shift the mean to 0; else the mean of the scaled values is kept at what
            it was.

    Returns:
        (B, T), 0 on padding.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    if not shift_mean:
        whitened = whitened + mean
    return whitened * mask


def penalize_kl(
    rewards: torch.Tensor,
    log_probs: torch.Tensor,
    reference_log_probs: torch.Tensor,
    mask: torch.Tensor,
    coefficient: float,
) -> torch.Tensor:
    """Rewards less the KL penalty: r_t - coefficient * (log p_t - log p_ref,t).

    Args:
        rewards: (B, T).
        log_probs: (B, T), of the sampled tokens under the policy that sampled them.
        reference_log_probs: (B, T), under the reference policy.
        mask: (B, T).
        coefficient: weight of the penalty.

    Returns:
        (B, T), 0 on padding.
    """
    return (rewards - coefficient * (log_probs - reference_log_probs)) * mask


def generalized_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    A_t = sum_l (gamma * lam)^l delta_{t+l},  delta_t = r_t + gamma * V_{t+1} - V_t, where the
    value after an answer's last token is 0.

    Args:
        rewards: (B, T).
        values: (B, T), V_t before token t is chosen.
        mask: (B, T).
        gamma: discount per token.
        lam: lambda.

    Returns:
        advantages (B, T) and returns (B, T) = advantages + values, both 0 on padding.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    following_value = torch.zeros_like(following)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        advantages[:, t] = following
        following_value = values[:, t]
    return advantages, (advantages + values) * mask
