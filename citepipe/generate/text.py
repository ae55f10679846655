"""From generated token ids to text: the span that each token wrote, and where an answer ends.

The spans come from the sampled ids themselves. Tokenizing the text again can give other tokens,
and then a reward would land on a token that was never sampled.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from citepipe.generate.completion import Completion, FinishReason, SegmentEnd

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\ufffd"
"""What a decoder writes for bytes that are not a whole character yet."""

_PROBED = 512
"""Tokens from all over the vocabulary on which a tokenizer is tried."""


class Detokenizer:
    """Decodes token ids of one tokenizer; remembers what single tokens decode to."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._pieces: dict[int, tuple[str, str]] = {}

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the ids, without special tokens."""
        text = self.tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def decode_behind(self, prefix: Sequence[int], token_ids: Sequence[int]) -> str:
        """What the ids add to the text of the ids in front of them.

        It need not be what they decode to alone: some decoders drop the first space of a text.
        """
        if not prefix:
            return self.decode(token_ids)
        return self.decode([*prefix, *token_ids])[len(self.decode(prefix)) :]

    def pieces(self, token_id: int) -> tuple[str, str]:
        """What a token decodes to at the begin of a text, and behind other tokens."""
        if token_id not in self._pieces:
            alone = self.decode([token_id])
            self._pieces[token_id] = alone, self.decode([token_id, token_id])[len(alone) :]
        return self._pieces[token_id]

    @cached_property
    def is_additive(self) -> bool:
        """Whether a text is what its tokens decode to one by one, apart from split characters."""
        size = len(self.tokenizer)
        ids = range(0, size, max(1, size // _PROBED))
        whole = [i for i in ids if INCOMPLETE not in self.pieces(i)[0]]
        writer = Writer(self)
        for token_id in whole:
            writer.add(token_id)
        return writer.text == self.decode(whole)

    def text_and_offsets(
        self, token_ids: Sequence[int], prefix: Sequence[int] = ()
    ) -> tuple[str, list[tuple[int, int]]]:
        """What the ids add to the text of a prefix, and per id the span [start, end) it wrote.

        Spans are in order, do not overlap, and cover the text. A character whose bytes lie in
        several tokens belongs to the token that completes it.
        """
        text = self.decode_behind(prefix, token_ids)
        writer = Writer(self, prefix)
        for token_id in token_ids:
            writer.add(token_id)
        writer.close()
        ends = writer.ends if writer.text == text else self._ends(prefix, token_ids, text)
        return text, list(itertools.pairwise([0, *ends]))

    def _ends(self, prefix: Sequence[int], token_ids: Sequence[int], text: str) -> list[int]:
        """Up to which character of the ids' text each id has written for good."""
        ends, end = [], 0
        for count in range(1, len(token_ids)):
            end = max(end, _settled(self.decode_behind(prefix, token_ids[:count]), text))
            ends.append(end)
        return [*ends, len(text)][: len(token_ids)]


class Writer:
    """Writes a text token by token, each decoded but once.

    Attributes:
        text: what whole characters were written.
        ends: per token the length of the text with it; behind by the tokens of an unfinished
            character.
    """

    def __init__(self, detokenizer: Detokenizer, prefix: Sequence[int] = ()) -> None:
        self.detokenizer = detokenizer
        self.text = ""
        self.ends: list[int] = []
        self._begun = any(detokenizer.pieces(i)[1] for i in prefix)
        self._split: list[int] = []

    def add(self, token_id: int) -> str:
        """Write a token; returns what it decodes to."""
        alone, behind = self.detokenizer.pieces(token_id)
        if INCOMPLETE in alone:
            self._split.append(token_id)
            return alone
        if self._split:
            self.close()
        piece = behind if self._begun else alone
        self.text += piece
        self.ends.append(len(self.text))
        self._begun = self._begun or behind != ""
        return piece

    def close(self) -> None:
        """Write the bytes that wait for the rest of a character as they are."""
        if not self._split:
            return
        piece = self.detokenizer.decode(self._split)
        at = len(self.text)
        self.ends += [at + e for e in self.detokenizer._ends((), self._split, piece)]
        self.text += piece
        self._split, self._begun = [], True

    @property
    def shown(self) -> str:
        """The text with the bytes that wait for the rest of a character."""
        return self.text + self.detokenizer.decode(self._split) if self._split else self.text


def _settled(written: str, text: str) -> int:
    """How many characters of the final text are as they were written.

    Bytes of no character count as settled: a decoder may write several as characters first.
    """
    for place, (before, after) in enumerate(zip(written, text, strict=False)):
        if before != after and after != INCOMPLETE:
            return place
    return min(len(written), len(text))


class Cut:
    """Follows one answer token by token, and says when it has ended.

    Args:
        detokenizer: of the model's tokenizer.
        prefix: token ids of the part of the answer that was there before.
        stop: strings that end the answer, none of them empty.
        segment_end: see `Request`.
        end_ids: the tokens that end an answer.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        prefix: Sequence[int],
        stop: Sequence[str],
        segment_end: SegmentEnd | None,
        end_ids: Collection[int],
    ) -> None:
        self.detokenizer = detokenizer
        self.prefix = prefix
        self.stop = stop
        self.segment_end = segment_end
        self.end_ids = end_ids
        self._last = {string[-1] for string in stop}
        self._writer = Writer(detokenizer, prefix)
        self._exact: list[int] | None = None if detokenizer.is_additive else []

    def add(self, token_id: int) -> FinishReason | None:
        """Why the answer ends with this token, or None if it does not."""
        if token_id in self.end_ids:
            return "end"
        piece = self._writer.add(token_id)
        if self._exact is not None:
            self._exact.append(token_id)
        # A stop string is complete only with a token that writes its last character.
        may_stop = INCOMPLETE in piece or self._exact is not None
        if self.stop and (may_stop or not self._last.isdisjoint(piece)):
            text = self._text()
            if any(string in text for string in self.stop):
                return "stop"
        if self.segment_end is not None and self.segment_end(self._text()) is not None:
            return "segment"
        return None

    def _text(self) -> str:
        if self._exact is not None:
            return self.detokenizer.decode_behind(self.prefix, self._exact)
        return self._writer.shown

    def completion(
        self, token_ids: Sequence[int], log_probs: Sequence[float], finish: FinishReason
    ) -> Completion:
        """What was generated, up to where it ends.

        Args:
            token_ids: all tokens that were added.
            log_probs: one per token, or none at all.
            finish: what `add` said of the last one; `length` if it was None.
        """
        # What ends an answer is no part of its text, whether the tokenizer calls it special or not.
        written = token_ids[:-1] if finish == "end" else token_ids
        text, offsets = self.detokenizer.text_and_offsets(written, self.prefix)
        if finish == "end":
            offsets.append((len(text), len(text)))
        if finish == "segment" and self.segment_end is not None:
            end = self.segment_end(text)
            # A token that reaches over the segment's end is kept whole.
            count = len(offsets) if end is None else sum(start < end for start, _ in offsets)
            token_ids, log_probs = token_ids[:count], log_probs[:count]
            text, offsets = self.detokenizer.text_and_offsets(token_ids, self.prefix)
        ends = [place for string in self.stop if (place := text.find(string)) >= 0]
        if ends:
            end = min(ends)
            text = text[:end]
            offsets = [(min(a, end), min(b, end)) for a, b in offsets]
        return Completion(tuple(token_ids), text, tuple(offsets), tuple(log_probs), finish)
