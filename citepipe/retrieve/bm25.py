"""The passages that have most to do with a question, by BM25 (with the library bm25s)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from citepipe.data.example import Document, Example
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.progress import Progress, say
from citepipe.retrieve.words import WordReader

# Sums of the same numbers in another order differ by less, and have to tie.
_DECIMALS = 9
_TIE = 10.0**-_DECIMALS


class Retriever:
    """An index of passages in memory: words of titles and texts.

    It takes about 1 kB per passage of 100 words besides the passages themselves, and 5 kB while it
    is made.

    Args:
        passages: what is looked through.
        options: how words are read and counted.

    Raises:
        InputError: there are no passages, or no words in them but stop words.
    """

    def __init__(self, passages: Sequence[Document], options: RetrievalOptions) -> None:
        from bm25s import BM25

        self.passages = passages
        self._words = WordReader(options)
        self._ids: dict[str, int] = {}
        progress = Progress("retrieval", len(passages), "passages read", patient=True)
        indexed = []
        for passage in passages:
            words = self._words(f"{passage.title}\n{passage.text}")
            indexed.append([self._ids.setdefault(word, len(self._ids)) for word in words])
            progress.advance()
        if not self._ids:
            raise InputError(
                f"{', '.join(options.passages)}: expected passages with words in them to look for, "
                f"got {len(passages)} passages without any"
            )
        self._index = BM25(
            method=options.method, k1=options.k1, b=options.b, delta=options.delta, dtype="float64"
        )
        self._index.index((indexed, self._ids), create_empty_token=False, show_progress=False)

    def find(self, questions: Sequence[str], k: int) -> list[list[Document]]:
        """The best `k` passages for each question, best first; ties stand as the passages do.

        Only passages that share a word with the question are found, so that there may be fewer
        than `k`, and none at all for a question without any known word.

        Raises:
            ValueError: `k` is not positive.
        """
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        progress = Progress("retrieval", len(questions), "questions", patient=True)
        found = []
        for question in questions:
            found.append([self.passages[i] for i in self._best(question, k)])
            progress.advance()
        return found

    def find_documents(self, examples: Sequence[Example], k: int) -> list[Example]:
        """The examples in their order; those without documents get the best `k` passages.

        How many get fewer, or none, is said.
        """
        bare = [i for i, example in enumerate(examples) if not example.docs]
        found = self.find([examples[i].question for i in bare], k)
        completed = list(examples)
        for i, docs in zip(bare, found, strict=True):
            completed[i] = replace(examples[i], docs=tuple(docs))
        if bare:
            without = sum(not docs for docs in found)
            few = sum(len(docs) < k for docs in found) - without
            notes = f", {few} fewer as no more share a word with them" if few else ""
            notes += f", {without} none as no passage has any of their words" if without else ""
            say(
                f"retrieval: {len(bare)} of {len(examples)} questions had no documents and got up "
                f"to {k} of {len(self.passages)} passages{notes}"
            )
        return completed

    def scores(self, question: str) -> NDArray[np.float64]:
        """The score of every passage, [passages]; 0 for those with none of the question's words.

        A word that the question has twice counts twice.
        """
        ids = [self._ids[word] for word in self._words(question) if word in self._ids]
        if not ids:
            return np.zeros(len(self.passages))
        scores: NDArray[np.float64] = self._index.get_scores_from_ids(ids)
        # BM25L and BM25+ give all passages something for each word; it changes no order.
        elsewhere = self._index.nonoccurrence_array
        return scores if elsewhere is None else scores - elsewhere[ids].sum()

    def _best(self, question: str, k: int) -> list[int]:
        scores = self.scores(question)
        candidates = np.flatnonzero(scores > _TIE)
        if len(candidates) > k:
            least = np.partition(scores[candidates], -k)[-k]
            candidates = candidates[scores[candidates] > least - _TIE]
        # The sort is stable, and candidates stand in the order of the passages.
        order = np.argsort(-scores[candidates].round(_DECIMALS), kind="stable")[:k]
        return [int(i) for i in candidates[order]]
