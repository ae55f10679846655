"""Advantages, by hand."""

import pytest
import torch

from citepipe.train.advantages import (
    decoupled,
    explained_variance,
    generalized_advantages,
    group_relative,
    leave_one_out,
    penalize_kl,
    returns_to_go,
    whiten,
)


def test_whitening_divides_by_the_standard_deviation_and_moves_the_mean_or_not() -> None:
    # 1, 3, 5 have mean 3 and variance 8/3; the 9 is padding.
    values = torch.tensor([[1.0, 3.0, 9.0], [5.0, 9.0, 9.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    expected = torch.tensor([[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]) / (8 / 3) ** 0.5
    torch.testing.assert_close(whiten(values, mask), expected)
    torch.testing.assert_close(whiten(values, mask, "keep"), expected + 3 * mask)
    torch.testing.assert_close(whiten(values, mask, "divide"), values * mask / (8 / 3) ** 0.5)


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
    # With lambda 1 and no discount returns are the sums of the rewards to come.
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[3.0, 2.0, 0.0], [4.0, 0.0, 0.0]]))
    torch.testing.assert_close(advantages, returns - values * mask)


GROUP = torch.tensor([[0.2, 0.0, 0.6], [0.0, 0.4, 0.0]])
A = 0.2 / (0.08 / 3) ** 0.5


@pytest.mark.parametrize(
    ("dense", "expected"),
    [
        # Sums 0.8 and 0.4: mean 0.6, deviation 0.2.
        (False, [[1.0, 1.0, 1.0], [-1.0, -1.0, 0.0]]),
        # Rewards 0.2, 0.6, 0.4: mean 0.4, deviation sqrt(0.08 / 3); standardized -A, A, 0, and
        # summed from each token on.
        (True, [[0.0, A, A], [0.0, 0.0, 0.0]]),
    ],
)
def test_rewards_are_standardized_over_their_group(
    dense: bool, expected: list[list[float]]
) -> None:
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    found = returns_to_go(GROUP, mask)
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.6, 0.6], [0.4, 0.4, 0.0]]))
    torch.testing.assert_close(group_relative(GROUP, mask, 2, dense), torch.tensor(expected))
    # A group in which all is alike teaches nothing.
    same = torch.tensor([[0.1, 0.0], [0.1, 0.0], [0.7, 0.1], [0.3, 0.0]])
    found = group_relative(same, torch.ones(4, 2), 2, dense)
    assert torch.equal(found[:2], torch.zeros(2, 2))
    assert found[2:].any()


def test_parts_of_rewards_are_standardized_apart() -> None:
    # Two questions, two answers each. The first part prefers the first answer of both, the second
    # the second one of the first, by ten times as much, and says nothing of the other question.
    first = torch.tensor([[1.0, 0], [0, 0], [1, 0], [0, 0]])
    second = torch.tensor([[0.0, 0], [0, 10], [0, 0], [0, 0]])
    mask = torch.tensor([[1.0, 1], [1, 1], [1, 0], [1, 1]])
    found = decoupled(torch.stack([first, second]), mask, 2, dense=False)
    # The sums are 0, 0, 1 and -1, with a standard deviation of sqrt(1/2).
    root = 2**0.5
    expected = torch.tensor([[0.0, 0], [0, 0], [root, 0], [-root, -root]])
    torch.testing.assert_close(found, expected)
    # Dense, of one question: 1 and -1 on the first tokens, 1 and -1 on the second, so from each
    # token on 2, 1, -2 and -1, with a standard deviation of sqrt(5/2).
    first = torch.tensor([[1.0, 0], [-1, 0]])
    second = torch.tensor([[0.0, 3], [0, -3]])
    found = decoupled(torch.stack([first, second]), torch.ones(2, 2), 2, dense=True)
    torch.testing.assert_close(found, torch.tensor([[2.0, 1], [-2, -1]]) / 2.5**0.5)


def test_answers_over_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[0.6, 0.0], [0.0, 0.3], [0.0, 0.0]])
    mask = torch.tensor([[1.0, 1], [1, 1], [1, 0]])
    # Sums 0.6, 0.3, 0: the others' means are 0.15, 0.3, 0.45.
    found = leave_one_out(rewards, mask, 3, dense=False)
    torch.testing.assert_close(found, torch.tensor([[0.45, 0.45], [0.0, 0.0], [-0.45, 0.0]]))
    # From the second token on 0, 0.3 and (ended) 0: the others' means are 0.15, 0 and 0.15.
    found = leave_one_out(rewards, mask, 3, dense=True)
    torch.testing.assert_close(found, torch.tensor([[0.45, -0.15], [0.0, 0.3], [-0.45, 0.0]]))


def test_variance_that_values_explain() -> None:
    returns, mask = torch.tensor([[1.0, 2], [3, 9]]), torch.tensor([[1.0, 1], [1, 0]])
    # Of a variance of 2/3 the errors 0, 0 and 1 leave 2/9.
    known = torch.tensor([[1.0, 2], [2, 0]])
    assert explained_variance(known, returns, mask) == pytest.approx(2 / 3)
    assert explained_variance(torch.full((2, 2), 7.0), returns, mask) == pytest.approx(0)
