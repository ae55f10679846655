"""Advantages, by hand."""

import torch

from citepipe.train.advantages import generalized_advantages, penalize_kl, whiten


def test_whitening_divides_by_the_standard_deviation() -> None:
    # 1, 3, 5 have mean 3 and variance 8/3; the 9 is padding.
    values = torch.tensor([[1.0, 3.0, 9.0], [5.0, 9.0, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    scale = (8 / 3) ** 0.5
    expected = torch.tensor([[-2 / scale, 0.0, 0.0], [2 / scale, 0.0, 0.0]])
    torch.testing.assert_close(whiten(values, mask), expected)


def test_whitening_can_keep_the_mean() -> None:
    values = torch.tensor([[1.0, 3.0, 5.0]])
    mask = torch.ones(1, 3)
    scale = (8 / 3) ** 0.5
    expected = torch.tensor([[3 - 2 / scale, 3.0, 3 + 2 / scale]])
    torch.testing.assert_close(whiten(values, mask, shift_mean=False), expected)


def test_the_kl_penalty_comes_off_each_token() -> None:
    rewards = torch.tensor([[0.0, 0.2]])
    log_probs, reference = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.0]])
    penalized = penalize_kl(rewards, log_probs, reference, torch.ones(1, 2), 0.5)
    # 0 - 0.5 * 0.5 and 0.2 - 0.5 * (-1)
    torch.testing.assert_close(penalized, torch.tensor([[-0.25, 0.7]]))


def test_generalized_advantages_by_hand() -> None:
    # delta_2 = 2 - 1 = 1; delta_1 = 1 + 0.5 * 1 - 0.5 = 1; A_1 = 1 + 0.5 * 0.5 * 1 = 1.25
    rewards = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]])
    values = torch.tensor([[0.5, 1.0, 7.0], [1.0, 7.0, 7.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=0.5, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[1.25, 1.0, 0.0], [3.0, 0.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[1.75, 2.0, 0.0], [4.0, 0.0, 0.0]]))


def test_lambda_one_gives_the_return_less_the_value() -> None:
    torch.manual_seed(0)
    rewards, values, mask = torch.randn(3, 5), torch.randn(3, 5), torch.ones(3, 5)
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(returns, to_go)
    torch.testing.assert_close(advantages, to_go - values)
