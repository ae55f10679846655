"""Advantages, by hand."""

import torch

from citepipe.train.advantages import (
    generalized_advantages,
    group_relative,
    leave_one_out,
    penalize_kl,
    returns_to_go,
    whiten,
)


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


GROUP = torch.tensor([[0.2, 0.0, 0.6], [0.0, 0.4, 0.0]])
GROUP_MASK = torch.tensor([[1.0, 1, 1], [1, 1, 0]])


def test_rewards_to_go() -> None:
    found = returns_to_go(GROUP, GROUP_MASK)
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.6, 0.6], [0.4, 0.4, 0.0]]))


def test_answers_standardized_over_their_group() -> None:
    # Sums 0.8 and 0.4: mean 0.6, deviation 0.2.
    found = group_relative(GROUP, GROUP_MASK, 2, dense=False)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 0.0]]))


def test_rewards_standardized_over_their_group_and_summed_from_each_token_on() -> None:
    # Rewards 0.2, 0.6, 0.4: mean 0.4, deviation sqrt(0.08 / 3); standardized -a, a, 0.
    a = 0.2 / (0.08 / 3) ** 0.5
    found = group_relative(GROUP, GROUP_MASK, 2, dense=True)
    torch.testing.assert_close(found, torch.tensor([[0.0, a, a], [0.0, 0.0, 0.0]]))


def test_a_group_in_which_all_is_alike_teaches_nothing() -> None:
    same = torch.tensor([[0.1, 0.0], [0.1, 0.0], [0.7, 0.1], [0.3, 0.0]])
    mask = torch.ones(4, 2)
    for dense in (False, True):
        found = group_relative(same, mask, 2, dense)
        assert torch.equal(found[:2], torch.zeros(2, 2))
        assert found[2:].any()


def test_answers_over_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[0.6, 0.0], [0.0, 0.3], [0.0, 0.0]])
    mask = torch.tensor([[1.0, 1], [1, 1], [1, 0]])
    # Sums 0.6, 0.3, 0: the others' means are 0.15, 0.3, 0.45.
    found = leave_one_out(rewards, mask, 3, dense=False)
    torch.testing.assert_close(found, torch.tensor([[0.45, 0.45], [0.0, 0.0], [-0.45, 0.0]]))
    # From the second token on 0, 0.3 and (ended) 0: the others' means are 0.15, 0 and 0.15.
    found = leave_one_out(rewards, mask, 3, dense=True)
    torch.testing.assert_close(found, torch.tensor([[0.45, -0.15], [0.0, 0.3], [-0.45, 0.0]]))
