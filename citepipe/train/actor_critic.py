"""Policy, reference and value model: adapters on one base, or models of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from citepipe.errors import InputError
from citepipe.models.load import (
    add_adapter,
    computing,
    folded,
    language_model_of,
    load_for_inference,
    load_trainable,
    load_whole,
    without_dropout,
)
from citepipe.models.save import save_model
from citepipe.options import ModelOptions
from citepipe.train.batch import Batch, Ids, Row, padding_free, separate_rows, shared_prompts
from citepipe.train.log_probs import TokenHead

ValueKind = Literal["adapter", "shared", "full"]
Role = Literal["policy", "reference", "value"]
Loss = Callable[[torch.Tensor], torch.Tensor]


class Scores(NamedTuple):
    """What the models say of answers, each (B, T), 0 on padding."""

    log_probs: torch.Tensor
    """Of the answers' tokens under the policy, at temperature 1."""
    entropy: torch.Tensor
    """Of the policy's distribution of each token, in nats."""
    reference_log_probs: torch.Tensor
    """Under the model that training started from."""
    values: torch.Tensor | None
    """The value before each token; None without a value model."""


class ActorCritic:
    """The models that reinforcement learning works with; all begin as the one it starts from.

    `policy` is trained; `reference` stays as it is, and the policy's KL penalty is measured
    against it; `value`, with a linear head that begins at zero, is trained to predict returns.
    With adapters all three are adapters on one base. Where all weights are trained the reference
    is a second model, held in `options.dtype`. The value model may also be a head on the policy's
    own states (`shared`), or a model of its own with all weights trained (`full`).

    Dropout is off, so that the policy that samples is the policy that is trained.

    Args:
        options: the base model.
        start: the adapter or model that training starts from.
        value: what the value model is; None for no value model at all.

    Attributes:
        model: what samples: the policy, active outside of `using`.
        shares_prompts: answers to a question stand behind one prompt in a row (`shared_prompts`);
            False for models that cannot read that.

    Raises:
        InputError: no such model, or a value model that does not go with it.
    """

    def __init__(self, options: ModelOptions, start: Path, value: ValueKind | None) -> None:
        adapters = options.adapter is not None
        if value == "adapter" and not adapters:
            raise InputError(
                "rl.value: an adapter needs a base with adapters; model.adapter is null"
            )
        self._options = options
        self.value_kind = value
        self.model = load_trainable(options, start, name="policy")
        policy = TokenHead(language_model_of(self.model))
        self._heads: dict[Role, TokenHead] = {"policy": policy, "value": policy}
        value_model: PreTrainedModel | None = None
        if isinstance(self.model, PeftModel):
            add_adapter(self.model, start, "reference")
            if value == "adapter":
                add_adapter(self.model, start, "value", is_trainable=True)
            self._heads["reference"] = policy
        else:
            reference = load_whole(start, options, options.dtype).requires_grad_(False)
            self._heads["reference"] = TokenHead(reference)
        if value == "full":
            value_model = _value_model(options, start)
            self._heads["value"] = TokenHead(value_model)
        without_dropout(self.model)
        named = dict(self.model.named_parameters())
        self._parameters: dict[Role, dict[str, nn.Parameter]] = {
            role: {name: named[name] for name in named if f".{role}." in name}
            for role in ("policy", "reference", "value")
            if adapters
        } or {"policy": named, "reference": {}, "value": {}}
        if value_model is not None:
            of_value = value_model.named_parameters()
            self._parameters["value"] = {f"value.{name}": own for name, own in of_value}
        self.head: nn.Linear | None = None
        if value is not None:
            size: int = self.model.config.get_text_config().hidden_size
            self.head = nn.Linear(size, 1, device=self.device)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        # Gradient checkpointing works in training mode only.
        self.model.train()
        self._active: Role = "policy"
        self._activate("policy")
        language_model = language_model_of(self.model)
        self.shares_prompts = _reads_shared_prompts(self, language_model)
        self._takes_no_padding = "flash" in str(language_model.config._attn_implementation)

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.model.device

    @contextmanager
    def using(self, role: Role) -> Iterator[None]:
        """Run the block with the adapter of `role`; outside of such blocks the policy is active.

        A backward pass belongs into the block of its forward pass: with gradient checkpointing it
        runs the model again, and must find the same adapter there.
        """
        before = self._active
        self._activate(role)
        try:
            with computing(self._options):
                yield
        finally:
            self._activate(before)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Run the block with `model` ready to generate with, at no more than the policy costs."""
        with torch.no_grad(), folded(self.model, "policy"), computing(self._options):
            yield

    def _activate(self, role: Role) -> None:
        self._active = role
        shared = role == "value" and self.value_kind != "adapter"
        if shared or not isinstance(self.model, PeftModel):
            return
        self.model.set_adapter(role)
        # PEFT freezes every adapter but the active one; policy and value learn at the same time.
        for owner, parameters in self._parameters.items():
            for parameter in parameters.values():
                parameter.requires_grad_(owner != "reference")

    def batch(self, prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]], pad_id: int) -> Batch:
        """Questions (token ids) with several answers each, as these models read them."""
        if self.shares_prompts:
            return shared_prompts(prompts, answers, pad_id, self.device)
        rows = [Row.of(p, a) for p, own in zip(prompts, answers, strict=True) for a in own]
        if self._takes_no_padding:
            return padding_free(rows, self.device)
        return separate_rows(rows, pad_id, self.device)

    def log_probs(self, batch: Batch, role: Role = "policy") -> torch.Tensor:
        """(B, T): log-probabilities of the answers' tokens, at temperature 1."""
        with self.using(role):
            return batch.spread(self._heads[role](self._states(batch, role), batch.targets)[0])

    def values(self, batch: Batch) -> torch.Tensor:
        """(B, T): the value before each of the answers' tokens."""
        with self.using("value"):
            return self._values(batch, self._states(batch, "value"))

    @torch.no_grad()
    def scores(self, batch: Batch) -> Scores:
        """What all models say of the answers."""
        with self.using("policy"):
            states = self._states(batch, "policy")
            own, entropy = self._heads["policy"](states, batch.targets, with_entropy=True)
            values = self._values(batch, states) if self.value_kind == "shared" else None
        assert entropy is not None
        return Scores(
            batch.spread(own),
            batch.spread(entropy),
            self.log_probs(batch, "reference"),
            self.values(batch) if self.value_kind in ("adapter", "full") else values,
        )

    def backward(self, batch: Batch, policy_loss: Loss | None, value_loss: Loss | None) -> None:
        """Add the gradients of a loss of the policy's log-probabilities, and one of the values.

        Args:
            batch: the answers.
            policy_loss: from log-probabilities (B, T) to a scalar; None if the policy does not
                learn.
            value_loss: from values (B, T) to a scalar; None without a value model.
        """
        shared = value_loss if self.value_kind == "shared" and policy_loss is not None else None
        if policy_loss is not None:
            with self.using("policy"):
                states = self._states(batch, "policy")
                loss = policy_loss(batch.spread(self._heads["policy"](states, batch.targets)[0]))
                if shared is not None:
                    loss = loss + shared(self._values(batch, states))
                loss.backward()
        if value_loss is not None and shared is None:
            with self.using("value"):
                states = self._states(batch, "value")
                # Of a shared trunk only the head learns alone.
                states = states.detach() if self.value_kind == "shared" else states
                value_loss(self._values(batch, states)).backward()

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """The policy's trained parameters by name."""
        return self._parameters["policy"]

    def value_parameters(self) -> dict[str, nn.Parameter]:
        """The value model's own trained parameters, its head's among them, by name."""
        head = {} if self.head is None else dict(self.head.named_parameters())
        return self._parameters["value"] | {f"head.{name}": own for name, own in head.items()}

    def save_policy(self, directory: Path) -> None:
        """Write the policy, an adapter or a whole model, into a directory that exists."""
        save_model(self.model, directory, "policy")

    def _states(self, batch: Batch, role: Role) -> torch.Tensor:
        """(N, H): the hidden states after which the answers' tokens come."""
        return self._heads[role].hidden(**batch.inputs).flatten(0, 1)[batch.before]

    def _values(self, batch: Batch, states: torch.Tensor) -> torch.Tensor:
        assert self.head is not None
        with torch.autocast(states.device.type, enabled=False):
            return batch.spread(self.head(states.to(self.head.weight.dtype))[:, 0])


def _value_model(options: ModelOptions, start: Path) -> PreTrainedModel:
    """A copy of the start with all weights trainable in float32, an adapter merged in."""
    if options.adapter is None:
        model = load_whole(start, options)
    else:
        if options.quantization != "none":
            raise InputError("rl.value: a full value model does not train on weights in 4bit")
        model = load_for_inference(options.model_copy(update={"dtype": "float32"}), start)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    without_dropout(model)
    return model.train().requires_grad_(True)


@torch.no_grad()
def _reads_shared_prompts(actor: ActorCritic, model: PreTrainedModel) -> bool:
    """Whether a model keeps apart the answers that stand behind one prompt.

    Layers that see a window only would see a wrong one. Some models make their own mask, or count
    positions from it: so a small batch is tried. It must come out as separate rows do, much nearer
    than with a mask that keeps nothing apart.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")
    if windowed or kinds != {"full_attention"} or "flash" in str(config._attn_implementation):
        return False
    prompt, answers = (5, 6, 7, 8), [(9, 10, 11), (12, 13, 14, 15)]
    apart = separate_rows([Row.of(prompt, answer) for answer in answers], 0, actor.device)
    behind = shared_prompts([prompt], [answers], 0, actor.device)
    seen = torch.ones_like(behind.inputs["attention_mask"]).tril()
    mixed = behind._replace(inputs=behind.inputs | {"attention_mask": seen})
    try:
        with actor.using("policy"):
            wanted, found, wrong = (
                actor._states(batch, "policy").float() for batch in (apart, behind, mixed)
            )
    except (TypeError, ValueError, RuntimeError):
        return False
    return bool((found - wanted).norm() < 0.1 * (wrong - wanted).norm())
