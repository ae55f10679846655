"""The next token."""

import pytest
import torch

from citepipe.generate import choose as module
from citepipe.generate.choose import choose, uniforms
from citepipe.generate.completion import Sampling


def test_a_draw_picks_the_token_in_which_the_cumulative_probability_passes_it() -> None:
    # Probabilities 0.2, 0.5, 0.3; likeliest first: token 1 up to 0.5, token 2 to 0.8, token 0.
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(4, 1)
    draws = torch.tensor([0.0, 0.49, 0.51, 0.81])
    chosen, scores, _ = choose(logits, Sampling(temperature=1.0), draws)
    assert chosen.tolist() == [1, 1, 2, 0]
    assert scores.exp().tolist() == pytest.approx([0.5, 0.5, 0.3, 0.2])
    # With top-k 2 the probabilities become 0.625 and 0.375, but are told as the model has them.
    chosen, scores, _ = choose(
        logits, Sampling(temperature=1.0, top_k=2), torch.tensor([0.6, 0.63, 0.9, 1.0])
    )
    assert chosen.tolist() == [1, 2, 2, 2]
    assert scores.exp().tolist() == pytest.approx([0.5, 0.3, 0.3, 0.3])
    # At temperature 0.5 the probabilities are squared: 4, 25, 9 of 38.
    chosen, _, _ = choose(logits, Sampling(temperature=0.5), torch.tensor([0.65, 0.66, 0.89, 0.90]))
    assert chosen.tolist() == [1, 2, 2, 0]


def test_a_draw_beyond_the_likeliest_tokens_sorts_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    draws = torch.linspace(0, 0.999, 50)
    whole, _, _ = choose(logits, Sampling(temperature=1.0), draws)
    monkeypatch.setattr(module, "_LIKELIEST", 5)
    few, _, _ = choose(logits, Sampling(temperature=1.0), draws)
    assert few.tolist() == whole.tolist()
    ranks = (logits > logits.gather(1, few[:, None])).sum(dim=1)
    assert ranks.max() >= 5


def test_among_many_tokens_a_draw_is_by_their_probabilities_and_seldom_in_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MANY", 1000)
    # Eight tokens have most of the probability, 1,000 share a fifth of it.
    size, generator = 1008, torch.Generator().manual_seed(0)
    shares = torch.cat([torch.arange(1.0, 9) / 45, torch.full((1000,), 2e-4)])
    draws = torch.rand(20_000, generator=generator)
    found = [
        choose(shares.log().expand(len(own), size), Sampling(temperature=1.0), own)
        for own in draws.split(500)
    ]
    chosen, scores, unsure = (torch.cat(parts) for parts in zip(*found, strict=True))
    counts = torch.bincount(chosen.clamp(max=8), minlength=9)
    expected = torch.cat([shares[:8], shares[8:].sum()[None]]) * len(draws)
    # Chi-square with 8 degrees of freedom is above 26.1 once in a thousand.
    assert float(((counts - expected) ** 2 / expected).sum()) < 26.1
    assert scores.exp().tolist() == pytest.approx(shares[chosen].tolist(), rel=1e-3)
    # Sorted, each of the 4,000 draws from the tail would have a neighbour that is as likely.
    assert unsure.float().mean() < 0.001
    again, _, _ = choose(shares.log()[None], Sampling(temperature=1.0), draws[7:8])
    assert again.tolist() == chosen[7:8].tolist()


def test_greedy_takes_the_likeliest() -> None:
    chosen, scores, _ = choose(torch.tensor([[0.0, 1.0], [3.0, 3.0]]), Sampling(), None)
    assert chosen.tolist() == [1, 0]
    assert scores.tolist() == pytest.approx([-0.31326, -0.69315], abs=1e-5)


def test_draws_are_a_function_of_seed_and_key() -> None:
    first = uniforms(0, "asqa/1/0", 5)
    assert first.tolist() == uniforms(0, "asqa/1/0", 9)[:5].tolist()
    assert first.tolist() != uniforms(1, "asqa/1/0", 5).tolist()
    assert first.tolist() != uniforms(0, "asqa/1/1", 5).tolist()
    assert 0 <= first.min() <= first.max() < 1


def test_a_choice_that_rounding_may_change_is_told() -> None:
    # Borders at 0.5 and 0.8. What is 1e-5 from one, or a token with a rival, is unsure.
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(5, 1)
    draws = torch.tensor([0.3, 0.499997, 0.500003, 0.799998, 0.6])
    for top_k in (0, 3):
        _, _, unsure = choose(logits, Sampling(temperature=1.0, top_k=top_k), draws)
        assert unsure.tolist() == [False, True, True, True, False]
    rivals = torch.tensor([[0.4, 0.4, 0.2]]).log() + torch.tensor([[0.0, 5e-6, 0.0]])
    for draw, wanted in ((0.2, True), (0.7, True), (0.9, False)):
        for sampling in (Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=2)):
            if draw < 0.8 or sampling.top_k == 0:
                _, _, unsure = choose(rivals, sampling, torch.tensor([draw]))
                assert unsure.tolist() == [wanted]
    # The last that can be drawn and the first that cannot.
    edge = torch.tensor([[0.5, 0.25, 0.25]]).log()
    _, _, unsure = choose(edge, Sampling(temperature=1.0, top_k=2), torch.tensor([0.9]))
    assert unsure.tolist() == [True]
    _, _, unsure = choose(torch.tensor([[1.0, 1.000005], [1.0, 2.0]]), Sampling(), None)
    assert unsure.tolist() == [True, False]
