"""BM25 as a textbook has it, in plain Python: the retriever is compared with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def plain_scores(
    passages: Sequence[Sequence[str]], question: Sequence[str], k1: float, b: float, method: str
) -> list[float]:
    """The score of each passage; passages and question are lists of words.

    The formulas are those of Kamphuis et al. (2020), table 1. For BM25L and BM25+ what a passage
    without the word gets is taken off, so that one without any of the words has 0.
    """
    mean = sum(map(len, passages)) / len(passages)
    counts = [Counter(passage) for passage in passages]
    scores = [0.0] * len(passages)
    for word in question:
        frequency = sum(word in count for count in counts)
        if not frequency:
            continue
        for place, (passage, count) in enumerate(zip(passages, counts, strict=True)):
            norm = 1 - b + b * len(passage) / mean
            part = _weight(count[word], norm, k1, method) - _weight(0, norm, k1, method)
            scores[place] += _idf(len(passages), frequency, method) * part
    return scores


def _idf(total: int, frequency: int, method: str) -> float:
    odds = (total - frequency + 0.5) / (frequency + 0.5)
    return {
        "lucene": math.log(1 + odds),
        "robertson": max(math.log(odds), 0),
        "atire": math.log(total / frequency),
        "bm25l": math.log((total + 1) / (frequency + 0.5)),
        "bm25+": math.log((total + 1) / frequency),
    }[method]


def _weight(count: int, norm: float, k1: float, method: str, delta: float = 0.5) -> float:
    if method == "bm25l":
        shown = count / norm + delta
        return (k1 + 1) * shown / (k1 + shown)
    saturated = count / (count + k1 * norm)
    if method == "bm25+":
        return (k1 + 1) * saturated + delta
    return (k1 + 1) * saturated if method == "atire" else saturated
