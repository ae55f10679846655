"""Three adapters on one base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from citepipe.models.load import load_base
from citepipe.options.model import ModelOptions
from citepipe.train.actor_critic import ActorCritic, Batch
from citepipe.train.losses import policy_loss, value_loss

PROMPTS = [[5, 6, 7, 8], [9, 10]]
ANSWERS = [[11, 12], [13], [14, 15, 16], [17]]
"""Two to each prompt."""


@pytest.fixture
def actor(options: ModelOptions, adapter: Path) -> ActorCritic:
    return ActorCritic(options, adapter)


def _batch() -> Batch:
    return Batch.build(PROMPTS, ANSWERS, pad_id=1, device=torch.device("cpu"))


def test_a_prompt_stands_once_in_front_of_its_answers() -> None:
    batch = Batch.build([[5, 6], [9]], [[11, 12], [13], [14], [15]], 1, torch.device("cpu"))
    assert batch.ids.tolist() == [[5, 6, 11, 12, 13, 1], [1, 9, 14, 1, 15, 1]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 2, 3], [0, 0, 1, 2, 1, 2]]
    assert batch.mask.tolist() == [[1, 1], [1, 0], [1, 0], [1, 0]]
    # The second answer's token (column 4) sees the prompt and itself, not the first answer.
    assert batch.visible[0, 0, 4].tolist() == [True, True, False, False, True, False]
    assert batch.visible[1, 0, 4].tolist() == [False, True, False, False, True, False]
    assert batch.predicting().tolist() == [[1, 2], [1, 4]]


def test_log_probabilities_and_values_are_those_of_plain_separate_passes(
    actor: ActorCritic, options: ModelOptions, adapter: Path
) -> None:
    torch.nn.init.normal_(actor.head.weight)
    plain = PeftModel.from_pretrained(load_base(options), adapter).eval()
    found, values = actor.log_probs(_batch(), "policy"), actor.values(_batch())
    for row, answer in enumerate(ANSWERS):
        prompt = PROMPTS[row // 2]
        output = plain(torch.tensor([prompt + answer]), output_hidden_states=True)
        scores = output.logits.log_softmax(dim=-1)
        before = [len(prompt) + t - 1 for t in range(len(answer))]
        expected = [float(scores[0, place, a]) for place, a in zip(before, answer, strict=True)]
        assert found[row, : len(answer)].tolist() == pytest.approx(expected, abs=1e-5)
        states = output.hidden_states[-1][0, before]
        torch.testing.assert_close(values[row, : len(answer)], actor.head(states)[:, 0])
    assert found[1, 1:].tolist() == [0, 0]


def test_policy_and_reference_begin_alike_and_values_at_zero(actor: ActorCritic) -> None:
    batch = _batch()
    assert torch.equal(actor.log_probs(batch, "policy"), actor.log_probs(batch, "reference"))
    assert torch.equal(actor.values(batch), torch.zeros(4, 3))


def test_each_loss_reaches_its_own_adapter_only(actor: ActorCritic) -> None:
    torch.nn.init.normal_(actor.head.weight)
    batch, ones = _batch(), torch.ones(4, 3)
    policy = policy_loss(actor.log_probs(batch, "policy"), -ones, ones, batch.mask, 0.2, 7)[0]
    value = value_loss(actor.values(batch), 0 * ones, 5 * ones, batch.mask, 9.0, 7)
    (policy + value).backward()
    moved = {
        name for name, p in actor.model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert any(".policy." in name for name in moved)
    assert any(".value." in name for name in moved)
    assert all(".policy." in name or ".value." in name for name in moved)


def test_the_gradient_of_the_whole_loss_is_its_finite_difference(actor: ActorCritic) -> None:
    # The norms of a Llama work in float32 whatever the weights are: no smaller step resolves more.
    actor.model.double()
    actor.head.double()
    torch.manual_seed(0)
    torch.nn.init.normal_(actor.head.weight)
    batch = _batch()
    old = actor.log_probs(batch, "policy").detach() + 0.05 * torch.randn(4, 3).double()
    advantages, returns = torch.randn(4, 3).double(), torch.randn(4, 3).double()

    def loss() -> torch.Tensor:
        surrogate = policy_loss(
            actor.log_probs(batch, "policy"), old, advantages, batch.mask, 0.2, 5
        )[0]
        error = value_loss(actor.values(batch), 0 * returns, returns, batch.mask, 50.0, 7)
        return surrogate + 0.7 * error

    loss().backward()
    for parameters in (actor.policy_parameters(), actor.value_parameters()):
        parameter = next(p for n, p in parameters.items() if "lora_B" in n)
        place = int(parameter.grad.abs().argmax())
        flat, step = parameter.data.view(-1), 1e-3
        flat[place] += step
        above = loss().item()
        flat[place] -= 2 * step
        below = loss().item()
        flat[place] += step
        expected = parameter.grad.view(-1)[place].item()
        assert (above - below) / (2 * step) == pytest.approx(expected, rel=5e-3)


def test_the_saved_policy_is_a_plain_peft_adapter(
    actor: ActorCritic, options: ModelOptions, tmp_path: Path
) -> None:
    with torch.no_grad():
        for parameter in actor.policy_parameters().values():
            parameter.add_(0.01)
    expected = actor.log_probs(_batch(), "policy")[0, 0]
    actor.save_policy(tmp_path)
    assert sorted(p.name for p in tmp_path.glob("adapter_*")) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    loaded = PeftModel.from_pretrained(load_base(options), tmp_path).eval()
    scores = loaded(torch.tensor([PROMPTS[0] + ANSWERS[0]])).logits.log_softmax(dim=-1)
    torch.testing.assert_close(scores[0, 3, 11], expected, atol=1e-5, rtol=0)
