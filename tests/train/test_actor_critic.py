"""Policy, reference and value model, as adapters, and with all weights trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from torch import nn

from citepipe.errors import InputError
from citepipe.models.load import load_base, load_for_inference, load_tokenizer
from citepipe.options import ModelOptions
from citepipe.train.actor_critic import ActorCritic
from citepipe.train.batch import Batch
from citepipe.train.losses import policy_loss, value_loss

PROMPTS = [[5, 6, 7, 8], [9, 10]]
ANSWERS = [[[11, 12], [13]], [[14, 15, 16], [17]]]
ROWS = [(prompt, answer) for prompt, own in zip(PROMPTS, ANSWERS, strict=True) for answer in own]
PAD = 1

Make = Callable[..., Any]


@pytest.fixture(params=["adapter", "whole"])
def trained(request: pytest.FixtureRequest) -> str:
    """Which weights are trained: an adapter's, or all."""
    return str(request.param)


@pytest.fixture
def plain(trained: str, options: ModelOptions, adapter: Path, whole: Path) -> Any:
    """The policy as transformers and PEFT load it."""
    if trained == "whole":
        return load_for_inference(options, whole)
    return PeftModel.from_pretrained(load_base(options), adapter).eval()


@pytest.fixture
def make(options: ModelOptions, adapter: Path, whole: Path) -> Make:
    def made(trained: str = "adapter", with_values: bool = True) -> ActorCritic:
        if trained == "adapter":
            return ActorCritic(options, adapter, with_values)
        return ActorCritic(options.model_copy(update={"adapter": None}), whole, with_values)

    return made


def _batch(actor: ActorCritic) -> Batch:
    return actor.batch(PROMPTS, ANSWERS, PAD)


@pytest.mark.parametrize(("shared", "rows"), [(True, 2), (False, 4)])
def test_log_probabilities_and_values_are_those_of_plain_separate_passes(
    make: Make, trained: str, shared: bool, rows: int, plain: Any
) -> None:
    actor = make(trained)
    assert actor.shared
    actor.shared = shared
    nn.init.normal_(actor.head.weight)
    batch = _batch(actor)
    assert len(batch.inputs["input_ids"]) == rows
    scores = actor.scores(batch)
    for row, (prompt, answer) in enumerate(ROWS):
        output = plain(torch.tensor([prompt + answer]), output_hidden_states=True)
        own = output.logits.log_softmax(dim=-1)
        before = [len(prompt) + t - 1 for t in range(len(answer))]
        length = len(answer)
        expected = own[0, before, answer].tolist()
        assert scores.log_probs[row, :length].tolist() == pytest.approx(expected, abs=1e-5)
        entropy = -(own[0, before].exp() * own[0, before]).sum(dim=-1)
        torch.testing.assert_close(scores.entropy[row, :length], entropy, atol=1e-5, rtol=0)
        states = output.hidden_states[-1][0, before]
        torch.testing.assert_close(scores.values[row, :length], actor.head(states)[:, 0])
    assert scores.log_probs[1, 1:].tolist() == [0, 0]


def test_policy_and_reference_begin_alike_and_values_at_zero(make: Make, trained: str) -> None:
    actor = make(trained)
    scores = actor.scores(_batch(actor))
    assert torch.equal(scores.log_probs, scores.reference_log_probs)
    assert torch.equal(scores.values, torch.zeros(4, 3))
    actor = make(trained, False)
    assert actor.scores(_batch(actor)).values is None
    assert actor.value_parameters() == {}


def test_values_that_learn_alone_leave_the_policy_as_it_is(make: Make, trained: str) -> None:
    actor = make(trained)
    nn.init.normal_(actor.head.weight)
    batch, zero = _batch(actor), torch.zeros(4, 3)
    actor.backward(batch, None, lambda found: value_loss(found, zero, zero + 5, batch.mask, 9, 7))
    policy, values = actor.policy_parameters(), actor.value_parameters()
    learning = {n for n, p in (policy | values).items() if p.grad is not None and p.grad.any()}
    # Of one trunk for both, only the head learns alone.
    assert {"head.weight"} <= learning <= values.keys()
    assert not learning & policy.keys()


def test_the_gradient_of_the_whole_loss_is_its_finite_difference(make: Make, trained: str) -> None:
    # The norms of a Llama work in float32 whatever the weights are: no smaller step resolves more.
    actor = make(trained)
    actor.model.double()
    if actor._reference is not None:
        actor._reference.double()
    actor.head.double()
    torch.manual_seed(0)
    nn.init.normal_(actor.head.weight)
    batch = _batch(actor)
    old = actor.scores(batch).log_probs + 0.05 * torch.randn(4, 3).double()
    advantages, returns = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    parts: list[torch.Tensor] = []

    def policy(found: torch.Tensor) -> torch.Tensor:
        parts.append(policy_loss(found, old, advantages, batch.mask, 0.2, 5)[0])
        return parts[-1]

    def values(found: torch.Tensor) -> torch.Tensor:
        parts.append(0.7 * value_loss(found, 0 * returns, returns, batch.mask, 50.0, 7))
        return parts[-1]

    def loss() -> float:
        parts.clear()
        actor.backward(batch, policy, values)
        return sum(part.item() for part in parts)

    loss()
    both = actor.policy_parameters(), actor.value_parameters()
    found = [{n: p.grad.clone() for n, p in own.items() if p.grad is not None} for own in both]
    for parameters, gradients in zip(both, found, strict=True):
        # The parameter with the steepest gradient, and a place in it.
        name = max(gradients, key=lambda n: float(gradients[n].abs().max()))
        flat, gradient = parameters[name].data.view(-1), gradients[name].view(-1)
        place, step = int(gradient.abs().argmax()), 1e-3 if trained == "adapter" else 2e-4
        flat[place] += step
        above = loss()
        flat[place] -= 2 * step
        below = loss()
        flat[place] += step
        assert (above - below) / (2 * step) == pytest.approx(gradient[place].item(), rel=1e-2)


def test_a_policy_that_samples_is_the_same_and_is_left_as_it_was(make: Make) -> None:
    actor = make()
    with torch.no_grad():
        for parameter in actor.policy_parameters().values():
            parameter.add_(0.1)
    batch = _batch(actor)
    expected = actor.scores(batch)
    row = torch.tensor([PROMPTS[0] + ANSWERS[0][0]])
    with actor.sampling():
        scores = actor.model(row).logits.log_softmax(dim=-1)
        assert any(getattr(module, "merged", False) for module in actor.model.modules())
    torch.testing.assert_close(scores[0, 3, 11], expected.log_probs[0, 0], atol=1e-4, rtol=0)
    again = actor.scores(batch)
    assert all(torch.equal(one, other) for one, other in zip(expected, again, strict=True))
    assert all(p.requires_grad for p in actor.value_parameters().values())


def test_a_policy_in_16_bits_samples_as_it_is(options: ModelOptions, adapter: Path) -> None:
    halved = options.model_copy(update={"dtype": "bfloat16"})
    actor = ActorCritic(halved, adapter, with_values=True)
    with actor.sampling():
        assert not any(getattr(module, "merged", False) for module in actor.model.modules())


def test_the_saved_policy_is_loaded_as_it_was(
    make: Make, trained: str, options: ModelOptions, tmp_path: Path
) -> None:
    actor = make(trained)
    with torch.no_grad():
        for parameter in actor.policy_parameters().values():
            parameter.add_(0.01)
    expected = actor.log_probs(_batch(actor))[0, 0]
    actor.save_policy(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    loaded = load_for_inference(options, tmp_path)
    scores = loaded(torch.tensor([PROMPTS[0] + ANSWERS[0][0]])).logits.log_softmax(dim=-1)
    torch.testing.assert_close(scores[0, 3, 11], expected, atol=1e-5, rtol=0)


def test_a_start_that_does_not_go_with_the_options_is_one_clear_line(
    options: ModelOptions, adapter: Path, whole: Path
) -> None:
    with pytest.raises(InputError, match=r"a whole model, expected an adapter, see model\.adapter"):
        ActorCritic(options, whole, with_values=True)
    with pytest.raises(InputError, match=r"an adapter, expected a whole model, see"):
        ActorCritic(options.model_copy(update={"adapter": None}), adapter, with_values=True)


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA_LIKE = SMALL | {"intermediate_size": 32, "num_key_value_heads": 2, "initializer_range": 0.3}


@pytest.mark.parametrize(
    ("kind", "config", "attention", "shares"),
    [
        ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}, None, True),
        ("OPT", SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.3}, None, True),
        ("Gemma2", LLAMA_LIKE | {"head_dim": 8, "final_logit_softcapping": 2.0}, "eager", False),
        ("Cohere", LLAMA_LIKE | {"logit_scale": 0.3}, None, True),
        ("Qwen3", LLAMA_LIKE | {"head_dim": 8}, "eager", False),
        ("Mistral", LLAMA_LIKE | {"sliding_window": 4}, None, False),
    ],
)
def test_every_model_reads_answers_as_it_can_and_treats_logits_in_its_own_way(
    kind: str, config: Any, attention: Any, shares: bool, options: ModelOptions, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tokenizer = load_tokenizer(options)
    built = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **config)
    transformers.AutoModelForCausalLM.from_config(built).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    changed = {"base": str(tmp_path), "adapter": None, "attention": attention}
    all_weights = options.model_copy(update=changed)
    actor = ActorCritic(all_weights, tmp_path, with_values=True)
    plain = load_for_inference(all_weights, tmp_path)
    found = actor.log_probs(_batch(actor))
    for row, (prompt, answer) in enumerate(ROWS):
        own = plain(torch.tensor([prompt + answer])).logits.log_softmax(dim=-1).detach()
        expected = own[0, range(len(prompt) - 1, len(prompt + answer) - 1), answer].tolist()
        assert found[row, : len(answer)].tolist() == pytest.approx(expected, abs=1e-5)
    assert actor.shared == shares
