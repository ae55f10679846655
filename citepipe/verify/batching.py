"""Many pairs through a model: each once, similar lengths together, batches that fit into memory."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from citepipe.errors import InputError
from citepipe.models.memory import is_out_of_memory
from citepipe.progress import Progress, say
from citepipe.verify.base import Pair, Provenance

if TYPE_CHECKING:
    import torch

    from citepipe.models.pretrained import Checkpoint

# A GPU's matrix units are busy from some thousands of rows on, and activations of 16k tokens fit
# beside a model of 11 billion parameters. A CPU is fastest while a batch stays in its caches.
GPU_TOKENS_PER_BATCH = 16_384
CPU_TOKENS_PER_BATCH = 2_048
_TEXTS_PER_ENCODING = 1_024


@dataclass(frozen=True, slots=True)
class Encoded:
    """A pair as a model reads it.

    Attributes:
        ids: its tokens.
        second: how many of them, at the end, are of the second segment, for models that tell
            segments apart; else 0.
    """

    ids: array[int]
    second: int = 0


class BatchedVerifier(ABC):
    """What all verifiers that are models share; a subclass knows the model's input and answer.

    Args:
        checkpoint: the loaded model.
        max_length: tokens of a pair that the model reads.
        settings: what else decisions depend on: template, label, threshold.
        tokens_per_batch: pairs times tokens of the longest, per pass; by default by the device.
            It becomes smaller when memory runs out, and stays so.

    Attributes:
        name: what results are labelled with.
        provenance: what a file of scores says.
        identity: all that decisions depend on, for a cache. A local directory counts by its
            content, so a copy of it has the same identity.
        computed: pairs decided so far.
    """

    question_first = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        kind: str,
        max_length: int,
        settings: Provenance,
        tokens_per_batch: int | None = None,
    ) -> None:
        self.name = checkpoint.name
        self.max_length = max_length
        self.provenance: Provenance = {
            "kind": kind,
            "model": checkpoint.target,
            "revision": checkpoint.revision,
            "dtype": checkpoint.dtype,
            "max_length": max_length,
            **settings,
        }
        told = self.provenance | ({"model": None} if checkpoint.is_local else {})
        self.identity = json.dumps(told, sort_keys=True)
        self.computed = 0
        self._model, self._tokenizer = checkpoint.model, checkpoint.tokenizer
        on_gpu = self._model.device.type != "cpu"
        self._budget = tokens_per_batch or (
            GPU_TOKENS_PER_BATCH if on_gpu else CPU_TOKENS_PER_BATCH
        )

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order.

        Raises:
            InputError: the memory does not suffice for one pair.
        """
        known = {pair: entailed for batch in self.decisions(pairs) for pair, entailed in batch}
        return [known[pair] for pair in pairs]

    def decisions(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[Pair, bool]]]:
        """Decisions batch by batch, the longest pairs first, equal pairs once.

        The longest come first so that what does not fit into memory shows at the start.

        Raises:
            InputError: the memory does not suffice for one pair.
        """
        distinct = list(dict.fromkeys(pairs))
        encoded: list[Encoded] = []
        for begin in range(0, len(distinct), _TEXTS_PER_ENCODING):
            encoded += self._encode(distinct[begin : begin + _TEXTS_PER_ENCODING])
        full = sum(len(pair.ids) >= self.max_length for pair in encoded)
        if full:
            say(
                f"verifier {self.name}: {full} of {len(encoded)} pairs reach the limit of "
                f"{self.max_length} tokens; what is beyond it is not read"
            )
        order = sorted(range(len(distinct)), key=lambda i: -len(encoded[i].ids))
        progress = Progress(f"verifier {self.name}", len(distinct), "pairs", patient=True)
        done, shrunk = 0, False
        while done < len(order):
            width = max(1, len(encoded[order[done]].ids))
            batch = order[done : done + max(1, self._budget // width)]
            entailed = self._try([encoded[i] for i in batch])
            if entailed is None:
                if len(batch) == 1:
                    raise InputError(
                        f"verifier {self.name}: no memory for one pair of {width} tokens, premise "
                        f"{distinct[batch[0]].premise[:40]!r}; a smaller model, dtype=bfloat16, "
                        "dtype=4bit or another device may do"
                    )
                self._budget = len(batch) // 2 * width
                shrunk = True
                continue
            if shrunk:
                say(
                    f"verifier {self.name}: memory ran out, goes on with {self._budget} tokens a "
                    "batch"
                )
                shrunk = False
            done += len(batch)
            self.computed += len(batch)
            progress.advance(len(batch))
            yield list(zip([distinct[i] for i in batch], entailed, strict=True))

    def _try(self, batch: Sequence[Encoded]) -> list[bool] | None:
        """Decisions on a batch, None if there is no memory for it."""
        import torch

        try:
            with torch.inference_mode():
                return self._step(*self._padded(batch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback holds the tensors.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _padded(
        self, batch: Sequence[Encoded]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Tokens, attention mask and segments of a batch, each (pairs, width), on the device."""
        import torch

        lengths = [len(pair.ids) for pair in batch]
        width, device = max(lengths), self._model.device
        ids = torch.full((len(batch), width), self._tokenizer.pad_token_id or 0)
        for row, pair in enumerate(batch):
            ids[row, : lengths[row]] = torch.tensor(pair.ids, dtype=torch.long)
        position = torch.arange(width)
        length = torch.tensor(lengths)[:, None]
        segments = None
        if any(pair.second for pair in batch):
            first = length - torch.tensor([pair.second for pair in batch])[:, None]
            segments = ((position >= first) & (position < length)).long().to(device)
        return ids.to(device), (position < length).long().to(device), segments

    @abstractmethod
    def _encode(self, pairs: Sequence[Pair]) -> list[Encoded]:
        """The pairs as the model reads them, cut to `max_length` tokens."""

    @abstractmethod
    def _step(
        self, ids: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor | None
    ) -> list[bool]:
        """Decisions on a padded batch; all tensors (pairs, width)."""
