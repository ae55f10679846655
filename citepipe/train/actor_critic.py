"""Policy, reference and value model as three adapters on one base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from citepipe.models.load import load_trainable
from citepipe.options.model import ModelOptions


class Batch(NamedTuple):
    """Answers with their prompts, as tensors.

    Notation: B answers, P tokens of the longest prompt, T of the longest answer.
    """

    ids: torch.Tensor
    """(B, P + T): prompts padded on the left, answers on the right."""
    attention: torch.Tensor
    """(B, P + T): 1 on tokens, 0 on padding."""
    answers: torch.Tensor
    """(B, T): the answers' tokens."""
    mask: torch.Tensor
    """(B, T) float: 1 on the answers' tokens, 0 on padding."""

    @classmethod
    def build(
        cls,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        pad_id: int,
        device: torch.device,
    ) -> Batch:
        """Lay out prompts and answers (lists of token ids) on a device."""
        width, length = max(map(len, prompts)), max(map(len, answers))
        ids = torch.full((len(prompts), width + length), pad_id, dtype=torch.long)
        attention = torch.zeros_like(ids)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids[row, width - len(prompt) : width] = torch.tensor(prompt)
            ids[row, width : width + len(answer)] = torch.tensor(answer)
            attention[row, width - len(prompt) : width + len(answer)] = 1
        return cls(
            ids.to(device),
            attention.to(device),
            ids[:, width:].to(device),
            attention[:, width:].float().to(device),
        )


class ActorCritic:
    """Three adapters that all begin as copies of the one that training starts from.

    `policy` is trained; `reference` stays as it is, and the policy's KL penalty is measured
    against it; `value`, with a linear head that begins at zero, is trained to predict returns.
    Adapter dropout is off, so that the policy that samples is the policy that is trained.

    Args:
        options: the base model.
        start: the adapter that training starts from.
        seed: unused by copies; kept for adapters that are new.
    """

    def __init__(self, options: ModelOptions, start: Path, seed: int) -> None:
        self.model = load_trainable(options, start, seed, name="policy")
        self.model.load_adapter(start, "reference", is_trainable=False)
        self.model.load_adapter(start, "value", is_trainable=True)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self._named = dict(self.model.named_parameters())
        self.language_model: PreTrainedModel = self.model.get_base_model()  # type: ignore[assignment]
        self.decoder = getattr(self.language_model, self.language_model.base_model_prefix)
        size: int = self.language_model.config.get_text_config().hidden_size
        self.head = nn.Linear(size, 1, device=self.model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

        self._activate("policy")

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Run the block with the adapter `name`; outside of such blocks the policy is active."""
        self._activate(name)
        try:
            yield
        finally:
            self._activate("policy")

    def _activate(self, name: str) -> None:
        self.model.set_adapter(name)
        # PEFT freezes every adapter but the active one; policy and value learn at the same time.
        for learns, parameters in (
            (True, self.policy_parameters()),
            (True, self.value_parameters()),
            (False, self._parameters_of("reference")),
        ):
            for parameter in parameters.values():
                parameter.requires_grad_(learns)

    def log_probs(self, batch: Batch, adapter: str) -> torch.Tensor:
        """(B, T): log-probabilities of the answers' tokens, at temperature 1.

        Logits are computed where they are needed only: at the positions that predict the answers.
        """
        width, length = batch.ids.shape[1] - batch.answers.shape[1], batch.answers.shape[1]
        with self.using(adapter):
            logits = self.language_model(
                input_ids=batch.ids,
                attention_mask=batch.attention,
                position_ids=_positions(batch.attention),
                logits_to_keep=torch.arange(width - 1, width + length - 1, device=batch.ids.device),
                use_cache=False,
            ).logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        chosen = logits.gather(2, batch.answers[:, :, None])[:, :, 0]
        return (chosen - logits.logsumexp(dim=-1)) * batch.mask

    def values(self, batch: Batch) -> torch.Tensor:
        """(B, T): the value before each of the answers' tokens."""
        width, length = batch.ids.shape[1] - batch.answers.shape[1], batch.answers.shape[1]
        with self.using("value"):
            hidden = self.decoder(
                input_ids=batch.ids,
                attention_mask=batch.attention,
                position_ids=_positions(batch.attention),
                use_cache=False,
            ).last_hidden_state[:, width - 1 : width + length - 1]
        return self.head(hidden.to(self.head.weight.dtype))[:, :, 0] * batch.mask

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """The policy adapter's parameters by name."""
        return self._parameters_of("policy")

    def value_parameters(self) -> dict[str, nn.Parameter]:
        """The value adapter's and its head's parameters by name."""
        head = {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}
        return self._parameters_of("value") | head

    def save_policy(self, directory: Path) -> None:
        """Write the policy as a PEFT adapter into `directory` itself, not a folder below it."""
        self.model.save_pretrained(str(directory), selected_adapters=["policy"])
        below = directory / "policy"
        for path in below.iterdir():
            path.rename(directory / path.name)
        below.rmdir()

    def _parameters_of(self, adapter: str) -> dict[str, nn.Parameter]:
        return {name: self._named[name] for name in self._named if f".{adapter}." in name}


def _positions(attention: torch.Tensor) -> torch.Tensor:
    """Positions that count from each prompt's first token, whatever is padded before it."""
    return (attention.cumsum(dim=1) - 1).clamp(min=0)
