"""The parts of a text file: its title, paragraphs, and what in them stands on lines of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

Paragraph = tuple[str, ...]
"""What stands together, in blocks: prose, or the items of a list. Spaces are single."""


class Text(NamedTuple):
    """A title, if the text has one, and the paragraphs that are not the title."""

    title: str | None
    paragraphs: list[Paragraph]


_LONGEST_TITLE = 12
"""Words of a first line, at most, that is a title because an empty line follows."""

_LONGEST_HEADING = 30
"""Words of a heading, at most, that is a title: every passage is shown with it."""

_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"\n]*\")?\)")
_FENCE = re.compile(r" {0,3}(?:`{3}|~{3})")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*")
_ITEM = re.compile(r"\s*(?:[-*+•‣◦|]|\d{1,3}[.)])\s")
_ENDS = tuple(".:;!?。！？：")


def read_plain(text: str) -> Text:
    """A text whose paragraphs are separated by empty lines.

    A short first line that ends no sentence and is followed by an empty line is the title.
    """
    paragraphs = list(_paragraphs(text))
    first = text.lstrip().partition("\n")[0].strip()
    if (
        len(paragraphs) > 1
        and paragraphs[0] == (" ".join(first.split()),)
        and len(first.split()) <= _LONGEST_TITLE
        and not first.endswith(_ENDS)
    ):
        return Text(paragraphs[0][0], paragraphs[1:])
    return Text(None, paragraphs)


def read_markdown(text: str) -> Text:
    """A text in Markdown. The title is that of its front matter, or the first heading.

    Other headings begin the paragraph behind them (`Heading: text`); links lose their addresses.
    """
    title = None
    front = _FRONT_MATTER.match(text)
    if front is not None:
        named = _FRONT_TITLE.search(front[1])
        title = named[1].strip("\"'") if named is not None else None
        text = text[front.end() :]
    parts = _sections(_LINK.sub(r"\1", _without_comments(text)))
    paragraphs: list[Paragraph] = []
    for heading, body in parts:
        inside = list(_paragraphs(body))
        if heading and title is None and len(heading.split()) <= _LONGEST_HEADING:
            title = heading
        elif heading and heading != title:
            joined = heading if heading.endswith(_ENDS) or not inside else f"{heading}:"
            begun, *more = inside[0] if inside else ("",)
            inside[:1] = [(f"{joined} {begun}".strip(), *more)]
        paragraphs += inside
    return Text(title, paragraphs)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Headings with what stands below them; the first heading may be empty."""
    heading, body, fenced = "", [""], False
    for line in text.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
            body.append("")
            continue
        marked = None if fenced else _HEADING.match(line)
        if marked is not None:
            yield heading, "\n".join(body)
            heading, body = _heading(line[marked.end() :]), [""]
        elif not fenced and _UNDERLINE.fullmatch(line) and _is_lone(body):
            above = " ".join(body.pop().split())
            yield heading, "\n".join(body)
            heading, body = above, [""]
        else:
            body.append(line)
    yield heading, "\n".join(body)


def _heading(text: str) -> str:
    """A heading without the marks that may close it."""
    words = text.split()
    if words and not words[-1].strip("#"):
        words.pop()
    return " ".join(words)


def _without_comments(text: str) -> str:
    kept, end = [], 0
    while (start := text.find("<!--", end)) >= 0 and (close := text.find("-->", start)) >= 0:
        kept.append(text[end:start])
        end = close + len("-->")
    return "".join([*kept, text[end:]])


def _is_lone(body: list[str]) -> bool:
    """Whether the last line is one that no line stands directly above."""
    return bool(body[-1].strip()) and not body[-2].strip() and not _ITEM.match(body[-1])


def _paragraphs(text: str) -> Iterator[Paragraph]:
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            yield tuple(_blocks(lines))
            lines = []


def _blocks(lines: list[str]) -> Iterator[str]:
    """Lines joined, but for items of lists, each of which begins a block."""
    block: list[str] = []
    for line in lines:
        if block and _ITEM.match(line):
            yield " ".join(block)
            block = []
        block += line.split()
    yield " ".join(block)
