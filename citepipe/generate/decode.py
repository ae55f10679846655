"""Decoding over trees: a prompt's keys and values stand once, its continuations behind them.

A row of the cache belongs to one prompt. Its columns hold the tokens of the prompt and of all its
branches in the order in which they came, and a mask tells which of them each branch sees. Keys and
values are so read once per prompt and not once per sample, and branches that share more than the
prompt, as the beams of a search do, share that too. Whatever is not attention sees the new tokens
of all branches in one sequence, without padding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel

Ids = tuple[int, ...]

ATTENTION = "citepipe_tree"

STEPS_OF_ROOM = 16
"""Steps for which a cache has columns; then a new one is made, without what has ended."""

STEPS_UNTIL_TIDY = 4
"""Steps after which what has ended is looked for, to be left out of the attention."""

WORTH_TIDYING = 0.75
"""Then a new cache is made if attention costs no more than this share afterwards."""

PREFILL_TOKENS = {"cpu": 512, "cuda": 32768}
"""Tokens of prompts that are read in one pass, padding included, if they are several. A processor
is not quicker with more."""


@dataclass(eq=False)
class Branch:
    """A continuation of a prompt.

    Attributes:
        prompt: token ids.
        answer: token ids behind it.
        columns: where the prompt's last token and then the answer's tokens stand, as far as they
            have been run.
        slot: its place among the branches of its row.
    """

    prompt: Ids
    answer: list[int]
    columns: list[int] = field(default_factory=list, kw_only=True)
    slot: int = field(default=0, kw_only=True)

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return len(self.prompt) + len(self.answer)

    @property
    def is_read(self) -> bool:
        """All its tokens have been run, so that the next one can be chosen."""
        return len(self.columns) > len(self.answer)


@dataclass(eq=False, slots=True)
class Row:
    """A prompt and what stands behind it.

    Attributes:
        prompt: its token ids; all but the last are in the first columns.
        cache: where its keys and values are.
        index: its row there.
        length: columns that are taken.
        known: columns of the answers that are kept for the next call, by their token ids.
        live: its branches that go on.
    """

    prompt: Ids
    cache: TreeCache
    index: int
    length: int
    known: dict[Ids, list[int]] = field(default_factory=dict)
    live: list[Branch] = field(default_factory=list)

    def used(self) -> np.ndarray:
        """The columns that something may still see, in order."""
        used = np.zeros(self.length, dtype=bool)
        used[: len(self.prompt) - 1] = True
        for columns in (*(branch.columns for branch in self.live), *self.known.values()):
            used[columns] = True
        return used.nonzero()[0]

    def move(self, cache: TreeCache, index: int, used: np.ndarray) -> None:
        """Note that the used columns are now the first ones of a row of another cache."""
        moved = np.zeros(self.length, dtype=np.int64)
        moved[used] = np.arange(len(used))
        for branch in self.live:
            branch.columns = moved[branch.columns].tolist()
        self.known = {ids: moved[columns].tolist() for ids, columns in self.known.items()}
        self.cache, self.index, self.length = cache, index, len(used)


@dataclass
class Step:
    """Where the N tokens of a forward pass belong.

    Attributes:
        write: (N,) the column of each token's key and value, rows laid end to end.
        place: (N,) its place in the grid of queries, rows laid end to end; None if that is their
            order and the grid is full.
        mask: (rows, slots, width), 0 where a query sees a column and -inf elsewhere.
        positions: (N,) of the tokens.
        columns: (rows, width) positions of the columns.
    """

    write: torch.Tensor
    place: torch.Tensor | None
    mask: torch.Tensor
    positions: torch.Tensor
    columns: torch.Tensor
    _masks: dict[tuple[int | None, int], torch.Tensor] = field(default_factory=dict)

    def in_grid(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows x slots, ...) of what belongs to the tokens, (N, ...)."""
        if self.place is None:
            return tokens
        rows, slots, _ = self.mask.shape
        return tokens.new_zeros(rows * slots, *tokens.shape[1:]).index_copy_(0, self.place, tokens)

    def mask_of(self, window: int | None, groups: int, dtype: torch.dtype) -> torch.Tensor:
        """(rows, 1, groups x slots, width), made once for all layers of a kind."""
        if (window, groups) not in self._masks:
            mask = self.mask
            if window is not None:
                asked = self.in_grid(self.positions).view(*mask.shape[:2], 1)
                mask = mask.masked_fill(asked - self.columns[:, None] >= window, -torch.inf)
            mask = mask.to(dtype)[:, None].expand(-1, groups, -1, -1).flatten(1, 2)
            self._masks[window, groups] = mask[:, None]
        return self._masks[window, groups]


class TreeCache(Cache):
    """Keys and values of some rows, all of the same number of columns.

    Args:
        width: columns of each row.
        layers: per layer keys and values, (rows, width, heads, size) each.
    """

    def __init__(self, width: int, layers: list[list[torch.Tensor]]) -> None:
        super().__init__(layers=[])
        self.width = width
        self.tensors = layers
        self.step: Step | None = None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store (1, heads, N, size) keys and values; returns (rows, heads, width, size) of all."""
        assert self.step is not None
        found = []
        for kept, new in zip(self.tensors[layer_idx], (key_states, value_states), strict=True):
            kept.flatten(0, 1).index_copy_(0, self.step.write, new[0].transpose(0, 1))
            found.append(kept[:, : self.step.mask.shape[-1]].transpose(1, 2))
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Models number positions by it; here they are given."""
        return 0


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    tree: Step | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers for a step over trees.

    Args:
        query: (1, heads, N, size).
        key, value: (rows, heads of keys, width, size), from `TreeCache.update`.
        scaling: of the products; None for one over the root of the size.
        sliding_window: positions that a token sees, itself among them.
        tree: the step, a keyword argument of the model's forward pass.

    Returns:
        (1, N, heads, size).

    Raises:
        NotImplementedError: the layer wants something that is not known here.
    """
    unknown = [others.get(name) for name in ("softcap", "s_aux", "position_bias")]
    if tree is None or attention_mask is not None or dropout or any(x is not None for x in unknown):
        raise NotImplementedError("attention over trees without caps, sinks, biases and dropout")
    rows, slots, _ = tree.mask.shape
    heads, count, size = query.shape[1:]
    groups = heads // key.shape[1]
    # Heads that share keys become queries of one head.
    grid = tree.in_grid(query[0].transpose(0, 1)).view(rows, slots, -1, groups, size)
    grid = grid.permute(0, 2, 3, 1, 4).reshape(rows, -1, groups * slots, size)
    mask = tree.mask_of(sliding_window, groups, query.dtype)
    found = scaled_dot_product_attention(grid, key, value, mask, scale=scaling)
    found = found.view(rows, -1, groups, slots, value.shape[-1]).permute(0, 3, 1, 2, 4)
    found = found.reshape(rows * slots, heads, -1)
    if tree.place is not None:
        found = found[tree.place]
    return found.view(1, count, heads, -1), None


AttentionInterface.register(ATTENTION, attend)


class TreeDecoder:
    """Runs the branches of some prompts together, each prompt in a row of one cache.

    Args:
        model: the language model itself, in evaluation mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        modules = [module for module in model.modules() if hasattr(module, "config")]
        configs = {id(module.config): module.config for module in modules}
        self._configs: list[Any] = list(configs.values())
        self._limit = PREFILL_TOKENS.get(model.device.type, 8192)
        self._rows: dict[Ids, Row] = {}
        self._steps = 0
        # Of the rows with live branches; see `_arrange`.
        self._cache = TreeCache(0, [])
        self._mask = torch.empty(0)
        self._positions = torch.empty(0)

    def open(self, branches: Collection[Branch]) -> None:
        """Begin a call: whatever none of these branches continues is forgotten."""
        prompts = {branch.prompt for branch in branches}
        answers = {(branch.prompt, tuple(branch.answer)) for branch in branches}
        self._rows = {prompt: row for prompt, row in self._rows.items() if prompt in prompts}
        for prompt, row in self._rows.items():
            row.known = {i: known for i, known in row.known.items() if (prompt, i) in answers}

    @property
    def held(self) -> int:
        """Columns of rows that are only remembered."""
        return sum(row.length for row in self._rows.values() if not row.live)

    def start(self, branches: Sequence[Branch]) -> None:
        """Take branches in; those of before go on."""
        unread = {branch.prompt for branch in branches} - self._rows.keys()
        chunk: list[Ids] = []
        for prompt in sorted(unread, key=lambda prompt: (-len(prompt), prompt)):
            if chunk and (len(chunk) + 1) * len(chunk[0]) > self._limit:
                self._read(chunk)
                chunk = []
            chunk.append(prompt)
        if chunk:
            self._read(chunk)
        for branch in branches:
            row = self._rows[branch.prompt]
            row.live.append(branch)
            # The last token is always run: it gives the logits of the next one.
            branch.columns = row.known.get(tuple(branch.answer), [])[: len(branch.answer)]
        self._arrange()

    def step(self, branches: Sequence[Branch]) -> torch.Tensor:
        """Run one more token of each live branch.

        Returns:
            (branches, vocabulary) logits of the token behind it.
        """
        if self._is_untidy():
            self._arrange()
        self._steps += 1
        (rows, slots, width), device = self._mask.shape, self.model.device
        ids, positions, write, place = [], [], [], []
        for branch in branches:
            row, count = self._rows[branch.prompt], len(branch.columns)
            ids.append(branch.answer[count - 1] if count else branch.prompt[-1])
            positions.append(len(branch.prompt) - 1 + count)
            write.append(row.index * width + row.length)
            place.append(row.index * slots + branch.slot)
            branch.columns.append(row.length)
            row.length += 1
        numbers = np.array([ids, positions, write, place])
        seen = numbers[3] * width + numbers[2] % width
        tensor = torch.from_numpy(np.vstack([numbers, seen])).to(device)
        self._mask.view(-1).index_fill_(0, tensor[4], 0)
        self._positions.view(-1).index_copy_(0, tensor[2], tensor[1])
        shown, is_full = self._shown(), place == list(range(rows * slots))
        step = Step(
            write=tensor[2],
            place=None if is_full else tensor[3],
            mask=self._mask[:, :, :shown],
            positions=tensor[1],
            columns=self._positions[:, :shown],
        )
        self._cache.step = step
        before = [config._attn_implementation for config in self._configs]
        try:
            for config in self._configs:
                config._attn_implementation = ATTENTION
            output = self.model(
                input_ids=tensor[None, 0],
                position_ids=tensor[None, 1],
                past_key_values=self._cache,
                use_cache=True,
                tree=step,
            )
        finally:
            for config, attention in zip(self._configs, before, strict=True):
                config._attn_implementation = attention
        logits: torch.Tensor = output.logits[0]
        return logits

    def end(self, branch: Branch, kept: Ids | None) -> None:
        """Let a live branch go.

        Args:
            branch: one that was going on.
            kept: what of its answer is remembered until the next call; None for nothing.
        """
        row = self._rows[branch.prompt]
        row.live.remove(branch)
        if kept is not None:
            row.known[kept] = branch.columns[: len(kept)]

    def prompt_alone(self, prompt: Ids) -> DynamicCache | None:
        """Keys and values of all but a live prompt's last token; None if it was read with others,
        which would be in their rounding."""
        head = len(prompt) - 1
        if 2 * len(prompt) <= self._limit:
            return None
        row, cache = self._rows[prompt], DynamicCache()
        for layer, parts in enumerate(row.cache.tensors):
            keys, values = (p[row.index, :head].transpose(0, 1)[None].contiguous() for p in parts)
            cache.update(keys, values, layer)
        return cache

    def _read(self, prompts: Sequence[Ids]) -> None:
        """Run prompts, the longest first, with the model's own attention."""
        ids = torch.zeros(len(prompts), len(prompts[0]), dtype=torch.long)
        for index, prompt in enumerate(prompts):
            ids[index, : len(prompt)] = torch.tensor(prompt)
        # Padding stands behind the prompts, where none of their tokens see it.
        cache = DynamicCache()
        ids = ids.to(self.model.device)
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        read = TreeCache(
            len(prompts[0]),
            [[part.transpose(1, 2) for part in (keys, values)] for keys, values, *_ in cache],
        )
        for index, prompt in enumerate(prompts):
            self._rows[prompt] = Row(prompt, read, index, len(prompt) - 1)

    def _shown(self) -> int:
        """Columns in use, a number that kernels like."""
        longest = max(row.length for row in self._rows.values() if row.live)
        return min(self._cache.width, -(-longest // 8) * 8)

    def _is_untidy(self) -> bool:
        """Whether the cache is full, or holds much that has ended."""
        if self._steps == STEPS_OF_ROOM:
            return True
        if self._steps % STEPS_UNTIL_TIDY or not self._steps:
            return False
        going = [row for row in self._rows.values() if row.live]
        needed = max(len(row.used()) for row in going) * max(len(row.live) for row in going)
        rows, slots, _ = self._mask.shape
        return len(going) * needed < WORTH_TIDYING * rows * slots * self._shown()

    def _arrange(self) -> None:
        """Make a new cache of what goes on, with room for some steps."""
        self._rows = {prompt: row for prompt, row in self._rows.items() if row.live or row.known}
        going = [row for row in self._rows.values() if row.live]
        rest = [row for row in self._rows.values() if not row.live and row.cache is self._cache]
        if rest:
            self._move(rest, 0)
        self._cache = self._move(going, STEPS_OF_ROOM)
        self._steps = 0
        slots = max(len(row.live) for row in going)
        mask = np.full((len(going), slots, self._cache.width), -np.inf, dtype=np.float32)
        positions = np.zeros((len(going), self._cache.width), dtype=np.int64)
        for row in going:
            head = len(row.prompt) - 1
            mask[row.index, : len(row.live), :head] = 0
            positions[row.index, :head] = np.arange(head)
            for slot, branch in enumerate(row.live):
                branch.slot = slot
                mask[row.index, slot, branch.columns] = 0
                positions[row.index, branch.columns] = head + np.arange(len(branch.columns))
        self._mask = torch.from_numpy(mask).to(self.model.device, self.model.dtype)
        self._positions = torch.from_numpy(positions).to(self.model.device)

    def _move(self, rows: Sequence[Row], steps: int) -> TreeCache:
        """Bring rows into a new cache, without what nothing sees any more.

        Args:
            rows: of any caches.
            steps: for which each of their branches gets a column.
        """
        sources = list({id(row.cache): row.cache for row in rows}.values())
        sizes = [len(c.tensors[0][0]) * c.width for c in sources]
        begins = dict(zip(map(id, sources), np.cumsum([0, *sizes]), strict=False))
        used = [row.used() for row in rows]
        room = [len(own) + steps * len(row.live) for own, row in zip(used, rows, strict=True)]
        width = -(-max(room) // 8) * 8
        made = TreeCache(width, [])
        take = np.zeros((len(rows), width), dtype=np.int64)
        for index, (row, own) in enumerate(zip(rows, used, strict=True)):
            begin = begins[id(row.cache)] + row.index * row.cache.width
            take[index, : len(own)] = begin + own
            row.move(made, index, own)
        columns = torch.from_numpy(take.ravel()).to(self.model.device)
        in_use = {id(row.cache) for row in self._rows.values()}
        for layer in range(len(sources[0].tensors)):
            made.tensors.append([])
            for part in range(2):
                flat = [source.tensors[layer][part].flatten(0, 1) for source in sources]
                taken = (torch.cat(flat) if len(flat) > 1 else flat[0])[columns]
                made.tensors[-1].append(taken.unflatten(0, (len(rows), width)))
            for source in sources:
                # What is spent goes layer by layer, so that never two whole caches are held.
                if id(source) not in in_use:
                    source.tensors[layer] = []
        return made


@torch.inference_mode()
def reads_trees(model: PreTrainedModel) -> bool:
    """Whether a model's answers come out the same when it decodes over trees.

    Some models mask or number tokens in ways of their own, keep states instead of keys, or cap
    their attention. So two continuations of a prompt are read both ways. The difference must be
    far less than what mixing the continuations up would make.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not model._supports_attention_backend or kinds - {"full_attention", "sliding_attention"}:
        return False
    prompt, ends = (5, 6, 7, 8), ([9, 10], [11, 12])

    def alone(*begin: int) -> torch.Tensor:
        ids = torch.tensor([[*begin, *end] for end in ends], device=model.device)
        return model(input_ids=ids, use_cache=False).logits[:, -1].float()

    try:
        wanted, wrong = alone(*prompt), alone(*prompt, *ends[0])
        branches = [Branch(prompt, end) for end in ends]
        decoder = TreeDecoder(model)
        decoder.start(branches)
        while not branches[0].is_read:
            found = decoder.step(branches).float()
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
        return False
    return bool((found - wanted).norm() < 0.1 * (wrong - wanted).norm())
