"""ROUGE-Lsum as ALCE computes it, with the tokens of Google's rouge-score.

rouge-score itself takes 11 ms for an answer of 100 words with two references, most of it in
tables of longest common subsequences between sentences that share a few words. Here the tables
have only the words that both sentences have, and every word is stemmed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from nltk.stem.porter import PorterStemmer
from rouge_score import tokenize

from citepipe.text.sentences import Splitter

Tokens = tuple[str, ...]


class Rouge:
    """Scores answers against references in lower case; `splitter` finds sentences."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self._tokens = lru_cache(1 << 14)(self._tokenized)
        self.stem = lru_cache(1 << 17)(PorterStemmer().stem)

    def lsum(self, text: str, references: Sequence[str]) -> float:
        """The best F-measure, from 0 to 1, of an answer without citations over its references, of
        which ASQA has two."""
        answer = self._sentences(text)
        return max(f_measure(self._sentences(reference), answer) for reference in references)

    def _sentences(self, text: str) -> list[Tokens]:
        lower = text.lower()
        spans = self._splitter(lower)
        return [self._tokens(line) for a, b in spans for line in lower[a:b].split("\n") if line]

    def _tokenized(self, sentence: str) -> Tokens:
        # rouge-score's tokenizer stems with whatever has a method `stem`.
        return tuple(tokenize.tokenize(sentence, self))


def f_measure(reference: Sequence[Tokens], answer: Sequence[Tokens]) -> float:
    """Summary-level ROUGE-L (Lin 2004, section 3.2), as rouge-score's `_summary_level_lcs`.

    A word of a reference sentence is hit if it belongs to its longest common subsequence with
    some sentence of the answer; no word is hit more often than it stands on either side.
    """
    left, others_left = (
        Counter(token for s in side for token in s) for side in (reference, answer)
    )
    total, others = left.total(), others_left.total()
    if not total or not others:
        return 0.0
    hits = 0
    for sentence in reference:
        found = {i for other in answer for i in common_subsequence(sentence, other)}
        for token in (sentence[i] for i in sorted(found)):
            if left[token] > 0 and others_left[token] > 0:
                hits += 1
                left[token] -= 1
                others_left[token] -= 1
    recall, precision = hits / total, hits / others
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def common_subsequence(reference: Tokens, other: Tokens) -> list[int]:
    """Where a longest common subsequence stands in `reference`: the one that rouge-score reads out.

    Of several it is the one found from the end by going back in the reference wherever that loses
    nothing. Words that only one side has are left out of the table, which does not change the way
    back but in one respect: behind each run of words that only `other` has, one goes back in the
    reference as far as nothing is lost.
    """
    words, shared = set(reference), set(other)
    rows = [i for i, token in enumerate(reference) if token in shared]
    if not rows:
        return []
    columns: list[str] = []
    run_behind = [False]
    for token in other:
        if token in words:
            columns.append(token)
            run_behind.append(False)
        else:
            run_behind[-1] = True
    table = [[0] * (len(columns) + 1)]
    for i in rows:
        above, row, token = table[-1], [0], reference[i]
        for j, column in enumerate(columns):
            row.append(above[j] + 1 if token == column else max(above[j + 1], row[j]))
        table.append(row)
    found = []
    i, j, came = len(rows), len(columns), True
    while i > 0 and j > 0:
        if came and run_behind[j]:
            while i > 0 and table[i][j] == table[i - 1][j]:
                i -= 1
            if i == 0:
                break
        came = True
        if reference[rows[i - 1]] == columns[j - 1]:
            found.append(rows[i - 1])
            i, j = i - 1, j - 1
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i, came = i - 1, False
    return found
