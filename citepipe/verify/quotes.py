"""Sentences that are quoted word for word, in any language; and whether a text is in English.

A text is compared by what would change its meaning: its words, numbers and symbols in their order,
and where its sentences end. Case and punctuation are left out, but for points and signs of numbers.
"""

from __future__ import annotations

import re
import runpy
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

# Words before whose stop no sentence ends, though a capital may follow.
_HONORIFICS = """
mr mrs ms dr prof sir dame lord lady president king queen prince princess saint st pope captain
general colonel senator judge
"""
HONORIFICS = frozenset(_HONORIFICS.split())
# Languages of Latin letters that spaCy has stop words of.
_LANGUAGES = (
    "en af ca cs da de es et eu fi fr ga hr hu id is it lt lv nb nl pl pt ro sk sl sq sv tl tr vi"
)
# Scripts without spaces between words; in the second group a space may end a sentence.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_SPACE_ENDS = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
_MARKS, _OTHER_MARKS = ".!?…", "。！？।॥؟۔։።។៕"
# Begins with one set of characters, which are searched ten times as fast as alternatives.
_END = re.compile(
    rf"[{_MARKS}{_OTHER_MARKS}\n \u200b](?:(?<=[{_MARKS}])[{_MARKS}]*[\"'”’»)\]]*(?=\s|$)|"
    rf"(?<=[{_OTHER_MARKS}])[{_OTHER_MARKS}]*[」』”’）]*|(?<=\n)|"
    rf"(?<={_SPACE_ENDS}[ \u200b])[ \u200b]*(?={_SPACE_ENDS}))"
)
# Points, apostrophes and signs stay where they are parts of numbers and words.
_PUNCTUATION = re.compile(
    r"[.,:/](?!(?<=\d.)\d)|'(?!(?<=\w.)\w)|-(?!(?<![\w)\]].)\d)"
    r'|[!"()*;?\[\\\]_`{|}~¡§«¶·»¿،؛\u2010-\u2027\u2030-\u205e\u3001-\u303f！-／：-？［-｠]'
)
_NO_WORD = re.compile(r"\W+")
_LETTER = re.compile(r"[^\W\d_]")
_OTHER_LETTER = re.compile(r"[^\W\d_\0-\u024f]")  # than Latin
_WORD = re.compile(r"\b[^\W\d_A-Z][^\W\d_]+")
_SHORTEST = 4  # characters of a sentence without spaces
_MARKED = "\t"
# An item of a list is a sentence, though a heading is none.
_BULLET = re.compile(r"^\s*(?:[-*•–]|\d\d?[.)])\s+", re.MULTILINE)


class Quotable(NamedTuple):
    """A text as it is compared: its sentences in small letters, one space between two words, a line
    break around each, and a tab behind those that a mark ends, and not only a line."""

    text: str

    @property
    def sentences(self) -> list[Quotable]:
        """Its sentences, each by itself."""
        return [Quotable(f"\n{line}\n") for line in self.text.split("\n") if line]

    def holds(self, quoted: Quotable, whole: bool) -> bool:
        """Whether sentences stand in it, whole ones (the last of them with its mark) or lines."""
        return quoted.text.rstrip() + (_MARKED if whole else "") + "\n" in self.text

    def says_more(self, title: Quotable) -> bool:
        """Whether it is more than a word, and more than a title."""
        words = self.text.split()
        if len(words) == 1:
            return self.text != title.text and len(UNSPACED.findall(words[0])) >= _SHORTEST
        return not set(words) <= set(title.text.split())


def read_quotable(text: str, cut: bool = False) -> Quotable:
    """A text as it is compared; of a passage that may be `cut` from a text, what stands before its
    first whole sentence is left out."""
    text = unicodedata.normalize("NFC", text).replace("’", "'").replace("−", "-")
    text = _BULLET.sub("• ", text)
    lines = []
    for start, end, stop in sentences(text):
        line = text[start:end]
        words = _PUNCTUATION.sub(" ", line).split()
        if words:
            marked = bool(stop) or line.startswith("•")
            lines.append(" ".join(words).casefold() + (_MARKED if marked else ""))
    first = _LETTER.search(text)
    cut = cut and first is not None and first[0].islower()
    return Quotable("".join(f"\n{line}" for line in lines[cut:]) + "\n")


def sentences(text: str) -> Iterator[tuple[int, int, str]]:
    """The sentences of a text in any language: characters `[start, end)`, and the mark behind."""
    start = 0
    for end in _END.finditer(text):
        mark = end[0].strip("\n \u200b")
        if not mark or _ends(text, end):
            yield start, end.start(), mark
            start = end.end()
    yield start, len(text), ""


def _ends(text: str, mark: re.Match[str]) -> bool:
    """Whether a mark ends a sentence: no stop of an initial, of `Dr.`, or before a small letter."""
    after = _LETTER.search(text, mark.end(), mark.end() + 9)
    if after is not None and after[0].islower():
        return False
    if mark[0] != ".":
        return True
    before = _NO_WORD.split(text[max(mark.start() - 20, 0) : mark.start()])[-1]
    initial = len(before) == 1 and before.isupper()
    return not initial and before.lower() not in HONORIFICS


@cache
def _languages() -> dict[str, list[str]]:
    """The languages in which a word is one of those that are most frequent."""
    # spaCy's lists are files of their own; it takes half a second to import.
    folder = str(distribution("spacy").locate_file("spacy/lang"))
    spoken: dict[str, list[str]] = {}
    for language in _LANGUAGES.split():
        path = Path(folder, language, "stop_words.py")
        for word in runpy.run_path(str(path))["STOP_WORDS"]:
            spoken.setdefault(word, []).append(language)
    return spoken


def is_frequent(word: str) -> bool:
    """Whether a word in small letters is one of the most frequent of English."""
    return "en" in _languages().get(word, ())


def is_english(text: str) -> bool:
    """Whether no other language has more of a text's words among its frequent ones, and most of
    its letters are Latin."""
    others = len(_OTHER_LETTER.findall(text))
    if others and 2 * others > len(_LETTER.findall(text)):
        return False
    spoken, counts = _languages(), Counter[str]()
    words = Counter(_WORD.findall(text))
    for word in words.keys() & spoken.keys():
        for language in spoken[word]:
            counts[language] += words[word]
    return max(counts.values(), default=0) <= max(counts["en"], 1)
