"""What ALCE does to a text before it compares anything (its `utils.py` and `eval.py`)."""

from __future__ import annotations

import re
import string

END_MARK = "<|im_end|>"
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")


def normalize_answer(text: str) -> str:
    """Lower-case, without ASCII punctuation and the articles a, an, the, single-spaced."""
    return " ".join(_ARTICLE.sub(" ", _PUNCTUATION.sub("", text.lower())).split())


def clean_output(raw: str) -> str:
    """The part of a generated answer that ALCE reads: stripped, up to its first newline, and
    without the mark `<|im_end|>`."""
    return raw.strip().partition("\n")[0].replace(END_MARK, "")
