"""When two questions are the same."""

from __future__ import annotations

import re
import unicodedata

_SPACE = re.compile(r"\s+")


def normalized_question(question: str) -> str:
    """What is compared of a question: its letters and digits.

    Without case, punctuation, symbols, invisible characters and repeated spaces, and whichever
    of several ways of writing a character Unicode has. A question of which nothing would be left
    (`?!`) stays as it is.
    """
    folded = unicodedata.normalize("NFKC", question)
    folded = unicodedata.normalize("NFKC", folded.casefold())
    # Marks stay: in many scripts they are the vowels.
    plain = "".join(_shown(character) for character in folded)
    return _SPACE.sub(" ", plain).strip() or _SPACE.sub(" ", folded).strip()


def _shown(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    return " " if kind[0] in "PSZC" else character
