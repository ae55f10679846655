"""The one parser of answers: statements, and the citations in them, with character spans."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from citepipe.text.sentences import Span, Splitter

# ALCE reads `[` and digits, whatever follows them: of `[1, 2]` only `[1` is a citation.
_CITATION = re.compile(r"( ?)\[(\d+)(\]?)")
# A stop, and quotes or brackets that close with it.
_CLOSED = re.compile(r"[.!?…]['\")’”]*\s*$")
_GROUP = re.compile(r"\[ *\d+(?: *[,;] *\d+)+ *\]")
_NUMBER = re.compile(r"\d+")
_END = re.compile(r"""(?:[.!?][\s"'”’)\]»]*)+$|\s+$""")
_LONGEST_NUMBER = 18
_BEYOND_ALL_DOCUMENTS = 10**_LONGEST_NUMBER


class Citation(NamedTuple):
    """`[3]` in an answer: characters `[start, end)`, with the closing bracket if it follows at
    once, and the number as written."""

    start: int
    end: int
    number: int


class Statement(NamedTuple):
    """A sentence, or an item of a list: characters `[start, end)` of the cleaned answer.

    Attributes:
        text: the characters, citations included.
        citations: in the order of the text.
        last: the character that closes it: of a sentence its own last one, of an item the comma
            or the stop behind it; `len(answer)` if nothing does but the end of the answer.
    """

    start: int
    end: int
    text: str
    citations: tuple[Citation, ...]
    last: int

    @property
    def claim(self) -> str:
        """What is stated: the text without its citations."""
        return remove_citations(self.text).strip()


def is_list(dataset: str) -> bool:
    """Whether the answers of a dataset are comma-separated lists rather than sentences."""
    return dataset == "qampari"


def split_answer(answer: str, dataset: str, splitter: Splitter) -> list[Statement]:
    """The statements of a cleaned answer (`clean_output`), as ALCE's `compute_autoais` splits it.

    Sentences are what the splitter finds. A citation behind the final stop (`... Paris. [1]`)
    begins the next sentence, or is one by itself, as in ALCE. A list loses trailing spaces, then
    stops, then commas, and is cut at its commas; empty items stay, so that the empty list is one
    empty item.
    """
    if not is_list(dataset):
        spans = splitter(answer)
        closed = bool(_CLOSED.search(answer))
        return [
            _statement(answer, start, end, end - (closed or i < len(spans)))
            for i, (start, end) in enumerate(spans, 1)
        ]
    statements = []
    for start, end in _items(answer):
        item = answer[start:end]
        first = start + len(item) - len(item.lstrip())
        behind = max(first, start + len(item.rstrip()))
        last = end if answer[end : end + 1] in {",", "."} else len(answer)
        statements.append(_statement(answer, first, behind, last))
    return statements


def list_items(answer: str) -> list[str]:
    """The items of a list answer, stripped, empty ones included."""
    return [answer[start:end].strip() for start, end in _items(answer)]


def find_citations(text: str, offset: int = 0) -> tuple[Citation, ...]:
    """The citations of a text that begins at character `offset` of its answer."""
    if "[" not in text:
        return ()
    return tuple(
        Citation(offset + found.end(1), offset + found.end(), _number(found[2]))
        for found in _CITATION.finditer(text)
    )


def remove_citations(text: str) -> str:
    """The text without its citations, as ALCE's `remove_citations` leaves it.

    `[12` goes with one space in front of it; every `]` goes, also one that closes no citation,
    and so does every ` |`. Of `[1, 2]` the text `, 2` stays.
    """
    return _CITATION.sub(r"\3", text).replace(" |", "").replace("]", "")


def renumber_citations(text: str, renumber: Callable[[int], int | None]) -> str:
    """The text with other numbers in its whole citations `[n]`; where `renumber` returns None, the
    citation goes with one space in front of it. `[1, 2]` and an open `[1` stay."""

    def rewritten(citation: re.Match[str]) -> str:
        space, digits, closed = citation.groups()
        number = renumber(_number(digits)) if closed else digits
        return "" if number is None else f"{space}[{number}{closed}"

    return _CITATION.sub(rewritten, text)


def with_citations(sentence: str, docs: Sequence[int]) -> str:
    """A sentence with citations in front of its final stop, as ALCE's demonstrations have them.

    A stop inside of closing quotation marks or brackets is the final one too: a citation behind
    them would begin a sentence of its own. Document 0 is cited as [1].
    """
    if not docs:
        return sentence
    body = _END.sub("", sentence)
    end = sentence[len(body) :].strip()
    stop = end if any(mark in end for mark in ".!?") else f"{end}."
    return f"{body} {''.join(f'[{d + 1}]' for d in docs)}{stop}"


def separate_groups(text: str) -> str:
    """The text with `[1, 2]` as `[1][2]`: ALCE reads only the first of the two."""
    return _GROUP.sub(lambda group: "".join(f"[{n}]" for n in _NUMBER.findall(group[0])), text)


def keep_years(text: str) -> str:
    """The text with `[2012]` as `(2012)`: ALCE reads a document's number."""
    return _CITATION.sub(
        lambda found: f"{found[1]}({found[2]})" if len(found[2]) == 4 and found[3] else found[0],
        text,
    )


def _items(answer: str) -> Iterator[Span]:
    start = 0
    for item in answer.rstrip().rstrip(".").rstrip(",").split(","):
        yield start, start + len(item)
        start += len(item) + 1


def _statement(answer: str, start: int, end: int, last: int) -> Statement:
    text = answer[start:end]
    return Statement(start, end, text, find_citations(text, start), last)


def _number(digits: str) -> int:
    # Python refuses to read integers of thousands of digits; no example has so many documents.
    return int(digits) if len(digits) <= _LONGEST_NUMBER else _BEYOND_ALL_DOCUMENTS
