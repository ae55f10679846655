"""A start that can copy, for a small language model that is pretrained in minutes.

Looking things up in the prompt does not emerge from plain training in minutes, so the start is
prepared by hand: heads of the first layer look one, two and three tokens back, and heads of later
layers look for what came after the same words before (the induction heads of Olsson et al. 2022).
A drill on random words makes a copying machine of it before it reads anything. Matrices are
trained with Muon (Jordan et al. 2024), everything else with AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from citepipe.options import BaseModelOptions

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

ROPE_BASE = 1e5
INITIALIZER_RANGE = 0.06
# Of the prepared start: how sharply heads of layer 0 look back; what a head writes, next to an
# embedding's 0.06; how sharply later heads match; how much less the free head of layer 0 writes.
POSITION_BIAS = 3.0
WRITE_SCALE = 0.12
MATCH_SCALE = 1.7
FREE_SCALE = 0.3


class Reading(NamedTuple):
    """Token ids and, of the same length, the loss weight of predicting each."""

    ids: list[int]
    weights: list[float]


def build_model(options: BaseModelOptions, vocabulary: int, pad: int, eos: int) -> LlamaForCausalLM:
    """An untrained Llama with the prepared start; draws from torch's global generator.

    Args:
        options: the model's size.
        vocabulary: how many tokens there are.
        pad: id of the padding token.
        eos: id of the end of sequence.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=options.width,
            intermediate_size=options.feed_forward,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            num_key_value_heads=options.heads,
            max_position_embeddings=options.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            initializer_range=INITIALIZER_RANGE,
            attention_bias=True,
            tie_word_embeddings=True,
            bos_token_id=None,
            pad_token_id=pad,
            eos_token_id=eos,
            use_cache=True,
        )
    )
    prepare(model)
    return model


def prepare(model: LlamaForCausalLM) -> None:
    """Prepare the start, in place, so that the model is nearly a copying machine.

    The last head of every layer is free; the others (h = 0, 1, ...) are told what to look for:

    - Layer 0: every key has the same constant part (a bias), and the query of head h has it
      turned by RoPE's angles of -(h + 1) positions, so that the head looks h + 1 tokens back,
      whatever stands there. It reads a projection of the token there and writes it to
      directions of its own.
    - Later layers: the heads match a position and the words before it with the words before
      earlier positions, and so find what came after the same words. What a head finds it
      passes on unchanged.
    - The free heads of later layers have W_k = W_q: they find their like. Feed-forward layers
      start as zero.
    """
    import torch

    config = model.config
    heads, width = config.num_attention_heads, config.hidden_size
    size = width // heads
    angles = ROPE_BASE ** (-torch.arange(size // 2) / (size // 2))
    share = math.ceil(size / (heads - 1))

    def directions() -> torch.Tensor:
        return torch.nn.init.orthogonal_(torch.empty(size, width))

    token, back = directions(), [directions() for _ in range(heads - 1)]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.zero_()
        first = model.model.layers[0].self_attn
        first.k_proj.bias.fill_(POSITION_BIAS)
        for head in range(heads - 1):
            span = slice(head * size, (head + 1) * size)
            cos, sin = (-(head + 1) * angles).cos(), (-(head + 1) * angles).sin()
            first.q_proj.weight[span] = 0.0
            first.k_proj.weight[span] = 0.0
            # The constant part (1, 1) of every plane (i, i + size / 2), turned.
            first.q_proj.bias[span] = POSITION_BIAS * torch.cat([cos - sin, sin + cos])
            first.v_proj.weight[span] = token
            first.o_proj.weight[:, span] = back[head].T * WRITE_SCALE
        first.o_proj.weight[:, (heads - 1) * size :] *= FREE_SCALE
        for layer in model.model.layers[1:]:
            attention = layer.self_attn
            attention.q_proj.weight.normal_(0.0, 1.0 / math.sqrt(width))
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            for head in range(heads):
                span = slice(head * size, (head + 1) * size)
                if head < heads - 1:
                    mixed = torch.nn.init.orthogonal_(torch.empty(size, size)).split(share)
                    sought = [token, *back[:-1]]
                    attention.q_proj.weight[span] = MATCH_SCALE * _mix(mixed, sought)
                    attention.k_proj.weight[span] = MATCH_SCALE * _mix(mixed, back)
                found = directions()
                attention.v_proj.weight[span] = found
                attention.o_proj.weight[:, span] = found.T * WRITE_SCALE


def _mix(mixed: Sequence[torch.Tensor], read: Sequence[torch.Tensor]) -> torch.Tensor:
    """Some dimensions of each of several readings: (rows, size) @ (size, width), stacked."""
    import torch

    return torch.cat([rows @ directions for rows, directions in zip(mixed, read, strict=True)])


def learning_rate_share(
    step: int, steps: int, warmup_steps: int, constant_share: float, final_share: float
) -> float:
    """The learning rate of a step (from 0) as a share of the full one.

    Linear warm-up, constant up to `constant_share` of the steps, then linear down to `final_share`
    at the last step.
    """
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    falling_from = constant_share * steps
    if step < falling_from:
        return warm
    progress = (step + 1 - falling_from) / max(1.0, steps - falling_from)
    return min(warm, 1.0 - (1.0 - final_share) * progress)


def collate(readings: Sequence[Reading], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right.

    Returns:
        ids: (batch, length), int64.
        weights: (batch, length), float32; 0 on padding.
    """
    import torch

    length = max(len(reading.ids) for reading in readings)
    ids = torch.full((len(readings), length), pad)
    weights = torch.zeros(len(readings), length)
    for row, reading in enumerate(readings):
        ids[row, : len(reading.ids)] = torch.tensor(reading.ids)
        weights[row, : len(reading.ids)] = torch.tensor(reading.weights)
    return ids, weights


def weighted_loss(
    model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Cross entropy of every weighted token given those before it.

    Padding is on the right, where a causal model never looks, so no mask is needed.

    Returns:
        The weighted mean, and the share of tokens of full weight that are predicted right.
    """
    import torch

    weight = weights[:, 1:].reshape(-1)
    kept = weight > 0
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[kept])
    target, weight = ids[:, 1:].reshape(-1)[kept], weight[kept]
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    full = weight >= 1.0
    right = (logits.argmax(-1) == target)[full].float().mean().item()
    return (losses * weight).sum() / weight.sum(), right


def learn(
    model: LlamaForCausalLM,
    optimizers: Sequence[torch.optim.Optimizer],
    readings: Sequence[Reading],
    pad: int,
    share: float,
    clip_norm: float,
) -> tuple[float, float]:
    """One optimizer step.

    Args:
        model: what learns.
        optimizers: of `build_optimizers`.
        readings: the batch.
        pad: id of the padding token.
        share: of the full learning rates.
        clip_norm: the largest norm of the gradient.

    Returns:
        the loss, and the share of tokens of full weight that are predicted right.
    """
    import torch

    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * share
    ids, weights = collate(readings, pad)
    loss, accuracy = weighted_loss(model, ids.to(model.device), weights.to(model.device))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item(), accuracy


def build_optimizers(
    model: LlamaForCausalLM,
    matrix_learning_rate: float,
    learning_rate: float,
    momentum: float,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for all else; `full_lr` is each group's peak."""
    import torch

    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    muon = torch.optim.Muon(
        [{"params": matrices, "full_lr": matrix_learning_rate}],
        lr=matrix_learning_rate,
        momentum=momentum,
        weight_decay=0.0,
    )
    adam = torch.optim.AdamW(
        [{"params": others, "full_lr": learning_rate}],
        lr=learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    return [muon, adam]
