"""Policy, reference and value model: adapters on one base, or models with all weights trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from citepipe.models.load import (
    add_adapter,
    computing,
    folded,
    language_model_of,
    load_base,
    load_trainable,
    without_dropout,
)
from citepipe.models.save import save_model
from citepipe.options import ModelOptions
from citepipe.train.batch import Batch, Ids, answer_log_probs, answer_logits, lay_out

Role = Literal["policy", "reference", "value"]
Loss = Callable[[torch.Tensor], torch.Tensor]


class Scores(NamedTuple):
    """What the models compute of answers, each (B, T), 0 on padding."""

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
    against it; `value` is trained to predict returns. With adapters all three are adapters on one
    base, and the value is read by a linear head that begins at zero. Where all weights are trained,
    the reference is a second model in `options.dtype`, and the head is on the policy's own states.

    Dropout is off, so that the policy that samples is the policy that is trained.

    Attributes:
        model: what samples: the policy, active outside of `using`.
        head: from hidden states to values, or None.
        shared: the models read a prompt once for all its answers (`batch.lay_out`).

    Raises:
        InputError: no such model, or a start that does not go with `options`.
    """

    def __init__(self, options: ModelOptions, start: Path, with_values: bool) -> None:
        self._options = options
        self.model = load_trainable(options, start, name="policy")
        # Only where all weights are trained; policy and value model then have one trunk.
        self._reference: PreTrainedModel | None = None
        if isinstance(self.model, PeftModel):
            add_adapter(self.model, start, "reference")
            if with_values:
                add_adapter(self.model, start, "value", is_trainable=True)
        else:
            self._reference = load_base(options, whole=start).requires_grad_(False)
        self.head: nn.Linear | None = None
        if with_values:
            size: int = self.model.config.get_text_config().hidden_size
            self.head = nn.Linear(size, 1, device=self.model.device)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        without_dropout(self.model)
        # Gradient checkpointing works in training mode only.
        self.model.train()
        self._active: Role | None = None
        self._trained = [*self.policy_parameters().values(), *self.value_parameters().values()]
        self._activate("policy")
        self.shared = self._reads_shared_prompts()

    @contextmanager
    def using(self, role: Role) -> Iterator[None]:
        """Run the block with the adapter of `role`; outside of such blocks the policy is active.

        A backward pass belongs into the block of its forward pass: with gradient checkpointing it
        runs the model again, and must find the same adapter there.
        """
        self._activate(role)
        try:
            with computing(self._options):
                yield
        finally:
            self._activate("policy")

    def _activate(self, role: Role) -> None:
        if role != self._active and isinstance(self.model, PeftModel):
            self.model.set_adapter(role)
            # PEFT freezes every adapter but the active one; policy and value learn together.
            for parameter in self._trained:
                parameter.requires_grad_(True)
        self._active = role

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Run the block with `model` ready to generate with, at no more than the policy costs."""
        with torch.no_grad(), folded(self.model, "policy"), computing(self._options):
            yield

    def batch(self, prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]], pad_id: int) -> Batch:
        """Questions (token ids) with several answers each, as these models read them."""
        return lay_out(prompts, answers, pad_id, self.model.device, self.shared)

    @torch.no_grad()
    def scores(self, batch: Batch) -> Scores:
        """Log-probabilities, entropies and values of the answers."""
        with self.using("policy"):
            logits, states = answer_logits(language_model_of(self.model), batch)
        total = logits.logsumexp(dim=-1)
        entropy = total - (torch.exp(logits - total[:, None]) * logits).sum(dim=-1)
        log_probs = answer_log_probs(logits, batch)
        del logits
        values = None
        if self.head is not None:
            if self._reference is None:
                with self.using("value"):
                    states = self._states(batch)
            values = self._values(batch, states)
        reference = self.log_probs(batch, "reference")
        return Scores(log_probs, batch.spread(entropy), reference, values)

    def log_probs(self, batch: Batch, role: Role = "policy") -> torch.Tensor:
        """(B, T): log-probabilities of the answers' tokens, at temperature 1."""
        model = language_model_of(self.model)
        if role == "reference":
            model = self._reference or model
        with self.using(role):
            return answer_log_probs(answer_logits(model, batch)[0], batch)

    def backward(self, batch: Batch, policy_loss: Loss | None, value_loss: Loss | None) -> None:
        """Add the gradients of losses of log-probabilities and of values, each (B, T) to a scalar.

        A loss is None where the policy does not learn, or without a value model.
        """
        if policy_loss is not None:
            with self.using("policy"):
                logits, states = answer_logits(language_model_of(self.model), batch)
                loss = policy_loss(answer_log_probs(logits, batch))
                if value_loss is not None and self._reference is not None:
                    loss, value_loss = loss + value_loss(self._values(batch, states)), None
                loss.backward()
        if value_loss is not None:
            with self.using("value"):
                states = self._states(batch)
                # Of one trunk for both only the head learns alone.
                states = states if self._reference is None else states.detach()
                value_loss(self._values(batch, states)).backward()

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """The policy's trained parameters by name."""
        return self._parameters("policy") or dict(self.model.named_parameters())

    def value_parameters(self) -> dict[str, nn.Parameter]:
        """The value model's own trained parameters, its head's among them, by name."""
        head = {} if self.head is None else dict(self.head.named_parameters())
        return self._parameters("value") | {f"head.{name}": own for name, own in head.items()}

    def _parameters(self, role: Role) -> dict[str, nn.Parameter]:
        named = self.model.named_parameters()
        return {name: parameter for name, parameter in named if f".{role}." in name}

    def save_policy(self, directory: Path) -> None:
        """Write the policy, an adapter or a whole model, into a directory that exists."""
        save_model(self.model, directory, "policy")

    def _states(self, batch: Batch) -> torch.Tensor:
        """(N, H): the active model's last hidden states, before each of the answers' tokens."""
        model = language_model_of(self.model)
        decoder = getattr(model, model.base_model_prefix)
        output = decoder(**batch.inputs, use_cache=False)
        return output.last_hidden_state.flatten(0, 1)[batch.before]

    def _values(self, batch: Batch, states: torch.Tensor) -> torch.Tensor:
        assert self.head is not None
        with torch.autocast(states.device.type, enabled=False):
            return batch.spread(self.head(states.to(self.head.weight.dtype))[:, 0])

    @torch.no_grad()
    def _reads_shared_prompts(self) -> bool:
        """Whether the model keeps apart the answers that stand behind one prompt.

        Flash attention takes no mask; layers that see a window only would see a wrong one. Some
        models make their own mask, or count positions from it: so a small batch is tried. It must
        come out as separate rows do, much nearer than with a mask that keeps nothing apart.
        """
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        windowed = getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")
        flash = "flash" in str(language_model_of(self.model).config._attn_implementation)
        if flash or windowed or kinds != {"full_attention"}:
            return False
        questions = [(5, 6, 7, 8)], [[(9, 10, 11), (12, 13, 14, 15)]], 0, self.model.device
        apart, behind = lay_out(*questions), lay_out(*questions, shared=True)
        seen = torch.ones_like(behind.inputs["attention_mask"]).tril()
        mixed = behind._replace(inputs=behind.inputs | {"attention_mask": seen})
        try:
            with self.using("policy"):
                expected, found, wrong = (self._states(b).float() for b in (apart, behind, mixed))
        except (TypeError, ValueError, RuntimeError):
            return False
        return bool((found - expected).norm() < 0.1 * (wrong - expected).norm())
