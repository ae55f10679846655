"""Policy, reference and value model, as adapters, as heads, and as models of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from citepipe.errors import InputError
from citepipe.models.load import load_base, load_for_inference, load_tokenizer
from citepipe.options import ModelOptions
from citepipe.train.actor_critic import ActorCritic, ValueKind
from citepipe.train.batch import Batch
from citepipe.train.losses import policy_loss, value_loss

PROMPTS = [[5, 6, 7, 8], [9, 10]]
ANSWERS = [[[11, 12], [13]], [[14, 15, 16], [17]]]
PAD = 1
KINDS = [("adapter", "adapter"), ("adapter", "shared"), ("adapter", "full")]
KINDS += [("whole", "shared"), ("whole", "full")]


@pytest.fixture(scope="module")
def whole(options: ModelOptions, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained adapter merged into a whole model."""
    directory = tmp_path_factory.mktemp("whole")
    load_for_inference(options, adapter).save_pretrained(directory)
    return directory


@pytest.fixture
def make(options: ModelOptions, adapter: Path, whole: Path):  # type: ignore[no-untyped-def]
    def made(trained: str = "adapter", value: ValueKind | None = "adapter") -> ActorCritic:
        if trained == "adapter":
            return ActorCritic(options, adapter, value)
        return ActorCritic(options.model_copy(update={"adapter": None}), whole, value)

    return made


def _batch(actor: ActorCritic) -> Batch:
    return actor.batch(PROMPTS, ANSWERS, PAD)


@pytest.mark.parametrize("layout", ["shared prompts", "separate rows", "no padding"])
def test_log_probabilities_and_values_are_those_of_plain_separate_passes(
    make, layout: str, options: ModelOptions, adapter: Path
) -> None:  # type: ignore[no-untyped-def]
    actor = make()
    actor.shares_prompts = layout == "shared prompts"
    actor._takes_no_padding = layout == "no padding"
    nn.init.normal_(actor.head.weight)
    plain = PeftModel.from_pretrained(load_base(options), adapter).eval()
    batch = _batch(actor)
    rows = {"shared prompts": 2, "separate rows": 4, "no padding": 1}
    assert len(batch.inputs["input_ids"]) == rows[layout]
    scores, values = actor.scores(batch), actor.values(batch)
    answers = [(prompt, a) for prompt, own in zip(PROMPTS, ANSWERS, strict=True) for a in own]
    for row, (prompt, answer) in enumerate(answers):
        output = plain(torch.tensor([prompt + answer]), output_hidden_states=True)
        own = output.logits.log_softmax(dim=-1)
        before = [len(prompt) + t - 1 for t in range(len(answer))]
        length = len(answer)
        expected = [float(own[0, place, a]) for place, a in zip(before, answer, strict=True)]
        assert scores.log_probs[row, :length].tolist() == pytest.approx(expected, abs=1e-5)
        entropy = -(own[0, before].exp() * own[0, before]).sum(dim=-1)
        torch.testing.assert_close(scores.entropy[row, :length], entropy, atol=1e-5, rtol=0)
        states = output.hidden_states[-1][0, before]
        torch.testing.assert_close(values[row, :length], actor.head(states)[:, 0])
    assert scores.log_probs[1, 1:].tolist() == [0, 0]


@pytest.mark.parametrize(("trained", "value"), KINDS)
def test_policy_and_reference_begin_alike_and_values_at_zero(make, trained, value) -> None:  # type: ignore[no-untyped-def]
    actor = make(trained, value)
    assert actor.shares_prompts
    scores = actor.scores(_batch(actor))
    assert torch.equal(scores.log_probs, scores.reference_log_probs)
    assert torch.equal(scores.values, torch.zeros(4, 3))


def test_without_a_value_model_there_are_no_values(make) -> None:  # type: ignore[no-untyped-def]
    actor = make("adapter", None)
    assert actor.scores(_batch(actor)).values is None
    assert actor.value_parameters() == {}


@pytest.mark.parametrize(("trained", "value"), KINDS)
def test_each_loss_reaches_its_own_parameters_only(make, trained, value) -> None:  # type: ignore[no-untyped-def]
    actor = make(trained, value)
    nn.init.normal_(actor.head.weight)
    batch = _batch(actor)
    zero, five = torch.zeros(4, 3), torch.full((4, 3), 5.0)
    moved = {}
    for on_policy, on_value in ((1.0, 0.0), (0.0, 1.0)):
        parameters = actor.policy_parameters() | actor.value_parameters()
        for parameter in parameters.values():
            parameter.grad = None
        actor.backward(
            batch,
            lambda found, weight=on_policy: (
                weight * policy_loss(found, zero - 1, five, batch.mask, 9.0, 7)[0]
            ),
            lambda found, weight=on_value: (
                weight * value_loss(found, zero, five, batch.mask, 9.0, 7)
            ),
        )
        moved[on_policy] = {
            name for name, p in parameters.items() if p.grad is not None and p.grad.any()
        }
    assert moved[1.0]
    assert moved[1.0] <= set(actor.policy_parameters())
    assert "head.weight" in moved[0.0]
    if value == "shared":
        assert moved[0.0] & set(actor.policy_parameters()), "the trunk learns from both"
    else:
        assert len(moved[0.0]) > 2
        assert moved[0.0] <= set(actor.value_parameters())


@pytest.mark.parametrize(("trained", "value"), KINDS)
def test_the_gradient_of_the_whole_loss_is_its_finite_difference(make, trained, value) -> None:  # type: ignore[no-untyped-def]
    # The norms of a Llama work in float32 whatever the weights are: no smaller step resolves more.
    actor = make(trained, value)
    for head in {id(h): h for h in actor._heads.values()}.values():
        head._decoder.double()
        head._head.double()
    actor.model.double()
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
    trained_parameters = [actor.policy_parameters(), actor.value_parameters()]
    found = [
        {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None}
        for parameters in trained_parameters
    ]
    for parameters, gradients in zip(trained_parameters, found, strict=True):
        # The parameter with the steepest gradient, and a place in it.
        name = max(gradients, key=lambda n: float(gradients[n].abs().max()))
        parameter, gradient = parameters[name], gradients[name].view(-1)
        place = int(gradient.abs().argmax())
        flat, step = parameter.data.view(-1), 1e-3 if trained == "adapter" else 2e-4
        flat[place] += step
        above = loss()
        flat[place] -= 2 * step
        below = loss()
        flat[place] += step
        assert (above - below) / (2 * step) == pytest.approx(gradient[place].item(), rel=1e-2)


def test_a_policy_that_samples_is_the_same_and_is_left_as_it_was(make) -> None:  # type: ignore[no-untyped-def]
    actor = make()
    with torch.no_grad():
        for parameter in actor.policy_parameters().values():
            parameter.add_(0.1)
    batch = _batch(actor)
    before = {name: p.clone() for name, p in actor.model.named_parameters()}
    expected = actor.scores(batch)
    row = torch.tensor([PROMPTS[0] + ANSWERS[0][0]])
    with actor.sampling():
        scores = actor.model(row).logits.log_softmax(dim=-1)
        assert any(getattr(module, "merged", False) for module in actor.model.modules())
    torch.testing.assert_close(scores[0, 3, 11], expected.log_probs[0, 0], atol=1e-4, rtol=0)
    after = dict(actor.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    again = actor.scores(batch)
    assert all(torch.equal(one, other) for one, other in zip(expected, again, strict=True))
    assert all(p.requires_grad for p in actor.value_parameters().values())


def test_a_policy_in_16_bits_samples_as_it_is(options: ModelOptions, adapter: Path) -> None:
    halved = options.model_copy(update={"dtype": "bfloat16"})
    actor = ActorCritic(halved, adapter, "adapter")
    with actor.sampling():
        assert not any(getattr(module, "merged", False) for module in actor.model.modules())


@pytest.mark.parametrize("trained", ["adapter", "whole"])
def test_the_saved_policy_is_loaded_as_it_was(
    make, trained, options: ModelOptions, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    actor = make(trained, "shared")
    with torch.no_grad():
        for parameter in actor.policy_parameters().values():
            parameter.add_(0.01)
    expected = actor.log_probs(_batch(actor))[0, 0]
    actor.save_policy(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    loaded = load_for_inference(options, tmp_path)
    scores = loaded(torch.tensor([PROMPTS[0] + ANSWERS[0][0]])).logits.log_softmax(dim=-1)
    torch.testing.assert_close(scores[0, 3, 11], expected, atol=1e-5, rtol=0)


def test_starts_that_do_not_go_with_the_options_are_one_clear_line(
    options: ModelOptions, adapter: Path, whole: Path
) -> None:
    all_weights = options.model_copy(update={"adapter": None})
    with pytest.raises(InputError, match=r"a whole model, but model\.adapter says"):
        ActorCritic(options, whole, "adapter")
    with pytest.raises(InputError, match=r"an adapter, but model\.adapter is null"):
        ActorCritic(all_weights, adapter, "shared")
    with pytest.raises(InputError, match=r"rl\.value: an adapter needs"):
        ActorCritic(all_weights, whole, "adapter")


@pytest.mark.parametrize("kind", ["gpt2", "window", "eager"])
def test_models_that_cannot_read_shared_prompts_get_separate_rows(
    kind: str, options: ModelOptions, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tokenizer = load_tokenizer(options)
    size = len(tokenizer)
    if kind == "gpt2":
        GPT2LMHeadModel(
            GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3)
        ).save_pretrained(tmp_path)
    else:
        MistralForCausalLM(
            MistralConfig(
                vocab_size=size,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                sliding_window=4 if kind == "window" else None,
                initializer_range=0.3,
            )
        ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    all_weights = options.model_copy(
        update={
            "base": str(tmp_path),
            "adapter": None,
            "attention": "eager" if kind == "eager" else None,
        }
    )
    actor = ActorCritic(all_weights, tmp_path, "shared")
    plain = load_for_inference(all_weights, tmp_path)
    found = actor.log_probs(_batch(actor))
    answers = [(prompt, a) for prompt, own in zip(PROMPTS, ANSWERS, strict=True) for a in own]
    for row, (prompt, answer) in enumerate(answers):
        own = plain(torch.tensor([prompt + answer])).logits.log_softmax(dim=-1).detach()
        expected = [float(own[0, len(prompt) + t - 1, a]) for t, a in enumerate(answer)]
        assert found[row, : len(answer)].tolist() == pytest.approx(expected, abs=1e-5)
    if kind == "window":
        assert not actor.shares_prompts
