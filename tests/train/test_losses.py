"""The losses of reinforcement learning, by hand."""

import math

import torch

from citepipe.train.losses import kl_loss, policy_loss, value_loss


def test_the_ratio_is_clipped_where_that_is_worse() -> None:
    # Ratios 2, 2, 0.5: with advantages 1, -1, 1 the surrogate takes 1.2, -2, 0.5.
    new = torch.tensor([[math.log(2), math.log(2), math.log(0.5), 5.0]], requires_grad=True)
    advantages = torch.tensor([[1.0, -1.0, 1.0, 100.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    loss, clipped = policy_loss(new, torch.zeros(1, 4), advantages, mask, clip=0.2, tokens=3)
    torch.testing.assert_close(loss, torch.tensor((-1.2 + 2.0 - 0.5) / 3))
    assert clipped == 1
    loss.backward()
    # d(-A ratio / 3) / d log p = -A ratio / 3; a clipped token has no gradient.
    torch.testing.assert_close(new.grad, torch.tensor([[0.0, 2 / 3, -0.5 / 3, 0.0]]))


def test_the_value_loss_takes_the_worse_of_plain_and_clipped() -> None:
    # Return 2; new value 1.5, old 1 clips to 1.2: errors 0.25 and 0.64. Padding counts nothing.
    new, old, returns = torch.tensor([[[1.5, 9.0]], [[1.0, 0.0]], [[2.0, 0.0]]])
    loss = value_loss(new, old, returns, torch.tensor([[1.0, 0.0]]), clip=0.2, tokens=1)
    torch.testing.assert_close(loss, torch.tensor(0.32))


def test_the_divergence_is_exp_d_minus_d_minus_1() -> None:
    # log p_ref - log p is log 2 and 0: 2 - log 2 - 1, and nothing. Padding counts nothing.
    new = torch.tensor([[0.0, -1.0, 0.0]], requires_grad=True)
    reference = torch.tensor([[math.log(2), -1.0, 9.0]])
    loss = kl_loss(new, reference, torch.tensor([[1.0, 1.0, 0.0]]), tokens=2)
    torch.testing.assert_close(loss, torch.tensor((1 - math.log(2)) / 2))
    loss.backward()
    # Its derivative by log p is 1 - exp(d): the policy is pulled up to the reference.
    torch.testing.assert_close(new.grad, torch.tensor([[-0.5, 0.0, 0.0]]))
