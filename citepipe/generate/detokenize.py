"""From generated token ids to text, with the span of text that each token wrote.

The offsets come from the sampled ids themselves. Tokenizing the text again can give other tokens,
and then a reward would land on a token that was never sampled.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\ufffd"
"""What a decoder writes for bytes that are not a whole character yet."""


class Detokenizer:
    """Decodes token ids of one tokenizer; remembers what single tokens decode to."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._pieces: dict[int, str] = {}

    def piece(self, token_id: int) -> str:
        """What a token decodes to by itself; special tokens decode to nothing."""
        if token_id not in self._pieces:
            self._pieces[token_id] = self.decode([token_id])
        return self._pieces[token_id]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the ids, without special tokens."""
        text = self.tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def text_and_offsets(self, token_ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """The text of the ids, and per id the span [start, end) that it wrote.

        Spans are in order, do not overlap, and cover the text. A character whose bytes lie in
        several tokens belongs to the token that completes it.
        """
        text = self.decode(token_ids)
        pieces = [self.piece(i) for i in token_ids]
        if "".join(pieces) == text and INCOMPLETE not in text:
            ends = [0]
            for piece in pieces:
                ends.append(ends[-1] + len(piece))
        else:
            ends = [0]
            for count in range(1, len(token_ids) + 1):
                ends.append(max(ends[-1], self._settled(token_ids[:count], text)))
            ends[-1] = len(text)
        return text, list(itertools.pairwise(ends))

    def _settled(self, prefix: Sequence[int], text: str) -> int:
        """How many characters of the final text the prefix has written for good."""
        written = self.decode(prefix)
        settled = len(written)
        while settled and (settled > len(text) or written[:settled] != text[:settled]):
            settled -= 1
        return settled
