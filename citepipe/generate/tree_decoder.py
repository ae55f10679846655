"""Decoding with prompts that are read once (see `tree`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from citepipe.generate.sequence import Sequence
from citepipe.generate.tree import (
    Pass,
    TreeCache,
    configs_of,
    forward,
    gather,
    reading_trees,
)

Ids = tuple[int, ...]

STEPS_OF_ROOM = 16
"""Steps for which a new cache has columns."""

STEPS_UNTIL_TIDY = 4
"""Steps after which what has ended is looked for, to be left out of the attention."""

WORTH_TIDYING = 0.75
"""Then a new cache is made if attention costs no more than this share afterwards."""

PREFILL_TOKENS = {"cpu": 8192, "cuda": 32768}
"""Tokens of prompts that are read in one pass."""

EXTEND_TOKENS = 4096
"""Tokens of answers that are read in one pass."""


@dataclass(eq=False, slots=True)
class Row:
    """A prompt and what stands behind it.

    Attributes:
        prompt: its token ids, in the first columns.
        logits: (vocabulary,) after the prompt.
        cache: where its keys and values are.
        index: its row there.
        length: columns that are taken.
        known: columns of the answers that are kept for the next call, by their token ids. The last
            token of an answer may be without one.
        live: its sequences that go on.
        expected: sequences that are to come in this call.
    """

    prompt: Ids
    logits: torch.Tensor
    cache: TreeCache
    index: int
    length: int
    known: dict[Ids, list[int]] = field(default_factory=dict)
    live: list[Sequence] = field(default_factory=list)
    expected: int = 0


class TreeDecoder:
    """Runs the sequences of some prompts together, each prompt in a row of one cache.

    Args:
        model: the language model itself, in evaluation mode.
    """

    continuous = True
    """Sequences may be started while others go on."""

    pads = True
    """Sequences of different lengths may start together."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.device = model.device
        self._configs = configs_of(model)
        self._rows: dict[Ids, Row] = {}
        self._expected: dict[Ids, int] = {}
        self._cache: TreeCache | None = None
        self._mask = torch.empty(0)
        self._steps = 0

    def open(self, wanted: Mapping[Ids, Collection[Ids]], counts: Mapping[Ids, int]) -> None:
        """Begin a call.

        Args:
            wanted: per prompt the answers that will be continued; others are forgotten.
            counts: per prompt the number of its sequences.
        """
        self._cache = None
        self._rows = {prompt: row for prompt, row in self._rows.items() if prompt in wanted}
        for prompt, row in self._rows.items():
            row.known = {ids: row.known[ids] for ids in wanted[prompt] if ids in row.known}
        self._expected = dict(counts)

    def close(self, keep: bool) -> None:
        """End a call; what was remembered is kept for the next one, or all is forgotten."""
        self._cache = None
        if not keep:
            self._rows = {}
        for row in self._rows.values():
            row.live = []

    @property
    def held(self) -> int:
        """Columns of what does not go on: it is remembered, or about to be left out."""
        return sum(row.length for row in self._rows.values() if not row.live)

    def start(self, sequences: Many[Sequence]) -> torch.Tensor:
        """Take sequences in; those of before go on.

        Returns:
            (sequences, vocabulary) logits of the next token of each.
        """
        with reading_trees(self._configs):
            prompts = dict.fromkeys(sequence.request.prompt for sequence in sequences)
            self._read([prompt for prompt in prompts if prompt not in self._rows])
            for sequence in sequences:
                row = self._rows[sequence.request.prompt]
                row.live.append(sequence)
                self._expected[row.prompt] -= 1
                known = row.known.get(tuple(sequence.answer), [])
                # The last token is run again if need be: its logits are wanted.
                sequence.columns = known[: max(0, len(sequence.answer) - 1)]
            begun = {(s.request.prompt, tuple(s.answer)): s for s in sequences if s.answer}
            room: dict[Ids, int] = {}
            for (prompt, answer), sequence in begun.items():
                missing = len(answer) - len(sequence.columns)
                room[prompt] = room.get(prompt, 0) + missing
            self._arrange(room)
            found = self._extend(list(begun.values()))
            logits = []
            for sequence in sequences:
                first = begun.get((sequence.request.prompt, tuple(sequence.answer)))
                if first is None:
                    logits.append(self._rows[sequence.request.prompt].logits)
                else:
                    sequence.columns = list(first.columns)
                    logits.append(found[id(first)])
            self._see()
            return torch.stack(logits)

    def step(self, sequences: Many[Sequence]) -> torch.Tensor:
        """Run the last token of each sequence that goes on.

        Returns:
            (sequences, vocabulary) logits of the next token of each.
        """
        with reading_trees(self._configs):
            if self._is_untidy():
                self._arrange({})
                self._see()
            assert self._cache is not None
            width, slots = self._cache.width, self._mask.shape[1]
            ids, positions, write, place = [], [], [], []
            for sequence in sequences:
                row = self._rows[sequence.request.prompt]
                ids.append(sequence.answer[-1])
                positions.append(len(row.prompt) + len(sequence.columns))
                write.append(row.index * width + row.length)
                place.append(row.index * slots + sequence.slot)
                sequence.columns.append(row.length)
                row.length += 1
            self._steps += 1
            numbers = np.array([ids, positions, write, place])
            seen = numbers[3] * width + numbers[2] % width
            tensor = torch.from_numpy(np.vstack([numbers, seen])).to(self.device)
            self._mask.view(-1).index_fill_(0, tensor[4], 0)
            shown = self._shown()
            now = Pass(
                tensor[2],
                None if self._is_full(place) else tensor[3],
                self._cache.rows,
                slots,
                shown,
                self._mask[:, :, :shown],
                tensor[1],
            )
            return forward(self.model, self._cache, now, tensor[0])

    def end(self, sequence: Sequence, kept: Ids | None) -> None:
        """Let a sequence go.

        Args:
            sequence: one that was going on.
            kept: what of its answer is remembered until the next call; None for nothing.
        """
        row = self._rows[sequence.request.prompt]
        row.live.remove(sequence)
        if kept is not None:
            row.known[kept] = sequence.columns[: len(kept)]

    def _read(self, prompts: Iterable[Ids]) -> None:
        """Run prompts that are not known yet."""
        limit = PREFILL_TOKENS.get(self.device.type, 8192)
        chunk: list[Ids] = []
        for prompt in sorted(prompts, key=len, reverse=True):
            if chunk and (len(chunk) + 1) * len(chunk[0]) > limit:
                self._read_together(chunk)
                chunk = []
            chunk.append(prompt)
        if chunk:
            self._read_together(chunk)

    def _read_together(self, prompts: Many[Ids]) -> None:
        longest = len(prompts[0])
        cache = TreeCache(len(prompts), longest, self.device)
        lengths = np.array([len(prompt) for prompt in prompts])
        ids = np.concatenate([np.array(prompt) for prompt in prompts])
        positions = np.concatenate([np.arange(length) for length in lengths])
        place = np.repeat(np.arange(len(prompts)) * longest, lengths) + positions
        numbers = torch.from_numpy(np.stack([ids, positions, place])).to(self.device)
        even = len(ids) == len(prompts) * longest
        now = Pass(
            numbers[2],
            None if even else numbers[2],
            len(prompts),
            longest,
            longest,
            None,
            numbers[1],
        )
        last = torch.from_numpy(lengths.cumsum() - 1).to(self.device)
        logits = forward(self.model, cache, now, numbers[0], last)
        for index, prompt in enumerate(prompts):
            self._rows[prompt] = Row(prompt, logits[index], cache, index, len(prompt))

    def _extend(self, sequences: Many[Sequence]) -> dict[int, torch.Tensor]:
        """Run those tokens of answers that have no columns yet.

        Returns:
            By the identity of each sequence the (vocabulary,) logits after its answer.
        """
        found: dict[int, torch.Tensor] = {}
        chunk: list[Sequence] = []
        tokens = 0
        for sequence in sequences:
            missing = len(sequence.answer) - len(sequence.columns)
            if chunk and tokens + missing > EXTEND_TOKENS:
                found |= self._extend_together(chunk)
                chunk, tokens = [], 0
            chunk.append(sequence)
            tokens += missing
        return found | self._extend_together(chunk) if chunk else found

    def _extend_together(self, sequences: Many[Sequence]) -> dict[int, torch.Tensor]:
        assert self._cache is not None
        cache, width = self._cache, self._cache.width
        queries = np.zeros(cache.rows, dtype=np.int64)
        ids: list[int] = []
        positions: list[int] = []
        write: list[int] = []
        asking: list[tuple[int, int]] = []
        seen: list[tuple[int, list[int]]] = []
        last = []
        for sequence in sequences:
            row = self._rows[sequence.request.prompt]
            for token_id in sequence.answer[len(sequence.columns) :]:
                ids.append(token_id)
                positions.append(len(row.prompt) + len(sequence.columns))
                write.append(row.index * width + row.length)
                sequence.columns.append(row.length)
                row.length += 1
                asking.append((row.index, int(queries[row.index])))
                seen.append((len(row.prompt), list(sequence.columns)))
                queries[row.index] += 1
            last.append(len(ids) - 1)
        most, shown = int(queries.max()), self._shown()
        mask = np.full((cache.rows, most, shown), -np.inf, dtype=np.float32)
        for (index, query), (length, columns) in zip(asking, seen, strict=True):
            mask[index, query, :length] = 0
            mask[index, query, columns] = 0
        place = [index * most + query for index, query in asking]
        numbers = torch.from_numpy(np.array([ids, positions, write, place])).to(self.device)
        now = Pass(
            numbers[2],
            numbers[3],
            cache.rows,
            most,
            shown,
            torch.from_numpy(mask).to(self.device, self.model.dtype),
            numbers[1],
        )
        wanted = torch.tensor(last, device=self.device)
        logits = forward(self.model, cache, now, numbers[0], wanted)
        return {id(sequence): row for sequence, row in zip(sequences, logits, strict=True)}

    def _shown(self) -> int:
        """Columns of the cache that are in use, a number that kernels like."""
        assert self._cache is not None
        longest = max(row.length for row in self._rows.values() if row.cache is self._cache)
        return min(self._cache.width, -(-longest // 8) * 8)

    def _is_full(self, place: Many[int]) -> bool:
        """Whether the queries are all that there is room for, in their order."""
        assert self._cache is not None
        count = self._cache.rows * self._mask.shape[1]
        return len(place) == count and place == list(range(count))

    def _is_untidy(self) -> bool:
        """Whether the cache is full, or holds much that has ended."""
        assert self._cache is not None
        rows = [row for row in self._rows.values() if row.cache is self._cache]
        if any(row.length + len(row.live) > self._cache.width for row in rows):
            return True
        if self._steps % STEPS_UNTIL_TIDY:
            return False
        live = [row for row in rows if row.live]
        most = max(len(row.live) for row in live)
        needed = max(len(_needed(row)) for row in live)
        cost = self._cache.rows * self._mask.shape[1] * self._shown()
        return len(live) * most * needed < WORTH_TIDYING * cost

    def _arrange(self, room: Mapping[Ids, int]) -> None:
        """Make a new cache of what goes on, with room for what comes.

        Args:
            room: per prompt the columns for what is to be run before the next step.
        """
        rest = [row for row in self._rows.values() if not row.live and row.cache is self._cache]
        leaving = [row for row in rest if row.known or self._expected.get(row.prompt)]
        for row in rest:
            if row not in leaving:
                del self._rows[row.prompt]
        if leaving and self._cache is not None:
            self._move(leaving, {}, None)
        going = [row for row in self._rows.values() if row.live]
        columns = {}
        for row in going:
            longest = max(s.request.max_new_tokens - len(s.log_probs) for s in row.live)
            steps = min(STEPS_OF_ROOM, longest)
            columns[row.prompt] = room.get(row.prompt, 0) + len(row.live) * steps
        self._cache = self._move(going, columns, self._cache)
        for row in going:
            for slot, sequence in enumerate(row.live):
                sequence.slot = slot
        self._steps = 0

    def _move(self, rows: Many[Row], room: Mapping[Ids, int], spent: TreeCache | None) -> TreeCache:
        """Bring rows into a new cache, without what nobody needs any more."""
        parts: dict[int, tuple[TreeCache, list[np.ndarray], list[np.ndarray]]] = {}
        needed = [_needed(row) for row in rows]
        width = max(
            len(used) + room.get(row.prompt, 0) for row, used in zip(rows, needed, strict=True)
        )
        width = -(-width // 8) * 8
        for index, (row, used) in enumerate(zip(rows, needed, strict=True)):
            _, take, put = parts.setdefault(id(row.cache), (row.cache, [], []))
            take.append(row.index * row.cache.width + used)
            put.append(index * width + np.arange(len(used)))
            if len(used) < row.length:
                moved = np.zeros(row.length, dtype=np.int64)
                moved[used] = np.arange(len(used))
                for sequence in row.live:
                    sequence.columns = moved[sequence.columns].tolist()
                row.known = {i: moved[columns].tolist() for i, columns in row.known.items()}
            row.index, row.length = index, len(used)
        made = gather(
            [
                (
                    cache,
                    torch.from_numpy(np.concatenate(take)).to(self.device),
                    torch.from_numpy(np.concatenate(put)).to(self.device),
                )
                for cache, take, put in parts.values()
            ],
            len(rows),
            width,
            self.device,
            spent,
        )
        for row in rows:
            row.cache = made
        return made

    def _see(self) -> None:
        """Make the mask anew: each sequence sees its prompt and itself."""
        assert self._cache is not None
        rows = [row for row in self._rows.values() if row.live]
        most = max(len(row.live) for row in rows)
        mask = np.full((len(rows), most, self._cache.width), -np.inf, dtype=np.float32)
        for row in rows:
            mask[row.index, : len(row.live), : len(row.prompt)] = 0
            for sequence in row.live:
                mask[row.index, sequence.slot, sequence.columns] = 0
        self._mask = torch.from_numpy(mask).to(self.device, self.model.dtype)


def _needed(row: Row) -> np.ndarray:
    """The columns of a row that something may still see, in order."""
    used = np.zeros(row.length, dtype=bool)
    used[: len(row.prompt)] = True
    for sequence in row.live:
        used[sequence.columns] = True
    for columns in row.known.values():
        used[columns] = True
    return used.nonzero()[0]
