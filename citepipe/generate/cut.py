"""Where a generated answer ends: by its tokens, its stop strings, or the end of a segment."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from citepipe.generate.completion import Completion, FinishReason, SegmentEnd
from citepipe.generate.detokenize import INCOMPLETE, Detokenizer, Writer


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
