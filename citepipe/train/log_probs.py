"""Logits and log-probabilities of answers' tokens, without logits of anything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from citepipe.train.batch import Batch


def answer_logits(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that predict each of the answers' tokens, and the states that they come from.

    A vocabulary is many times as wide as hidden states, so the logits of prompts and padding would
    be the largest tensor of a step: the output layer receives chosen states only. What a model does
    to its logits (scaling, soft-capping) is still done.

    Args:
        model: a causal language model, without PEFT's wrapper.
        batch: N tokens of answers.

    Returns:
        (N, V) logits, at least in float32, and (N, H) states.
    """
    states = torch.empty(0)

    def choose(_: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        nonlocal states
        states = arguments[0].flatten(0, 1)[batch.before]
        return (states[None],)

    output_layer: Any = model.get_output_embeddings()
    with output_layer.register_forward_pre_hook(choose):
        logits = model(**batch.inputs, use_cache=False).logits[0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), states


def answer_log_probs(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, T): log-probabilities of the answers' tokens, at temperature 1, from logits (N, V)."""
    chosen = logits.gather(1, batch.targets[:, None])[:, 0]
    return batch.spread(chosen - logits.logsumexp(dim=-1))
