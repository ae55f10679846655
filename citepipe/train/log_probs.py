"""Log-probabilities of chosen tokens, without logits of anything else.

A vocabulary is many times as wide as a model's hidden states: the logits of a whole batch are often
the largest tensor of a training step. Here they exist a chunk of tokens at a time.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

_LOGITS_AT_ONCE = 2**25
"""Numbers in a chunk of logits; 128 MiB in float32."""


class TokenHead:
    """A causal language model in two parts: its decoder, and its head on chosen positions.

    The head is the model's own forward pass around a decoder that hands back what it is given, so
    whatever a model does to its logits (scaling, soft-capping) is done here too.

    Args:
        model: the language model, without PEFT's wrapper.
        at_once: logits computed at once.
    """

    def __init__(self, model: PreTrainedModel, at_once: int = _LOGITS_AT_ONCE) -> None:
        name = model.base_model_prefix
        self._decoder = getattr(model, name)
        self._head = copy.copy(model)
        self._head._modules = {**model._modules, name: _Given()}
        width = model.config.get_text_config().vocab_size
        self._chunk = max(1, at_once // width)

    def hidden(self, **inputs: Any) -> torch.Tensor:
        """(R, L, H): the decoder's last hidden states for its inputs (`input_ids` and so on)."""
        return self._decoder(**inputs, use_cache=False).last_hidden_state

    def __call__(
        self, hidden: torch.Tensor, targets: torch.Tensor, with_entropy: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probabilities of tokens at temperature 1.

        Args:
            hidden: (N, H), the states after which the tokens come.
            targets: (N,), the tokens' ids.
            with_entropy: also give the entropy of each distribution, without gradient.

        Returns:
            (N,) log-probabilities, at least in float32, and (N,) entropies in nats or None. If
            several chunks are needed, their logits are computed again in the backward pass.
        """
        scores: list[torch.Tensor] = []
        entropies: list[torch.Tensor] = []
        again = torch.is_grad_enabled() and len(targets) > self._chunk
        for begin in range(0, len(targets), self._chunk):
            part = hidden[begin : begin + self._chunk], targets[begin : begin + self._chunk]
            score, entropy = (
                checkpoint(self._chosen, *part, with_entropy, use_reentrant=False)
                if again
                else self._chosen(*part, with_entropy)
            )
            scores.append(score)
            if entropy is not None:
                entropies.append(entropy)
        if not scores:
            none = hidden.new_zeros(0, dtype=torch.float32)
            return none, none if with_entropy else None
        return torch.cat(scores), torch.cat(entropies) if with_entropy else None

    def _chosen(
        self, hidden: torch.Tensor, targets: torch.Tensor, with_entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits = self._head(inputs_embeds=hidden[None], use_cache=False).logits[0]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = logits.logsumexp(dim=-1)
        score = logits.gather(1, targets[:, None])[:, 0] - total
        if not with_entropy:
            return score, None
        with torch.no_grad():
            mean = (torch.exp(logits - total[:, None]) * logits).sum(dim=-1)
            return score, total.detach() - mean


class _Given(nn.Module):
    """In place of a decoder: the hidden states are those that are given."""

    def forward(
        self, *_: Any, inputs_embeds: torch.Tensor, **__: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)

    @property
    def decoder(self) -> _Given:
        """Some models (OPT) ask their decoder's own decoder."""
        return self
