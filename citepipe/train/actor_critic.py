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
    """Answers with their prompts, each prompt once in front of all its answers.

    The answers of a question stand one behind the other in one row; an attention mask and position
    numbers make each see its prompt and itself only, so the result is that of separate rows, for
    the price of one prompt instead of one per answer.

    Notation: G questions, n answers to each, B = G * n answers in the questions' order, P tokens
    of the longest prompt, T of the longest answer, L = P + n * T.
    """

    ids: torch.Tensor
    """(G, L): prompts padded on the left, each answer on the right."""
    positions: torch.Tensor
    """(G, L): from each prompt's first token; every answer goes on from the prompt's last."""
    visible: torch.Tensor
    """(G, 1, L, L) bool: which token (last axis) each token sees. Padding sees itself."""
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
        """Lay out G prompts and the G * n answers to them (lists of token ids) on a device."""
        groups, width, length = len(prompts), max(map(len, prompts)), max(map(len, answers))
        count = len(answers) // groups
        prompt_ids = torch.full((groups, width), pad_id, dtype=torch.long)
        prompt_mask = torch.zeros((groups, width), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            prompt_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            prompt_mask[row, width - len(prompt) :] = True
        answer_ids = torch.full((len(answers), length), pad_id, dtype=torch.long)
        answer_mask = torch.zeros((len(answers), length), dtype=torch.bool)
        for row, answer in enumerate(answers):
            answer_ids[row, : len(answer)] = torch.tensor(answer)
            answer_mask[row, : len(answer)] = True
        is_token = torch.cat([prompt_mask, answer_mask.view(groups, -1)], dim=1)
        # Tokens of answer k have owner k, those of the prompt have owner 0 and are seen by all.
        owner = torch.cat(
            [torch.zeros(width), torch.arange(1, count + 1).repeat_interleave(length)]
        )
        causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
        related = (owner[:, None] == owner[None, :]) | (owner[None, :] == 0)
        visible = (causal & related)[None] & is_token[:, None, :]
        visible |= torch.eye(len(owner), dtype=torch.bool)
        in_prompt = (prompt_mask.cumsum(dim=1) - 1).clamp(min=0)
        in_answers = prompt_mask.sum(dim=1, keepdim=True) + torch.arange(length).repeat(count)
        return cls(
            torch.cat([prompt_ids, answer_ids.view(groups, -1)], dim=1).to(device),
            torch.cat([in_prompt, in_answers], dim=1).to(device),
            visible[:, None].to(device),
            answer_ids.to(device),
            answer_mask.float().to(device),
        )

    def predicting(self) -> torch.Tensor:
        """(n, T): the columns of `ids` after which each token of an answer is predicted."""
        length = self.answers.shape[1]
        count = self.answers.shape[0] // self.ids.shape[0]
        width = self.ids.shape[1] - count * length
        columns = width - 1 + torch.arange(count * length).view(count, length)
        columns[:, 0] = width - 1
        return columns.to(self.ids.device)


class ActorCritic:
    """Three adapters that all begin as copies of the one that training starts from.

    `policy` is trained; `reference` stays as it is, and the policy's KL penalty is measured
    against it; `value`, with a linear head that begins at zero, is trained to predict returns.
    Adapter dropout is off, so that the policy that samples is the policy that is trained.

    Args:
        options: the base model.
        start: the adapter that training starts from.
    """

    def __init__(self, options: ModelOptions, start: Path) -> None:
        self.model = load_trainable(options, start, name="policy")
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

        # Gradient checkpointing works in training mode only.
        self.model.train()
        self._activate("policy")

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Run the block with the adapter `name`; outside of such blocks the policy is active.

        A backward pass belongs into the block of its forward pass: with gradient checkpointing it
        runs the model again, and must find the same adapter there.
        """
        before = self._active
        self._activate(name)
        try:
            yield
        finally:
            self._activate(before)

    def _activate(self, name: str) -> None:
        self._active = name
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
        with self.using(adapter):
            logits = self.language_model(
                input_ids=batch.ids,
                attention_mask=batch.visible,
                position_ids=batch.positions,
                logits_to_keep=batch.predicting().view(-1),
                use_cache=False,
            ).logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = logits.view(*batch.answers.shape, -1)
        chosen = logits.gather(2, batch.answers[:, :, None])[:, :, 0]
        return (chosen - logits.logsumexp(dim=-1)) * batch.mask

    def values(self, batch: Batch) -> torch.Tensor:
        """(B, T): the value before each of the answers' tokens."""
        with self.using("value"):
            hidden = self.decoder(
                input_ids=batch.ids,
                attention_mask=batch.visible,
                position_ids=batch.positions,
                use_cache=False,
            ).last_hidden_state[:, batch.predicting().view(-1)]
        values = self.head(hidden.to(self.head.weight.dtype))
        return values.view(batch.answers.shape) * batch.mask

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
        # PEFT's model card is a form that nobody has filled in.
        (directory / "README.md").unlink(missing_ok=True)

    def _parameters_of(self, adapter: str) -> dict[str, nn.Parameter]:
        return {name: self._named[name] for name in self._named if f".{adapter}." in name}
