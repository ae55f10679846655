"""The words of a text as BM25 counts them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from citepipe.options import RetrievalOptions

# A run of letters, digits and the marks that belong to letters (Python's \w leaves out the vowel
# signs of Indic scripts). Of scripts without spaces every character is a word.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f"
_MARKS += "\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09cd\u0a01-\u0a03\u0a3c-\u0a4d"
_MARKS += "\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b4d\u0b82\u0bbe-\u0bcd\u0c00-\u0c04"
_MARKS += "\u0c3e-\u0c4d\u0c81-\u0c83\u0cbc-\u0ccd\u0d00-\u0d03\u0d3e-\u0d4d"
UNSPACED = "\u0e01-\u0e5b\u0e81-\u0edf\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
UNSPACED += "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese characters, as the inside of a regex's class."""

_WORD = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}_])[\w{_MARKS}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")


class WordReader:
    """Cuts texts into words: compatible characters made one (NFKC), case folded, stop words left
    out, stemmed, and without accents.

    Args:
        options: the stemmer and the stop words.
    """

    def __init__(self, options: RetrievalOptions) -> None:
        self._stem = _stemmer(options.stemmer)
        self._stop = frozenset(map(_folded, _stop_words(options.stop_words)))
        # What a word that was met before counts as; None for a stop word. Stemming one takes
        # longer than all else, and a language has few.
        self._known: dict[str, str | None] = {}

    def __call__(self, text: str) -> list[str]:
        """The words in their order."""
        folded = _folded(text)
        found = (_ASCII_WORD if folded.isascii() else _WORD).findall(folded)
        known = self._known
        for raw in set(found).difference(known):
            known[raw] = None if raw in self._stop else _without_accents(self._stem(raw) or raw)
        return [word for raw in found if (word := known[raw]) is not None]


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _without_accents(word: str) -> str:
    """`zürich` as `zurich`: people ask without accents. A word of nothing else stays."""
    if word.isascii():
        return word
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", word))
    return unicodedata.normalize("NFC", bare) or word


def _stemmer(language: str | None) -> Callable[[str], str]:
    if language is None:
        return str
    # NLTK takes a second to import.
    from nltk.stem.snowball import SnowballStemmer

    if language != "arabic":
        stem: Callable[[str], str] = SnowballStemmer(language).stem
        return stem
    # The Arabic stemmer remembers things of the word before.
    return lambda word: str(SnowballStemmer(language).stem(word))


def _stop_words(chosen: str | list[str] | None) -> tuple[str, ...]:
    if chosen is None:
        return ()
    if isinstance(chosen, list):
        return tuple(chosen)
    from bm25s import stopwords

    name = "EN" if chosen == "english" else chosen.upper()
    return tuple(getattr(stopwords, f"STOPWORDS_{name}"))
