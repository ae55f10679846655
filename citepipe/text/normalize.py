"""What ALCE does to a text before it compares anything (its `utils.py` and `eval.py`)."""

from __future__ import annotations

import re
import string
from functools import lru_cache

_END_MARK = "<|im_end|>"
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower-case, without ASCII punctuation and the articles a, an, the, single-spaced."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def clean_output(raw: str) -> str:
    """The part of a generated answer that ALCE reads: stripped, up to its first newline, and
    without the mark `<|im_end|>`."""
    return raw.strip().partition("\n")[0].replace(_END_MARK, "")


def join_lines(text: str) -> str:
    """A text of several lines as one of the same length, so that all of it is read."""
    return text.replace("\n", " ")


def raw_char(raw: str, char: int) -> int:
    """Where character `char` of `clean_output(raw)` stands in `raw`. What stands behind its last
    one is what ends the answer: the first line's end, or `len(raw)`, the end of the text."""
    kept = _kept(raw)
    return kept[min(char, len(kept) - 1)]


@lru_cache(maxsize=16)
def _kept(raw: str) -> list[int]:
    """The places in a text of what cleaning leaves, then that of what ends it."""
    marks = {i for mark in re.finditer(re.escape(_END_MARK), raw) for i in range(*mark.span())}
    first = len(raw) - len(raw.lstrip())
    end = raw.find("\n", first)
    kept = [i for i in range(first, len(raw)) if i not in marks]
    return [*kept[: len(clean_output(raw))], end if end >= 0 else len(raw)]
