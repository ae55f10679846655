"""Attention over trees: a prompt's keys and values stand once, its continuations behind them.

A row of the cache belongs to one prompt. Its columns hold the tokens of the prompt and of all its
samples in the order in which they came; a mask tells which of them each sample sees. Keys and
values are so read once per prompt and not once per sample, and samples that share more than the
prompt, as the beams of a search do, share that too. Whatever is not attention sees the tokens of
all samples in one row, without any padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache, PreTrainedModel

ATTENTION = "citepipe_tree"


@dataclass(slots=True)
class Pass:
    """Where the N tokens of a forward pass belong.

    Attributes:
        write: (N,) the column that each token's key and value go to, of the cache's columns laid
            end to end.
        place: (N,) where each token stands in the rows of queries laid end to end; None if that is
            their order.
        rows: rows of queries, as many as the cache has.
        queries: queries per row.
        width: columns that are seen by any of them, from the first.
        mask: (rows, queries, width), 0 where a query sees a column and -inf elsewhere; None if
            every row is one sequence from its first column on.
        positions: (N,) of the tokens in their sequences.
    """

    write: torch.Tensor
    place: torch.Tensor | None
    rows: int
    queries: int
    width: int
    mask: torch.Tensor | None
    positions: torch.Tensor
    masks: dict[tuple[int | None, int], torch.Tensor | None] = field(default_factory=dict)


class TreeCache(Cache):
    """Keys and values of some rows, all of the same number of columns.

    Args:
        rows: how many.
        width: columns of each.
        device: where they are.
    """

    def __init__(self, rows: int, width: int, device: torch.device) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.width = width
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.positions = torch.zeros(rows, width, dtype=torch.long, device=device)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store (1, heads, N, size) keys and values; returns (rows, heads, width, size) of all."""
        now = _NOW.get()
        while len(self.keys) <= layer_idx:
            # Zeros, as what is masked must still be a number.
            for kept, new in ((self.keys, key_states), (self.values, value_states)):
                shape = (self.rows, self.width, new.shape[1], new.shape[3])
                kept.append(new.new_zeros(shape))
        found = []
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            tensor = kept[layer_idx]
            tensor.view(-1, *tensor.shape[2:]).index_copy_(0, now.write, new[0].transpose(0, 1))
            found.append(tensor[:, : now.width].transpose(1, 2))
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Models ask for it to number positions, which are given here."""
        return 0

    @property
    def bytes(self) -> int:
        """What keys and values take in memory."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


_NOW: ContextVar[Pass] = ContextVar("pass")


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers for the pass at hand.

    Args:
        module: the layer's attention.
        query: (1, heads, N, size).
        key: (rows, heads of keys, width, size).
        value: the same.
        attention_mask: None, the pass knows better.
        scaling: of the products; None for one over the root of the size.
        dropout: none in evaluation.
        sliding_window: positions that a token sees, itself among them.
        softcap: not known here.
        s_aux: sinks, not known here.
        position_bias: not known here.

    Returns:
        (1, N, heads, size).

    Raises:
        NotImplementedError: the layer wants something that is not known here.
    """
    if (
        attention_mask is not None
        or dropout
        or any(unknown is not None for unknown in (softcap, s_aux, position_bias))
    ):
        raise NotImplementedError("attention over trees without caps, sinks, biases and dropout")
    now = _NOW.get()
    heads, count, size = query.shape[1:]
    groups = heads // key.shape[1]
    flat = query[0].transpose(0, 1)
    if now.place is not None:
        padded = flat.new_zeros(now.rows * now.queries, heads, size)
        flat = padded.index_copy_(0, now.place, flat)
    # Heads that share keys become queries of the same head.
    asked = flat.view(now.rows, now.queries, -1, groups, size).permute(0, 2, 3, 1, 4)
    asked = asked.reshape(now.rows, -1, groups * now.queries, size)
    mask = _mask(now, sliding_window, groups, query.dtype)
    # Without a mask the kernel may use its knowledge of what is causal, but then not of groups.
    causal = mask is None
    if causal and groups > 1:
        asked = flat.view(now.rows, now.queries, heads, size).transpose(1, 2)
    found = scaled_dot_product_attention(
        asked, key, value, mask, scale=scaling, is_causal=causal, enable_gqa=causal and groups > 1
    )
    if not (causal and groups > 1):
        found = found.view(now.rows, -1, groups, now.queries, value.shape[-1])
        found = found.permute(0, 3, 1, 2, 4)
    else:
        found = found.transpose(1, 2)
    found = found.reshape(now.rows * now.queries, heads, value.shape[-1])
    if now.place is not None:
        found = found[now.place]
    return found.view(1, count, heads, -1), None


def _mask(now: Pass, window: int | None, groups: int, dtype: torch.dtype) -> torch.Tensor | None:
    """(rows, 1, groups x queries, width) for a layer, made once for all layers of its kind."""
    if (window, groups) in now.masks:
        return now.masks[window, groups]
    mask = now.mask
    if window is not None and (mask is not None or now.queries > window):
        if mask is None:
            order = torch.arange(now.queries, device=now.positions.device)
            seen = order[None, :] <= order[:, None]
            mask = torch.zeros(1, now.queries, now.queries, device=seen.device)
            mask = mask.masked_fill(~seen, -torch.inf)
        asked = now.positions
        if now.place is not None:
            asked = asked.new_zeros(now.rows * now.queries).index_copy_(0, now.place, asked)
        asked = asked.view(now.rows, now.queries, 1)
        far = asked - _COLUMNS.get()[:, None, : now.width] >= window
        mask = mask.masked_fill(far, -torch.inf)
    if mask is not None:
        mask = mask.to(dtype)[:, None].expand(-1, groups, -1, -1)
        mask = mask.reshape(mask.shape[0], 1, -1, mask.shape[-1])
    now.masks[window, groups] = mask
    return mask


_COLUMNS: ContextVar[torch.Tensor] = ContextVar("columns")
AttentionInterface.register(ATTENTION, attend)


def forward(
    model: PreTrainedModel,
    cache: TreeCache,
    now: Pass,
    token_ids: torch.Tensor,
    wanted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run the tokens of a pass through a model that is `reading_trees`.

    Args:
        model: the language model itself.
        cache: has room where the pass writes.
        now: where the tokens belong.
        token_ids: (N,).
        wanted: (M,) of which tokens logits are wanted; None for all.

    Returns:
        (M, vocabulary) logits.
    """
    cache.positions.view(-1).index_copy_(0, now.write, now.positions)
    tokens = (_NOW.set(now), _COLUMNS.set(cache.positions))
    try:
        output = model(
            input_ids=token_ids[None],
            position_ids=now.positions[None],
            past_key_values=cache,
            use_cache=True,
            **({} if wanted is None else {"logits_to_keep": wanted}),
        )
    finally:
        _NOW.reset(tokens[0])
        _COLUMNS.reset(tokens[1])
    logits: torch.Tensor = output.logits[0]
    return logits


def configs_of(model: PreTrainedModel) -> list[Any]:
    """The configurations that a model's layers look at."""
    return list({id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values())


@contextmanager
def reading_trees(configs: Iterable[Any]) -> Iterator[None]:
    """Have the model with these configurations attend to trees within the block."""
    before = [(config, config._attn_implementation) for config in configs]
    for config, _ in before:
        config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        for config, attention in before:
            config._attn_implementation = attention


def gather(
    sources: Sequence[tuple[TreeCache, torch.Tensor, torch.Tensor]],
    rows: int,
    width: int,
    device: torch.device,
    spent: TreeCache | None = None,
) -> TreeCache:
    """A new cache from columns of others.

    Args:
        sources: caches, with the columns to take (of all columns laid end to end) and the columns
            of the new cache that they go to.
        rows: of the new cache.
        width: of the new cache.
        device: where it goes.
        spent: one of the sources that is not needed any more: it is emptied layer by layer, so
            that at no time two whole caches are held.
    """
    made = TreeCache(rows, width, device)
    for cache, take, put in sources:
        made.positions.view(-1).index_copy_(0, put, cache.positions.view(-1)[take])
    for name in ("keys", "values"):
        layers = max(len(getattr(cache, name)) for cache, _, _ in sources)
        for layer in range(layers):
            tensor: torch.Tensor | None = None
            for cache, take, put in sources:
                old = getattr(cache, name)[layer]
                if tensor is None:
                    tensor = old.new_zeros(rows, width, *old.shape[2:])
                flat = old.view(-1, *old.shape[2:])
                tensor.view(-1, *old.shape[2:]).index_copy_(0, put, flat[take])
                if cache is spent:
                    getattr(cache, name)[layer] = old.new_empty(0)
            getattr(made, name).append(tensor)
    return made


@torch.inference_mode()
def reads_trees(model: PreTrainedModel) -> bool:
    """Whether a model's answers come out the same when it reads them as a tree.

    Some models mask or number tokens in ways of their own, keep states instead of keys, or cap
    their attention. So two continuations of a prompt are read both ways. The difference must be
    far less than what mixing the continuations up would make.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not model._supports_attention_backend or kinds - {"full_attention", "sliding_attention"}:
        return False
    device = model.device
    prompt, ends = [5, 6, 7, 8], [[9, 10, 11], [12, 13, 14]]

    def apart(ids: list[int]) -> torch.Tensor:
        output = model(input_ids=torch.tensor([ids], device=device), use_cache=False)
        return output.logits[0, -1].float()

    try:
        wanted = torch.stack([apart(prompt + end) for end in ends])
        wrong = torch.stack([apart(prompt + ends[0] + end) for end in ends])
        with reading_trees(configs_of(model)):
            found = _both(model, prompt, ends)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
        return False
    return bool((found - wanted).norm() < 0.1 * (wrong - wanted).norm())


def _both(model: PreTrainedModel, prompt: list[int], ends: list[list[int]]) -> torch.Tensor:
    """(2, vocabulary) logits after two continuations of a prompt, read as a tree."""
    device, length, each = model.device, len(prompt), len(ends[0])
    cache = TreeCache(1, length + 2 * each, device)

    def order(begin: int, end: int) -> torch.Tensor:
        return torch.arange(begin, end, device=device)

    first = order(0, length)
    now = Pass(first, None, 1, length, length, None, first)
    forward(model, cache, now, torch.tensor(prompt, device=device), first[-1:])
    seen = torch.zeros(2, each, 2, each, device=device)
    seen[0, :, 1] = seen[1, :, 0] = -torch.inf
    seen += torch.full((each, each), -torch.inf, device=device).triu(1)[None, :, None]
    mask = torch.cat([seen.new_zeros(2 * each, length), seen.view(2 * each, -1)], dim=1)
    positions = order(length, length + each).repeat(2)
    write = order(length, length + 2 * each)
    now = Pass(write, None, 1, 2 * each, length + 2 * each, mask[None], positions)
    ids = torch.tensor([*ends[0], *ends[1]], device=device)
    return forward(model, cache, now, ids, order(0, 2 * each)[each - 1 :: each]).float()
