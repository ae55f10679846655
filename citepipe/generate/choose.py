"""The next token: the likeliest, or one drawn with a given random number."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from citepipe.generate.completion import Sampling

if TYPE_CHECKING:
    import numpy as np
    import torch

_LIKELIEST = 128
"""Tokens that are sorted at first; a draw beyond them is rare and has the whole row sorted."""

_MANY = 4096
"""Tokens among which a border of the sorted ones is near to almost every draw from the tail."""

ROUNDING = 1e-5
"""What the logits of the same sequence may differ by in another batch, computed in 32 bits, as a
share of the largest of them."""


def uniforms(seed: int, key: str, count: int) -> np.ndarray:
    """(count,) float32 in [0, 1), a function of the seed and the key only."""
    import numpy as np

    digest = hashlib.blake2b(f"{seed}|{key}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    return generator.random(count, dtype=np.float32)


def choose(
    logits: torch.Tensor, sampling: Sampling, draws: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The next token of every row.

    Args:
        logits: (rows, vocabulary).
        sampling: temperature and top-k.
        draws: (rows,), a number in [0, 1) per row; None for greedy decoding.

    Returns:
        (rows,) token ids: the token in which the cumulative probability, likeliest token first,
        passes the draw, or, among very many tokens on a CPU, that wins the race which the draw
        seeds; (rows,) float32, their log-probabilities at temperature 1 over the whole
        vocabulary; and (rows,) whether logits that differ by rounding might give another token.
    """
    import torch

    logits = logits.float()
    vocabulary = logits.shape[-1]
    least, most = logits.aminmax(dim=-1)
    near = ROUNDING * torch.maximum(least.abs(), most.abs())
    scaled = logits
    if draws is not None:
        scaled = logits if sampling.temperature == 1 else logits / sampling.temperature
        near = near / sampling.temperature
    is_cut = 0 < sampling.top_k < vocabulary
    if draws is None or (vocabulary > _MANY and logits.device.type == "cpu" and not is_cut):
        raced = scaled if draws is None else (scaled - _waits(draws, vocabulary).log()).float()
        values, ids = raced.topk(min(2, vocabulary), dim=-1)
        chosen, unsure = ids[:, 0], values[:, 0] - values[:, -1] < near
    else:
        if is_cut:
            # One more than can be drawn, as it may be as likely as the last that can.
            values, ids = scaled.topk(sampling.top_k + 1, dim=-1)
            shares = values[:, :-1].softmax(dim=-1)
        else:
            values, ids = scaled.topk(min(_LIKELIEST, vocabulary), dim=-1)
            shares = (values - scaled.logsumexp(dim=-1, keepdim=True)).exp()
        chosen, unsure, beyond = _pick(shares, values, ids, draws, near)
        if not is_cut and bool(beyond.any()):
            rows = beyond.nonzero()[:, 0]
            values, ids = scaled[rows].sort(dim=-1, descending=True)
            shares = values.softmax(dim=-1)
            chosen[rows], unsure[rows], _ = _pick(shares, values, ids, draws[rows], near[rows])
    scores = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(dim=-1)
    return chosen, scores, unsure


def _waits(draws: torch.Tensor, count: int) -> torch.Tensor:
    """(rows, count) float64: exponential waiting times, each row a function of its draw.

    The token whose time, divided by its probability, is the shortest is one drawn by the
    probabilities (the Gumbel-max trick). Rounding can tip it only where two arrive together.
    """
    import numpy as np
    import torch

    waits = np.empty((len(draws), count))
    for row, draw in zip(waits, draws.tolist(), strict=True):
        np.random.Generator(np.random.SFC64(int(draw * 2**32))).standard_exponential(out=row)
    return torch.from_numpy(waits)


def _pick(
    shares: torch.Tensor,
    values: torch.Tensor,
    ids: torch.Tensor,
    draws: torch.Tensor,
    near: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where draws fall among `shares`, (rows, k) probabilities, the largest first.

    `values` and `ids` are the logits and tokens in the same order, (rows, k or more), and `near` is
    what rounding may change a logit by.

    Returns:
        (rows,) the id in which the cumulative share passes the draw, else the last; whether the
        draw is so near to a border, or the token so near to another's logit, that rounding might
        give another; and whether the draw lies beyond all of them.
    """
    import torch

    cumulative = shares.cumsum(dim=-1)
    last = shares.shape[-1] - 1
    passed = (cumulative <= draws[:, None]).sum(dim=-1)
    place = passed.clamp(max=last)[:, None]
    # A change of the logits by e moves a border at c by 2 e c (1 - c) at most.
    borders = cumulative.gather(1, torch.cat([(place - 1).clamp(min=0), place], dim=1))
    margin = 2 * near[:, None] * borders * (1 - borders) + 1e-6
    unsure = ((borders - draws[:, None]).abs() < margin).any(dim=1)
    around = torch.cat([place - 1, place + 1], dim=1).clamp(0, values.shape[-1] - 1)
    gaps = (values.gather(1, around) - values.gather(1, place)).abs()
    unsure |= ((gaps < near[:, None]) & (around != place)).any(dim=1)
    return ids.gather(1, place)[:, 0], unsure, passed > last
