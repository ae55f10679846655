"""The miniature's base model: a tiny Llama with a start that can copy, pretrained in minutes.

Looking things up in the prompt does not emerge from plain training in minutes, so the start is
prepared by hand: heads of the first layer look one, two and three tokens back, and heads of later
layers look for what came after the same words before (the induction heads of Olsson et al. 2022).
A drill on random words makes a copying machine of it before it reads anything. Matrices are
trained with Muon (Jordan et al. 2024), everything else with AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from citepipe.miniature.corpus import Corpus, Reading, build_tokenizer
from citepipe.models.save import building
from citepipe.options import BaseModelOptions, MiniatureOptions
from citepipe.progress import Progress, summary

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

ROPE_BASE = 1e5
INITIALIZER_RANGE = 0.06
LONGEST = 256  # tokens
# Of Muon, for matrices, and of AdamW, for all other parameters.
MATRIX_RATE, OTHER_RATE = 0.02, 3e-3
# Steps that warm up, the share of the steps before the rate falls, and of the rate at the last one.
WARMUP, CONSTANT_SHARE, FINAL_SHARE = 30, 0.5, 0.03
# Of the prepared start: how sharply heads of layer 0 look back; what a head writes, next to an
# embedding's 0.06; how sharply later heads match; how much less the free head of layer 0 writes.
POSITION_BIAS = 3.0
WRITE_SCALE = 0.12
MATCH_SCALE = 1.7
FREE_SCALE = 0.3


def pretrain(options: MiniatureOptions, out: Path) -> str:
    """Make the base model and its tokenizer; the directory `out` appears when all is done.

    The same options give the same model on the same machine: one thread, whatever the machine has,
    so that sums have one order. Returns a line that says what was done.
    """
    import torch
    from transformers import set_seed

    torch.set_num_threads(1)
    set_seed(options.seed)
    settings = options.base
    tokenizer = build_tokenizer()
    corpus = Corpus(tokenizer, options.prompt, options.seed)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    model = build_model(settings, len(tokenizer), pad, eos).train()
    # Muon for the matrices of the layers, AdamW for all else.
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    muon = torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.0)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
    total = settings.drill_steps + settings.steps
    progress = Progress("base", total, "steps")
    smoothed = 0.0
    for step in range(total):
        share = learning_rate_share(step, total)
        muon.param_groups[0]["lr"] = MATRIX_RATE * share
        adam.param_groups[0]["lr"] = OTHER_RATE * share
        read = corpus.abstract_drill if step < settings.drill_steps else corpus.mixed
        ids, weights = collate([read() for _ in range(settings.batch_size)], pad)
        loss = weighted_loss(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in (muon, adam):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        smoothed = 0.95 * (smoothed or loss.item()) + 0.05 * loss.item()
        progress.advance(1, loss=smoothed)
    with building(out) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    parameters = sum(p.numel() for p in model.parameters())
    return summary("base", {"parameters": parameters, "steps": total, "loss": smoothed})


def build_model(options: BaseModelOptions, vocabulary: int, pad: int, eos: int) -> LlamaForCausalLM:
    """An untrained Llama with the prepared start; draws from torch's global generator."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=options.width,
            intermediate_size=options.feed_forward,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            num_key_value_heads=options.heads,
            max_position_embeddings=LONGEST,
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

    - Layer 0: every key has the same constant part (a bias), and the query of head h has it
      turned by RoPE's angles of -(h + 1) positions, so that the head looks h + 1 tokens back,
      whatever stands there. It reads a projection of the token there and writes it to
      directions of its own.
    - Later layers: the heads match a position and the words before it with the words before
      earlier positions, find what came after the same words, and pass it on unchanged.
    - The last head of every layer is free; in later layers its W_k = W_q, so that it finds its
      like. Feed-forward layers start as zero.
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
                    for projection, read in ((attention.q_proj, sought), (attention.k_proj, back)):
                        parts = [rows @ seen for rows, seen in zip(mixed, read, strict=True)]
                        projection.weight[span] = MATCH_SCALE * torch.cat(parts)
                found = directions()
                attention.v_proj.weight[span] = found
                attention.o_proj.weight[:, span] = found.T * WRITE_SCALE


def learning_rate_share(step: int, steps: int) -> float:
    """The learning rate of a step (from 0) as a share of the full one: linear warm-up, constant,
    then linear down to `FINAL_SHARE` at the last step."""
    warm = min(1.0, (step + 1) / WARMUP)
    falling_from = CONSTANT_SHARE * steps
    if step < falling_from:
        return warm
    progress = (step + 1 - falling_from) / max(1.0, steps - falling_from)
    return min(warm, 1.0 - (1.0 - FINAL_SHARE) * progress)


def collate(readings: Sequence[Reading], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and weights, both [batch, length]; padded on the right, where the weight is 0."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(reading.ids) for reading in readings]
    weights = [torch.tensor(reading.weights) for reading in readings]
    return pad_sequence(ids, True, pad), pad_sequence(weights, True, 0.0)


def weighted_loss(
    model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The weighted mean of every token's cross entropy, given those before it.

    Padding is on the right, where a causal model never looks, so no mask is needed.
    """
    import torch

    weight = weights[:, 1:].reshape(-1)
    kept = weight > 0
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[kept])
    target, weight = ids[:, 1:].reshape(-1)[kept], weight[kept]
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return (losses * weight).sum() / weight.sum()
