"""The parts of an answer: what was only thought, lines and what they are, a list of sources."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from citepipe.text.normalize import normalize_answer
from citepipe.text.sentences import STARTERS, Span

_TAGS = r"think|thinking|thoughts?|reasoning|reflection|scratchpad"
_OPENED = rf"<(?:{_TAGS})>|\[THINK\]|<\|START_THINKING\|>|<\|channel\|>analysis<\|message\|>"
_CLOSED = (
    rf"</(?:{_TAGS})>|\[/THINK\]|<\|END_THINKING\|>"
    r"|(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>"
)
_THOUGHT = re.compile(rf"(?P<open>{_OPENED})|(?P<close>{_CLOSED})", re.IGNORECASE)
_END_MARKS = re.compile(
    r"\s*(?:(?:<\|(?:im_end|end|eot_id|eom_id|endoftext|end_of_text|return)\|>|</s>|<eos>"
    r"|<end_of_turn>)\s*)*\Z"
)
_LINE = re.compile(
    r"(?:[ \t\r]*>)*[ \t\r]*"
    r"(?:(?P<fence>`{3,}|~{3,})(?P<kind>[^`\n]*)\Z"
    r"|(?P<heading>\#{1,6})(?:[ \t]+|\Z)"
    r"|(?P<rule>(?:[-*_=][ \t]*){3,})\Z"
    r"|(?P<bullet>(?:[-*+•‣◦▪●○·–]|\d{1,3}[.)]|\(\d{1,2}\)|\(?[a-z]\)|[ivx]{1,4}\.)[ \t]+"
    r"(?:\[[ xX]\][ \t]+)?|\d{1,2}[.)](?=[^\W\d])))?"
)
_DIVIDER = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_BOLD = re.compile(r"(\*\*|__)(?P<text>[^*_\n]+)\1:?\s*")
_READABLE_FENCES = {"markdown", "md", "text", "txt", "plaintext"}
_STOPS = ".!?…。！？؟।"
_TAG = r"</?(?:{})(?:\s[^<>\n]*)?/?>"
TAGS = re.compile(_TAG.format("b|i|u|em|strong|sup|sub|span|cite|mark|small|a|code"), re.IGNORECASE)
"""HTML's tags within a line, and `BREAKS`, those that end one."""
BREAKS = re.compile(_TAG.format("p|br|div|li|ul|ol|answer|h[1-6]"), re.IGNORECASE)
_LONG_LINE = 50
"""Characters; longer lines were probably broken for their width."""

_SOURCES = re.compile(
    r"^(?:[^\w\n]|_)*(?:\d+\.[ \t]*)?(?:list\s+of\s+)?(?:sources?|references?|citations?"
    r"|bibliography|works\s+cited|footnotes?|documents|quellen|literatur|références|fuentes|referencias"
    r"|参考文献|参考资料|来源|出典)(?:\s+(?:used|cited|consulted))?[ \t*_]*"
    r"(?:[:：][ \t*_]*(?P<inline>\S[^\n]*)?|(?=\n)|(?=[ \t\r]*\n))",
    re.IGNORECASE | re.MULTILINE,
)
_BEHIND_TEXT = re.compile(
    r"(?<=[.\])!?。])\s+[*_]*(?:sources|references)[*_]*:[*_]*\s*(?P<inline>\[\d[^\n]*)\s*\Z",
    re.IGNORECASE,
)
_ENTRY = re.compile(
    r"\s*(?:[-*+•]\s*)?(?:\[\^?(?P<n>\d{1,3})\](?P<colon>:)?|【(?P<w>\d{1,3})】|(?P<d>\d{1,3})[.):]"
    r"|\((?P<p>\d{1,3})\)|(?:doc(?:ument)?|source)\s*(?P<s>\d{1,3})\s*[:.–-]"
    r"|(?<=[-*+•] )|(?=https?://|\[[^\]\n]+\]\())\s*(?P<text>.*)",
    re.IGNORECASE,
)
_DOCUMENT = re.compile(r"(?:doc(?:ument)?|passage|source)s?\W{0,3}(\d{1,3})\b", re.IGNORECASE)
_CITED = re.compile(r"[\[【]\s*\^?(?:[a-z]+\s*)?\d", re.IGNORECASE)


class Block(NamedTuple):
    """Lines that belong together: characters `[start, end)`, without their marks; `breaks` are the
    places between two lines."""

    kind: str  # text, item, row, heading, or part, which is not split
    start: int
    end: int
    breaks: tuple[Span, ...]


def said(raw: str, notes: set[str]) -> list[Span]:
    """The characters that are the answer: without thoughts, and without marks at its end.

    What stands in front of a mark that only ends thoughts was thought (a template had opened
    them), and all behind one that only begins them.
    """
    if raw[-1:] in ".]" and "<" not in raw and "[T" not in raw:
        return [(0, len(raw))]
    marks = _END_MARKS.search(raw)
    begin, end = 0, marks.start() if marks else len(raw)
    parts: list[Span] = []
    is_open = False
    for mark in _THOUGHT.finditer(raw):
        notes.add("thoughts")
        if mark["open"]:
            if not is_open:
                parts.append((begin, mark.start()))
            is_open = True
        else:
            parts, is_open = parts if is_open else [], False
        begin = mark.end()
    if not is_open:
        parts.append((begin, end))
    return [(a, b) for a, b in parts if a < b]


def without_thoughts(raw: str) -> str:
    """The characters that are the answer (`said`)."""
    return "".join(raw[start:end] for start, end in said(raw, set()))


def blocks(raw: str, start: int, end: int, listing: bool, notes: set[str]) -> list[Block]:
    """The blocks of an answer's characters `[start, end)`; code is none, nor are rules and what is
    over a table. Lines of a list each are one."""
    found: list[Block] = []
    lines = _lines(raw, start, end)
    written = [raw[slice(*line)].strip() for line in lines if raw[slice(*line)].strip()]
    fenced = [line.startswith(("```", "~~~")) for line in written]
    is_whole = fenced[:1] == [True] == fenced[-1:] and sum(fenced) == 2
    fence, is_shown, is_table, is_open = "", False, False, False
    for number, (begin, stop) in enumerate(lines):
        mark = _LINE.match(raw, begin, stop)
        assert mark
        first = mark.end()
        if fence or mark["fence"]:
            is_open = False
            if fence:
                fence = "" if (mark["fence"] or "").startswith(fence) else fence
            elif is_shown:
                is_shown = False
            else:
                kind = mark["kind"].strip().lower()
                is_shown = kind in _READABLE_FENCES or (is_whole and not kind)
                fence = "" if is_shown else mark["fence"]
                notes.update(["code"] if fence else [])
            continue
        text = raw[first:stop]
        if not text.strip() or mark["rule"]:
            underlined = mark["rule"] and is_open and found[-1].kind == "text"
            if underlined and not found[-1].breaks and "|" not in text:
                found[-1] = found[-1]._replace(kind="heading")
            is_table = is_open = False
            continue
        if "|" in text:
            following = lines[number + 1] if number + 1 < len(lines) else (0, 0)
            below = raw[slice(*following)]
            is_divider = _DIVIDER.fullmatch(text)
            if is_divider or ("|" in below and _DIVIDER.fullmatch(below)):
                is_table, is_open = True, False
                notes.add("headings")
                continue
            if is_table or text.lstrip().startswith("|"):
                found.append(Block("row", first, stop, ()))
                is_open = False
                continue
        is_table = False
        bold = _BOLD.fullmatch(text)
        if mark["heading"] or (
            bold and bold["text"].rstrip(": ")[-1:] not in ".!。" and not listing
        ):
            found.append(Block("heading", first, stop, ()))
            is_open = False
        elif mark["bullet"]:
            found.append(Block("item", first, stop, ()))
            is_open = True
        elif is_open and not listing and _goes_on(raw[found[-1].start : found[-1].end], text):
            own = found[-1]
            before = own.start + len(raw[own.start : own.end].rstrip())
            found[-1] = own._replace(end=stop, breaks=(*own.breaks, (before, first)))
        else:
            found.append(Block("text", first, stop, ()))
            is_open = True
    return found


def _lines(raw: str, start: int, end: int) -> list[Span]:
    lines = []
    while (newline := raw.find("\n", start, end)) >= 0:
        lines.append((start, newline))
        start = newline + 1
    return [*lines, (start, end)]


def _goes_on(above: str, text: str) -> bool:
    """Whether a line goes on with the sentence, or behind the sentences, of those above it."""
    above, text = above.rstrip(), text.lstrip()
    last = above.rstrip("*_\"'”’)]】 0123456789[【^")[-1:]
    if last in _STOPS or above[-1:] == ",":
        return True
    if last == ":":
        return False
    first = text.lstrip("*_\"'“‘([")
    if not first[:1].isupper():
        return first[:1].islower() or not first[:1].isalpha() or len(above) > _LONG_LINE
    if above[-1] in "]】":
        return False
    line = above.rpartition("\n")[2]
    is_begun = first.split()[0].rstrip(",").lower() in STARTERS
    return len(line) > _LONG_LINE or (len(line.split()) > 3 and not is_begun)


def without_sources(
    raw: str, start: int, end: int, titles: Sequence[str], notes: set[str]
) -> tuple[int, Mapping[int, int]]:
    """Where the answer ends if a list of sources follows it, else `end`; and which document each
    number means by that list."""
    heading = None
    if "\n" in raw or ":" in raw:
        headings = list(_SOURCES.finditer(raw, start, end))
        heading = headings[-1] if headings else _BEHIND_TEXT.search(raw, start, end)
    first, entries = end, list[str]()
    if heading is not None:
        tail = [heading["inline"] or "", *raw[heading.end() : end].split("\n")]
        entries = [line for line in tail if line.strip("-=_* \t\r")]
        if entries and heading["inline"]:
            entries[:1] = re.split(r"(?<=\S)[\s,;]+(?=\[\^?\d{1,3}\]\s*[^\s\[,;])", entries[0])
        first = heading.start()
    elif "]" in raw and "\n" in raw:
        # Definitions, as of footnotes, need no heading.
        for begin, stop in reversed(_lines(raw, start, end)):
            line = raw[begin:stop]
            if not line.strip():
                continue
            entry = _ENTRY.fullmatch(line)
            if not entry or not entry["n"]:
                break
            if not entry["colon"] and not _means(entry["text"], 0, titles, exactly=True):
                break
            first, entries = begin, [line, *entries]
    bare = not any(character.isalpha() for entry in entries for character in entry)
    if not entries or (bare and not _CITED.search(raw, start, first)):
        return end, {}
    found = [_ENTRY.fullmatch(line) for line in entries]
    if not bare and not all(found):
        return end, {}
    notes.add("sources")
    meant: dict[int, int] = {}
    for order, entry in enumerate(found, 1):
        if entry is not None:
            written = entry["n"] or entry["w"] or entry["d"] or entry["p"] or entry["s"] or order
            meant[int(written)] = _means(entry["text"], int(written), titles) or int(written)
    return first, meant


def _means(text: str, number: int, titles: Sequence[str], exactly: bool = False) -> int:
    """The number of the document that an entry of a list of sources is about, 0 for unknown."""
    if not exactly and (named := _DOCUMENT.search(text)):
        return int(named[1])
    words = f" {normalize_answer(text)} "
    names = [f" {normalize_answer(title)} " for title in titles]
    fitting = [
        place
        for place, name in enumerate(names, 1)
        if name.strip() and (name == words or (not exactly and name in words))
    ]
    longest = max((len(names[place - 1]) for place in fitting), default=0)
    fitting = [place for place in fitting if len(names[place - 1]) == longest]
    return number if number in fitting else fitting[0] if len(fitting) == 1 else 0
