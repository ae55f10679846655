"""ROUGE-Lsum as ALCE computes it, with the tokens of Google's rouge-score.

rouge-score itself takes 11 ms for an answer of 100 words with two references, most of it in
tables of longest common subsequences between sentences that share a few words. Here words that
the other sentence lacks have no rows, a row is a whole number, and every word is stemmed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from rouge_score import tokenize

from citepipe.text.lean import lean_imports
from citepipe.text.sentences import Splitter

with lean_imports():
    from nltk.stem.porter import PorterStemmer

Tokens = tuple[str, ...]


class Rouge:
    """Scores answers against references in lower case; `splitter` finds sentences."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        # rouge-score's tokenizer stems with whatever has a method `stem`.
        self.stem = lru_cache(1 << 17)(PorterStemmer().stem)
        self._tokens = lru_cache(1 << 14)(lambda line: tuple(tokenize.tokenize(line, self)))

    def lsum(self, text: str, references: Sequence[str]) -> float:
        """The best F-measure, from 0 to 1, of an answer without citations over its references, of
        which ASQA has two."""
        answer = self._sentences(text)
        return max(f_measure(self._sentences(reference), answer) for reference in references)

    def _sentences(self, text: str) -> list[Tokens]:
        lower = text.lower()
        spans = self._splitter(lower)
        return [self._tokens(line) for a, b in spans for line in lower[a:b].split("\n") if line]


def f_measure(reference: Sequence[Tokens], answer: Sequence[Tokens]) -> float:
    """Summary-level ROUGE-L (Lin 2004, section 3.2), as rouge-score's `_summary_level_lcs`.

    A word of a reference sentence is hit if it belongs to its longest common subsequence with
    some sentence of the answer; no word is hit more often than it stands on either side.
    """
    left, right = (Counter(token for s in side for token in s) for side in (reference, answer))
    hits: Counter[str] = Counter()
    for sentence in reference:
        found = {i for other in answer for i in common_subsequence(sentence, other)}
        hits.update(sentence[i] for i in found)
    count = (hits & right).total()
    # Twice the words in common over the words of both.
    return 2 * count / (left.total() + right.total()) if count else 0.0


def common_subsequence(reference: Tokens, other: Tokens) -> list[int]:
    """Where a longest common subsequence stands in `reference`: the one that rouge-score reads out.

    Of several it is the one found from the end by going back in the reference wherever that loses
    nothing; so words that only the reference has can be left out of the table. Of a row of the
    table, the bits are 0 where it grows by one (Hyyrö 2004): a word costs four operations and not
    one per word of `other`.
    """
    whole = (1 << len(other)) - 1
    places: dict[str, int] = {}
    for j, token in enumerate(other):
        places[token] = places.get(token, 0) | 1 << j
    rows = [i for i, token in enumerate(reference) if token in places]
    table = [whole]
    for i in rows:
        above = table[-1]
        met = above & places[reference[i]]
        table.append((above + met | above - met) & whole)

    def length(i: int, j: int) -> int:
        return j - (table[i] & (1 << j) - 1).bit_count()

    found = []
    i, j = len(rows), len(other)
    while i and j:
        if reference[rows[i - 1]] == other[j - 1]:
            i, j = i - 1, j - 1
            found.append(rows[i])
        elif length(i, j - 1) > length(i - 1, j):
            j -= 1
        else:
            i -= 1
    return found
