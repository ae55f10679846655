"""The passages that have most to do with a question, by BM25 (with the library bm25s)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from citepipe.data.example import Document, Example
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.progress import Progress, say
from citepipe.retrieve.passages import UNSPACED

# Sums of the same numbers in another order differ by less, and have to tie.
_DECIMALS = 9
# A run of letters, digits and the marks that belong to letters (Python's \w leaves out the vowel
# signs of Indic scripts). Of scripts without spaces every character is a word.
_MARKS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_WORD = rf"[{UNSPACED}]|(?:(?![{UNSPACED}_])[\w{_MARKS}])+"


def words_of(texts: Iterable[str], options: RetrievalOptions) -> list[list[str]]:
    """The words of texts as BM25 counts them: compatible characters made one (NFKC), case folded,
    stop words left out, stemmed, and without accents.

    Args:
        texts: to be cut into words.
        options: the stemmer and the stop words.
    """
    # NLTK takes a second to import.
    from bm25s import stopwords, tokenize
    from nltk.stem.snowball import SnowballStemmer

    chosen = options.stop_words or ()
    if isinstance(chosen, str):
        name = "EN" if chosen == "english" else chosen.upper()
        chosen = getattr(stopwords, f"STOPWORDS_{name}")

    def stem(words: list[str]) -> list[str]:
        if options.stemmer is None:
            return [_without_accents(word) for word in words]
        # A new one for each, as the Arabic one remembers things of the word before.
        return [
            _without_accents(SnowballStemmer(options.stemmer).stem(word) or word) for word in words
        ]

    found: list[list[str]] = tokenize(
        map(_folded, texts),
        lower=False,
        token_pattern=_WORD,
        stopwords=[_folded(word) for word in chosen],
        stemmer=stem,
        return_ids=False,
        show_progress=False,
    )
    return found


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _without_accents(word: str) -> str:
    """`zürich` as `zurich`: people ask without accents. A word of nothing else stays."""
    letters = unicodedata.normalize("NFD", word)
    bare = "".join(letter for letter in letters if not "\u0300" <= letter <= "\u036f")
    return unicodedata.normalize("NFC", bare) or word


class Retriever:
    """An index of passages in memory: words of titles and texts.

    Args:
        passages: what is looked through.
        options: how words are read and counted.

    Raises:
        InputError: there are no passages, or no words in them but stop words.
    """

    def __init__(self, passages: Sequence[Document], options: RetrievalOptions) -> None:
        from bm25s import BM25

        self.passages, self._options = passages, options
        progress = Progress("retrieval", len(passages), "passages read", patient=True)

        def texts() -> Iterable[str]:
            for passage in passages:
                yield f"{passage.title}\n{passage.text}"
                progress.advance()

        words = words_of(texts(), options)
        if not any(words):
            raise InputError(
                f"{', '.join(options.passages)}: expected passages with words in them to look for, "
                f"got {len(passages)} passages without any"
            )
        self._index = BM25(
            method=options.method, k1=options.k1, b=options.b, delta=options.delta, dtype="float64"
        )
        self._index.index(words, create_empty_token=False, show_progress=False)

    def find(self, questions: Sequence[str], k: int) -> list[list[Document]]:
        """The best `k` passages for each question, best first; ties stand as the passages do.

        Only passages that share a word with the question are found, so that there may be fewer
        than `k`, and none at all for a question without any known word.
        """
        progress = Progress("retrieval", len(questions), "questions", patient=True)
        found = []
        for words in words_of(questions, self._options):
            scores = self.scores(words).round(_DECIMALS)
            candidates = np.flatnonzero(scores > 0)
            # The sort is stable, and candidates stand in the order of the passages.
            best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
            found.append([self.passages[i] for i in best])
            progress.advance()
        return found

    def find_documents(self, examples: Sequence[Example], k: int) -> list[Example]:
        """The examples in their order; those without documents get the best `k` passages.

        How many get fewer, or none, is logged.
        """
        bare = [example for example in examples if not example.docs]
        if not bare:
            return list(examples)
        found = self.find([example.question for example in bare], k)
        without = sum(not docs for docs in found)
        few = sum(len(docs) < k for docs in found) - without
        notes = f", {few} fewer as no more share a word with them" if few else ""
        notes += f", {without} none as no passage has any of their words" if without else ""
        say(
            f"retrieval: {len(bare)} of {len(examples)} questions had no documents and got up "
            f"to {k} of {len(self.passages)} passages{notes}"
        )
        each = iter(found)
        return [e if e.docs else replace(e, docs=tuple(next(each))) for e in examples]

    def scores(self, words: Sequence[str]) -> NDArray[np.float64]:
        """The score of every passage for a question's words, [passages]; 0 for those with none.

        A word that the question has twice counts twice.
        """
        ids = self._index.get_tokens_ids(words)
        if not ids:
            return np.zeros(len(self.passages))
        scores: NDArray[np.float64] = self._index.get_scores_from_ids(ids)
        # BM25L and BM25+ give all passages something for each word; it changes no order.
        elsewhere = self._index.nonoccurrence_array
        return scores if elsewhere is None else scores - elsewhere[ids].sum()
