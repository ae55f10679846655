"""Decoding with the model's own cache and masks, for models that cannot read trees."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from collections.abc import Sequence as Many

import torch
from transformers import DynamicCache, PreTrainedModel

from citepipe.generate.sequence import Sequence

Ids = tuple[int, ...]


class PlainDecoder:
    """Runs sequences side by side, each in a row of its own, padded in front.

    A recurrent model (Mamba, or a hybrid with attention) would take padding into its state, or what
    masks it for something else: its sequences begin together only where they are equally long.

    Args:
        model: the language model itself, in evaluation mode.
        pad_id: the padding token.
    """

    continuous = False
    """Sequences start together; others must wait until all of them have ended."""

    held = 0
    """Nothing is remembered."""

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        self.model = model
        self.pad_id = pad_id
        self._rows: list[Sequence] = []
        self._cache: DynamicCache | None = None
        self._mask = torch.empty(0)
        # Purely recurrent models call it so, and would pass over the other name without a word.
        named = inspect.signature(model.forward).parameters
        self._cache_argument = "cache_params" if "cache_params" in named else "past_key_values"
        layers = DynamicCache(config=model.config).layers
        self.pads = not any(hasattr(layer, "conv_states") for layer in layers)
        """Sequences of different lengths may start together."""

    def open(self, wanted: Mapping[Ids, Collection[Ids]], counts: Mapping[Ids, int]) -> None:
        """Begin a call; see `TreeDecoder.open`. Nothing is known from the one before."""

    def close(self, keep: bool) -> None:
        """End a call; nothing is kept."""
        self._rows, self._cache, self._mask = [], None, torch.empty(0)

    def end(self, sequence: Sequence, kept: Ids | None) -> None:
        """Let a sequence go; it is left out of the next step."""

    def start(self, sequences: Many[Sequence]) -> torch.Tensor:
        """Begin with these sequences; see `TreeDecoder.start`. Equal beginnings are read once."""
        device = self.model.device
        begins = [(*s.request.prompt, *s.answer) for s in sequences]
        distinct = list(dict.fromkeys(begins))
        longest = max(map(len, distinct))
        ids = torch.full((len(distinct), longest), self.pad_id, dtype=torch.long)
        mask = torch.zeros((len(distinct), longest), dtype=torch.long)
        for row, begin in enumerate(distinct):
            ids[row, longest - len(begin) :] = torch.tensor(begin)
            mask[row, longest - len(begin) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        self._cache = DynamicCache(config=self.model.config)
        output = self.model(
            input_ids=ids,
            attention_mask=mask if self.pads else None,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            **{self._cache_argument: self._cache},
            use_cache=True,
            logits_to_keep=1,
        )
        place = {begin: row for row, begin in enumerate(distinct)}
        index = torch.tensor([place[begin] for begin in begins], device=device)
        if len(distinct) < len(begins):
            self._pick_from_cache(index)
        self._rows, self._mask = list(sequences), mask[index]
        logits: torch.Tensor = output.logits[index, -1]
        return logits

    def step(self, sequences: Many[Sequence]) -> torch.Tensor:
        """Run the last token of each sequence that goes on; see `TreeDecoder.step`."""
        assert self._cache is not None
        device = self.model.device
        if len(sequences) < len(self._rows):
            going = {id(sequence) for sequence in sequences}
            keep = [row for row, sequence in enumerate(self._rows) if id(sequence) in going]
            index = torch.tensor(keep, device=device)
            self._pick_from_cache(index)
            self._rows, self._mask = list(sequences), self._mask[index]
        ids = torch.tensor([[s.answer[-1]] for s in sequences], device=device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(sequences), 1)], dim=1)
        output = self.model(
            input_ids=ids,
            attention_mask=self._mask if self.pads else None,
            position_ids=self._mask.sum(dim=1, keepdim=True) - 1,
            **{self._cache_argument: self._cache},
            use_cache=True,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _pick_from_cache(self, rows: torch.Tensor) -> None:
        """Make the cache that of these of its rows; a row may be wanted several times."""
        assert self._cache is not None
        # The other way to select rows is not there for recurrent layers.
        self._cache.reorder_cache(rows)  # type: ignore[arg-type]
