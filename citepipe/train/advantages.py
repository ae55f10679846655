"""Returns and advantages: pure functions of tensors.

Notation: B answers, T tokens of the longest answer; `mask` (B, T) is 1 on an answer's tokens and 0
on padding, which stands at the end of each row. All tensors of tokens are (B, T), and results are
0 on padding. Where answers are compared with each other, those to one question stand next to each
other, `count` of them; `dense` says that rewards stay on the tokens that earned them.
"""

from __future__ import annotations

from typing import Literal

import torch


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of `values` (B, T) over the tokens of `mask`, as a scalar."""
    return (values * mask).sum() / mask.sum()


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """How much of the returns' variance (B, T) the values knew: 1 for all of it, 0 for none, less
    where they are worse than a constant."""

    def variance(numbers: torch.Tensor) -> torch.Tensor:
        return masked_mean((numbers - masked_mean(numbers, mask)) ** 2, mask)

    return float(1 - variance(returns - values) / variance(returns).clamp(min=1e-12))


Mean = Literal["zero", "keep", "divide"]


def whiten(values: torch.Tensor, mask: torch.Tensor, mean: Mean = "zero") -> torch.Tensor:
    """Values (B, T) with standard deviation 1.

    Their mean becomes 0 or is kept, by adding the same to all: FineGrainedRLHF's `whiten` with and
    without `shift_mean` (`fgrlhf/utils.py`), which divides by the square root of the standard
    deviation, where this divides by the standard deviation. With `divide` nothing is added: what
    was 0 stays 0.
    """
    average = masked_mean(values, mask)
    scale = torch.rsqrt(masked_mean((values - average) ** 2, mask) + 1e-8)
    whitened = values * scale
    if mean != "divide":
        whitened = whitened - average * scale
    if mean == "keep":
        whitened = whitened + average
    return whitened * mask


def penalize_kl(
    rewards: torch.Tensor,
    log_probs: torch.Tensor,
    reference_log_probs: torch.Tensor,
    mask: torch.Tensor,
    coefficient: float,
) -> torch.Tensor:
    """(B, T): rewards less the KL penalty, r_t - coefficient * (log p_t - log p_ref,t).

    Both log-probabilities (B, T) are of the sampled tokens, p under the policy that sampled them.
    """
    return (rewards - coefficient * (log_probs - reference_log_probs)) * mask


def generalized_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    A_t = sum_l (gamma * lam)^l delta_{t+l},  delta_t = r_t + gamma * V_{t+1} - V_t, where the
    value after an answer's last token is 0 and V_t that before token t is chosen.

    Returns:
        advantages, and returns = advantages + values.
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


def returns_to_go(rewards: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T): the sum of the rewards from each token on."""
    return (rewards * mask).flip(1).cumsum(dim=1).flip(1) * mask


def group_relative(
    rewards: torch.Tensor, mask: torch.Tensor, count: int, dense: bool
) -> torch.Tensor:
    """(B, T): advantages over the other answers to the same question, in standard deviations.

    DeepSeekMath (arXiv 2402.03300), section 4.1.2 if not dense: every token of an answer has the
    answer's summed reward, standardised over the group. Section 4.1.3 if dense: every reward is
    standardised over all rewards of the group, and a token has the sum of those from it on. A
    token whose rewards are or cancel to 0 counts as not rewarded. The standard deviation is that
    of the population; where it is 0 so are the advantages.
    """
    if not dense:
        totals = (rewards * mask).sum(dim=1).view(-1, count)
        return _standardized(totals, torch.ones_like(totals)).view(-1, 1) * mask
    grouped = (rewards * mask).view(-1, count * rewards.shape[1])
    standardized = _standardized(grouped, (grouped != 0).to(grouped.dtype))
    return returns_to_go(standardized.view_as(rewards), mask)


def decoupled(parts: torch.Tensor, mask: torch.Tensor, count: int, dense: bool) -> torch.Tensor:
    """(B, T): the advantages of `group_relative` of each part of the rewards, `parts` (C, B, T),
    summed and standardised over the batch (GDPO, arXiv 2601.05242, section 3.1).

    What one part says of an answer is not lost in the spread of another. All parts weigh the same,
    whatever their sizes. The batch are answers, or if dense their tokens.
    """
    summed = torch.stack([group_relative(part, mask, count, dense) for part in parts]).sum(dim=0)
    # An answer that is not dense has one advantage, on its first token as on all.
    chosen = slice(None) if dense else slice(1)
    values, own = summed[:, chosen], mask[:, chosen]
    standardized = _standardized(values.reshape(1, -1), own.reshape(1, -1))
    return standardized.view_as(values) * mask


def leave_one_out(
    rewards: torch.Tensor, mask: torch.Tensor, count: int, dense: bool
) -> torch.Tensor:
    """(B, T): advantages over the mean of the other answers to the same question (at least one).

    Ahmadian et al. 2024 (arXiv 2402.14740), section 3.4 if not dense: an answer's summed reward
    (less the KL penalty) less the others' mean, on every token. If dense, the same with the sums of
    rewards from each token on: what the others still get behind as many tokens (nothing, when they
    have ended). That baseline depends on no token of the answer itself either, so the gradient
    stays unbiased.
    """
    if dense:
        gains = returns_to_go(rewards, mask)
    else:
        gains = (rewards * mask).sum(dim=1, keepdim=True).expand_as(rewards)
    grouped = gains.reshape(-1, count, rewards.shape[1])
    others = (grouped.sum(dim=1, keepdim=True) - grouped) / (count - 1)
    return (grouped - others).view_as(rewards) * mask


def _standardized(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Each row (its values in `mask`) with mean 0 and standard deviation 1; constant ones 0."""
    number = mask.sum(dim=1, keepdim=True).clamp(min=1)
    centred = (values - (values * mask).sum(dim=1, keepdim=True) / number) * mask
    deviation = (centred**2).sum(dim=1, keepdim=True).div(number).sqrt()
    # A constant row is not quite constant after rounding.
    return torch.where(deviation > 1e-6, centred / deviation.clamp(min=1e-6), 0.0)
