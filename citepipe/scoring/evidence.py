"""The sentence of the documents that a statement stands or falls with, for people to read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from citepipe.data.example import Example
from citepipe.verify.quotes import UNSPACED, sentences

_LONGEST = 400
_WORD = re.compile(r"[^\W\d]\w*|\d{3,}\w*")
_ARTICLES = frozenset({"a", "an", "the"})


def passage_of(example: Example, statement: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the documents that a statement (of `verdict_records`) cites, or that support it elsewhere,
    or of all if there are none of these: the sentence that has most of its words, the longer ones
    for more, with the `document`'s number and title; None if none has any."""
    numbers = statement.get("elsewhere") or statement["cited"]
    docs = [n for n in dict.fromkeys(numbers) if 1 <= n <= len(example.docs)]
    words, best, most = words_of(statement["text"]), None, 0
    for number in docs or range(1, len(example.docs) + 1):
        doc = example.docs[number - 1]
        for sentence, own in _sentences(doc.text if doc.sent is None else doc.sent):
            common = sum(map(len, words & own))
            if common > most:
                best, most = {"document": number, "title": doc.title, "text": sentence}, common
    return best


def coverage(text: str, passage: Mapping[str, Any] | None) -> float:
    """The share of a text's words that a passage has."""
    words = words_of(text)
    return len(words & words_of(passage["text"])) / len(words) if words and passage else 0.0


def words_of(text: str) -> frozenset[str]:
    """The words of a text as they are compared, articles and short numbers apart; of scripts
    without spaces the characters."""
    return frozenset(_WORD.findall(UNSPACED.sub(r" \g<0> ", text.lower()))) - _ARTICLES


@lru_cache(maxsize=4096)
def _sentences(text: str) -> list[tuple[str, frozenset[str]]]:
    # By its marks: the splitters of answers take longer than all else in scoring.
    found = [(text[start:end] + stop).strip() for start, end, stop in sentences(text)]
    return [(sentence[:_LONGEST], words_of(sentence)) for sentence in found]
