"""Citations as people and models write them: `[1]`, `[1-3]`, `【1†source】`, `(Doc 1, Doc 2)`, …

Only the sane rules read all of these; ALCE's read `[` and digits (`statements.py`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from citepipe.text.normalize import normalize_answer

Style = Literal["brackets", "superscripts", "parentheses"]
"""Superscripts and bare numbers in parentheses are citations only where an answer has no others."""

_NAMES = (
    r"(?:(?:search\s+)?results?|documents?|docs?|sources?|src|references?|refs?|passages?"
    r"|citations?|cites?|web|contexts?|chunks?|snippets?|evidence|excerpts?|articles?"
    r"|quellen?|dokumente?|documentos?|fuentes?|文[档献書]|资料|資料|来源|出典)"
)
_NAMED = rf"{_NAMES}(?:[\s.:_#-]|no\.?(?=[\s\d])|nr\.?(?=[\s\d]))*+"
_DASH = r"[-–—−‐‑~〜～]|to|through|thru|bis"
_COMMA = r"[,;，、；|]"
_AND = r"and|or|und|oder|et|y|&|和|与|與|及"
_SEPARATOR = rf"\s*+(?:(?:{_COMMA}\s*)?(?:{_AND})|{_COMMA}|{_DASH})\s*+|\s++"
_ITEM = rf"(?:[\^#]|[DSP](?=\d)|{_NAMED})?\s*+\d++"
_ITEMS = rf"{_ITEM}(?:(?:{_SEPARATOR}){_ITEM}){{0,50}}+"
_PAGE = r"(?:\s*[,:;]?\s*(?:pp?\.|pages?|§+|paras?\.?|sections?|sec\.|lines?)\s*[\d–-]++)?"
_ADDRESS = r'(?:https?:|www\.|#|/|\.)[^()\s]*+(?:\([^()\s]*\)[^()\s]*+)*(?:\s+"[^"\n]*")?'
_FLAGS = re.IGNORECASE
# `[4:1†source]` is source 1 of message 4; behind a document's name its title may follow.
_BRACKET = re.compile(
    rf"(?P<twice>\[(?:{_NAMES}\s*)?(?=\[))?\\?[\[【［〔]\s*(?:see\s+|n[or]\.\s*)?(?:\d+:(?=\d+†))?"
    rf"(?P<items>(?P<named>(?={_NAMES}))?{_ITEMS})"
    rf"(?:†[^\]】\n]{{0,60}}|{_PAGE}|(?(named)\s*[,:.–—-]\s*[^\[\]【】\d\n][^\[\]【】\n]{{0,100}}|))"
    rf"\s*\\?[\]】］〕](?(twice)\])(?:\((?:Title:[^()\n]*|{_ADDRESS})\))?",
    _FLAGS,
)
# Cut off, or closed by nothing but the stop.
_OPEN = re.compile(r"\[(\d{1,3})(?=\s*(?:[.!?。](?!\S)|\Z))")
_LEAD = r"(?:(?:see|cf\.?|from|per|via|according\s+to)\s+)?"
_WRAP = re.compile(rf"[(（]\s*{_LEAD}(?:{_NAMES}\s*:?\s*)?(?=[\[【［〔\\])", _FLAGS)
_NAMED_PAIR = re.compile(
    rf"[(（]\s*{_LEAD}(?:{_NAMES}\s*:\s*)?(?P<items>(?={_NAMES}|\#){_ITEMS})(?:{_PAGE}|[,:][^()（）\n]{{1,100}})\s*[)）]",
    _FLAGS,
)
_JOIN = re.compile(
    rf"[ \t]*(?:(?:{_COMMA}[ \t]*)?(?:{_AND})[ \t]*|{_COMMA}|{_DASH})?[ \t]*", _FLAGS
)
# What most citations are, with nothing behind them that goes on with them.
_PLAIN = re.compile(r"\[\d{1,3}\](?![(\]])")
_PLAIN_RUN = re.compile(
    rf"(?:\[\d{{1,3}}\])+(?![(\]]"
    rf"|[ \t]*(?:{_COMMA}|{_AND}|{_DASH})*[ \t]*(?:{_AND})?[ \t]*\\?[\[【［〔])",
    _FLAGS,
)
_SPACE = re.compile(r"[ \t]*")
_CLOSE = re.compile(r"\s*[)）]")
_MARKS = re.compile(r"(?:<sup>|\*\*?|__?|`|\^)\Z")
_SOURCE = re.compile(r"(?<!\w)(?:sources?|references?|refs?|citations?)\s*:\s*\Z", _FLAGS)
_LINK = re.compile(rf"(?<!!)\[([^\[\]\n]+)\]\({_ADDRESS}\)")
_IMAGE = re.compile(r"!\[[^\[\]\n]*\]\([^()\n]*\)")
_OPENING = re.compile(r"!?[\[【［〔(（]|\\\[")
_NUMBER = re.compile(r"\d+")
_IS_DASH = re.compile(rf"{_DASH}", _FLAGS)
_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
# Behind a word, not a unit (km²), or a stop.
_SUPERSCRIPT = re.compile(
    r"""(?:(?<=[^\W\d_]{3})|(?<=[12]\d{3})|(?<=[\].!?…,;:)"'”’»。！？]))\s?"""
    r"(?:(?P<high>[⁰¹²³⁴-⁹]+(?:[,⁻˒][⁰¹²³⁴-⁹]+)*)"
    r"|<sup>\s*(?P<low>\d+(?:\s*[,–-]\s*\d+)*)\s*</sup>)"
)
_PAIR = re.compile(r"(?<![\^_$])[(（{]\s*(\d{1,2}(?:\s*[,;–-]\s*\d{1,2})*)\s*[)）}]")
_ENDS = re.compile(r"\s*(?:[.!?,;:。！？，、]|\Z|\n|[(（]\d)")
_LAST = re.compile(r"\s*[)）]?\s*(?:[.!?。]|\Z)")
_AFTER_STOP = re.compile(r"""[.!?。！？]["'”’)]*\s*\Z""")
_WORDED = re.compile(
    r"\b(?:documents?|docs?|sources?|passages?|references?)\s+(?:no\.?\s*|#\s*)?\d{1,2}\b", _FLAGS
)
_UNREAD = re.compile(r"[\[【](?:p\.\s*\d{1,3}|\d{1,3}[^\W\d_])[\]】]|(?<![\^_$])\{\d{1,2}\}")
_LONGEST_NUMBER = 18
_BEYOND_ALL_DOCUMENTS = 10**_LONGEST_NUMBER
_WIDEST_RANGE = 50


class Citation(NamedTuple):
    """One document cited: characters `[start, end)` of the answer, up to the closing bracket, and
    the document's number. Several in one bracket have the same place."""

    start: int
    end: int
    number: int


class Notation(NamedTuple):
    """Citations that stand together: characters `[start, end)` that belong to no statement's words,
    and whether they are anything else than `[1][2]`."""

    start: int
    end: int
    citations: tuple[Citation, ...]
    is_odd: bool


class Found(NamedTuple):
    """What was found in a text: citations, what else is only notation (of links), and notes."""

    notations: list[Notation]
    cuts: list[tuple[int, int]]
    notes: set[str]


def find(
    text: str,
    start: int,
    end: int,
    titles: Sequence[str] = (),
    style: Style = "brackets",
    listing: bool = False,
) -> Found:
    """The citations in characters `[start, end)` of a text.

    Args:
        titles: of the documents, by which a link or the number in a superscript is understood.
        style: of which kind.
        listing: a comma between two brackets divides items.
    """
    found = Found([], [], set())
    if style == "superscripts":
        for match in _SUPERSCRIPT.finditer(text, start, end):
            numbers = match["low"] or match["high"].translate(_DIGITS).replace("⁻", "-")
            if numbers.isdecimal() and as_number(numbers) > len(titles) and "0" not in numbers:
                # ¹² of five documents are 1 and 2.
                numbers = ",".join(numbers)
            group = match.start("low" if match["low"] else "high"), match.end()
            _add(found, match.start(), match.end(), _numbered(numbers, *group, found.notes), True)
    elif style == "parentheses":
        for match in _PAIR.finditer(text, start, end):
            citations = _numbered(match[1], *match.span(), found.notes)
            if not all(1 <= c.number <= len(titles) for c in citations) or not (
                _ENDS.match(text, match.end(), end)
                or _AFTER_STOP.search(text, max(start, match.start() - 9), match.start())
            ):
                return Found([], [], set())
            _add(found, *match.span(), citations, True)
    else:
        _find_brackets(found, text, start, end, titles, listing)
    return found


def _find_brackets(
    found: Found, text: str, start: int, end: int, titles: Sequence[str], listing: bool
) -> None:
    behind = start
    for opening in _OPENING.finditer(text, start, end):
        at = opening.start()
        if at < behind:
            continue
        if opening[0] in "(（":
            behind = _parenthesis(found, text, at, end, listing) or behind
        elif notation := _run(found.notes, text, at, end, listing):
            if (
                text[notation.start - 1 : notation.start] in {" ", "\n"}
                and ":" in text[max(start, at - 3) : at]
                and (source := _SOURCE.search(text, max(start, at - 20), at))
            ):
                notation = notation._replace(start=source.start(), is_odd=True)
            elif marks := _MARKS.search(text, max(start, at - 5), at):
                closing = marks[0].replace("<", "</").replace("^", "")
                if text.startswith(closing, notation.end, end):
                    behind = notation.end + len(closing)
                    notation = notation._replace(start=marks.start(), end=behind, is_odd=True)
            found.notations.append(notation)
            behind = notation.end
        elif image := _IMAGE.match(text, at, end):
            found.cuts.append(image.span())
            behind = image.end()
        elif link := _LINK.match(text, at, end):
            behind = link.end()
            found.cuts.extend([(at, at + 1), (link.end(1), link.end())])
            # In the middle of a sentence it is just a link.
            is_behind = _AFTER_STOP.search(text, max(start, at - 9), at)
            number = _titled(link[1], tuple(titles))
            if number and (is_behind or _LAST.match(text, behind, end)):
                cited = (Citation(at, behind, number),)
                if is_behind:
                    _add(found, at, behind, cited, True)
                else:
                    found.notations.append(Notation(link.end(1), behind, cited, True))


def _parenthesis(found: Found, text: str, at: int, end: int, listing: bool) -> int:
    """Add the citations of a parenthesis of nothing else; returns where it ends, or 0."""
    if (
        (wrap := _WRAP.match(text, at, end))
        and (notation := _run(found.notes, text, wrap.end(), end, listing))
        and (close := _CLOSE.match(text, notation.end, end))
    ):
        _add(found, at, close.end(), notation.citations, True)
        return close.end()
    if named := _NAMED_PAIR.match(text, at, end):
        _add(found, *named.span(), _numbered(named["items"], *named.span(), found.notes), True)
        return named.end()
    return 0


def _run(notes: set[str], text: str, at: int, end: int, listing: bool) -> Notation | None:
    """The citations that begin at a bracket and those of brackets that follow it."""
    citations: list[Citation] = []
    if plain := _PLAIN_RUN.match(text, at, end):
        while at < plain.end():
            close = text.index("]", at) + 1
            citations.append(Citation(at, close, int(text[at + 1 : close - 1])))
            at = close
        return Notation(plain.start(), plain.end(), tuple(citations), False)
    begin, behind, is_odd, join = at, at, False, ""
    while at < end:
        own: tuple[Citation, ...] = ()
        if match := _PLAIN.match(text, at, end):
            own = (Citation(at, match.end(), int(match[0][1:-1])),)
        elif match := _BRACKET.match(text, at, end):
            own, is_odd = _numbered(match["items"], *match.span(), notes), True
        elif match := _OPEN.match(text, at, end):
            own, is_odd = (Citation(at, match.end(), int(match[1])),), True
        if not match or not own:
            break
        if citations and _IS_DASH.search(join):
            first, last = citations[-1].number, own[0].number
            between = range(first + 1, min(last, first + _WIDEST_RANGE))
            citations += [own[0]._replace(number=number) for number in between]
        is_odd |= bool(join)
        citations += own
        behind = match.end()
        if text[behind : behind + 1] == "[":
            at, join = behind, ""
            continue
        space = (_SPACE if listing else _JOIN).match(text, behind, end)
        assert space
        at, join = space.end(), space[0].strip()
    return Notation(begin, behind, tuple(citations), is_odd) if citations else None


def _numbered(items: str, start: int, end: int, notes: set[str]) -> tuple[Citation, ...]:
    """The citations of `1, 3-5`; four digits are a year."""
    numbers: list[int] = []
    before = 0
    for found in _NUMBER.finditer(items):
        if len(found[0]) == 4:
            notes.add("years")
            continue
        number = as_number(found[0])
        is_range = numbers and _IS_DASH.search(items, before, found.start())
        if is_range and number - numbers[-1] <= _WIDEST_RANGE:
            numbers += range(numbers[-1] + 1, number)
        numbers.append(number)
        before = found.end()
    if len(numbers) > 1:
        notes.add("groups")
    return tuple(Citation(start, end, number) for number in numbers)


def _add(found: Found, start: int, end: int, citations: tuple[Citation, ...], is_odd: bool) -> None:
    if citations:
        found.notations.append(Notation(start, end, citations, is_odd))


def unread(text: str, start: int, end: int, read: Sequence[tuple[int, int]]) -> set[str]:
    """The kinds of what names a document in characters `[start, end)` and is not among what was
    `read` as a citation, in the order of the text: `worded`, `unread`."""
    return {
        kind
        for kind, form in (("worded", _WORDED), ("unread", _UNREAD))
        for found in form.finditer(text, start, end)
        if not (place := bisect_left(read, (found.end(), 0))) or read[place - 1][1] <= found.start()
    }


def as_number(digits: str) -> int:
    """The number; one of very many digits is merely larger than all others."""
    # Python refuses to read integers of thousands of digits; no example has so many documents.
    return int(digits) if len(digits) <= _LONGEST_NUMBER else _BEYOND_ALL_DOCUMENTS


@lru_cache(maxsize=1 << 10)
def _titled(name: str, titles: tuple[str, ...]) -> int:
    """The number of the one document with this title, 0 if there is none or several."""
    numbers = [
        number
        for number, title in enumerate(titles, 1)
        if title and normalize_answer(title) == normalize_answer(name)
    ]
    return numbers[0] if len(numbers) == 1 else 0
