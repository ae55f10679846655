"""Texts cut into passages of so many words, at the ends of paragraphs and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from citepipe.retrieve.texts import Paragraph
from citepipe.retrieve.words import UNSPACED
from citepipe.text.sentences import Splitter

# What has no spaces for long is no word: it is cut as one must, like a sentence of many words.
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]{{1,100}}")
_STOP = re.compile(r"(?<=[。！？])")


class _Unit(NamedTuple):
    """What is not cut again: a sentence, or an item of a list."""

    text: str
    words: int
    begins_paragraph: bool


def count_words(text: str) -> int:
    """Words between spaces; of scripts without spaces every character counts."""
    return sum(1 for _ in _WORD.finditer(text))


def cut(paragraphs: Sequence[Paragraph], words: int, overlap: int, splitter: Splitter) -> list[str]:
    """Passages of at most `words` words.

    A passage ends with a paragraph if it then has at least half of the words, else with a
    sentence. Only a sentence that is longer than a passage is cut inside, into equal parts.

    Args:
        paragraphs: the text.
        words: the most words of a passage.
        overlap: a passage begins with the last sentences of the one before, as far as they have
            no more words than this, and leave room for one more sentence.
        splitter: where sentences end.
    """
    whole = " ".join(block for paragraph in paragraphs for block in paragraph)
    if count_words(whole) <= words:
        return [whole] if whole else []
    return list(_fill(list(_units(paragraphs, words, splitter)), words, overlap))


def _units(paragraphs: Sequence[Paragraph], words: int, splitter: Splitter) -> Iterator[_Unit]:
    for paragraph in paragraphs:
        begins = True
        for block in paragraph:
            for sentence in _sentences(block, splitter):
                for part in _parts(sentence, words):
                    yield _Unit(part, count_words(part), begins)
                    begins = False


def _sentences(block: str, splitter: Splitter) -> Iterator[str]:
    """Sentences; what has no letter, as the number of an item, stands with the one behind it."""
    held: list[str] = []
    for start, end in splitter(block):
        for sentence in filter(None, _STOP.split(block[start:end])):
            held.append(sentence)
            if any(map(str.isalpha, sentence)):
                yield " ".join(held)
                held = []
    if held:
        yield " ".join(held)


def _parts(sentence: str, words: int) -> Iterator[str]:
    places = [match.span() for match in _WORD.finditer(sentence)]
    if len(places) <= words:
        yield sentence
        return
    parts = -(-len(places) // words)
    size = -(-len(places) // parts)
    for first in range(0, len(places), size):
        part = places[first : first + size]
        yield sentence[part[0][0] : part[-1][1]]


def _fill(units: Sequence[_Unit], words: int, overlap: int) -> Iterator[str]:
    begin = done = 0
    while done < len(units):
        end, count = begin, 0
        while end < len(units) and count + units[end].words <= words:
            count += units[end].words
            end += 1
        if end < len(units):
            end = _paragraph_end(units, done, end, count, words)
        yield " ".join(unit.text for unit in units[begin:end])
        # The next passage goes back a little, but has to have something new.
        first, begin, done = begin, end, end
        repeated = 0
        while end < len(units) and begin - 1 > first:
            repeated += units[begin - 1].words
            if repeated > min(overlap, words - units[end].words):
                break
            begin -= 1


def _paragraph_end(units: Sequence[_Unit], done: int, end: int, count: int, words: int) -> int:
    """The last end of a paragraph with at least half of the words before it; else `end`."""
    for stop in range(end, done, -1):
        if 2 * count < words:
            break
        if units[stop].begins_paragraph:
            return stop
        count -= units[stop - 1].words
    return end
