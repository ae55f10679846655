"""The losses of reinforcement learning: pure functions of tensors.

Notation as in `advantages`: B answers, T tokens; all tensors are (B, T), `log_probs` and `values`
those of the model in training, with a gradient. Losses are sums over tokens divided by `tokens`,
the number of tokens of the whole minibatch, so that micro-batches of any size add up to the loss of
the minibatch.
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

    The probability ratio to the policy that sampled the tokens (`old_log_probs`) counts only within
    [1 - clip, 1 + clip].

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

    Values should be the `returns`; clipped ones are within `clip` of those that the model had when
    the answers were sampled.
    """
    clipped = torch.clamp(values, old_values - clip, old_values + clip)
    worse = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return 0.5 * (worse * mask).sum() / tokens


def kl_loss(
    log_probs: torch.Tensor, reference_log_probs: torch.Tensor, mask: torch.Tensor, tokens: float
) -> torch.Tensor:
    """The KL divergence from the reference, per token, by an estimate that is never negative.

    exp(d) - d - 1 with d = log p_ref - log p (DeepSeekMath, arXiv 2402.03300, eq. 4).
    """
    difference = (reference_log_probs - log_probs) * mask
    return ((torch.exp(difference) - difference - 1) * mask).sum() / tokens
