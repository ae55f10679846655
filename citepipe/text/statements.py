"""The one parser of answers: statements and the citations in them, with spans of the raw answer.

There are two ways of reading. `alce` is what ALCE's program reads: the first line, and `[` with
digits behind it. `sane` is what a person reads: all lines, whatever marks citations, and those
behind a stop with the sentence in front of it; training learns from it.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from citepipe.text.citations import Citation, Found, Notation, Style, as_number, find, unread
from citepipe.text.layout import BREAKS, TAGS, Block, blocks, said, without_sources
from citepipe.text.normalize import END_MARK, clean_output
from citepipe.text.sentences import Span, Splitter, split_sentences

Rules = Literal["alce", "sane"]

# ALCE reads `[` and digits, whatever follows them: of `[1, 2]` only `[1` is a citation.
_CITATION = re.compile(r"\[(\d+)\]?")
_REMOVED = re.compile(r" ?\[\d+")
_STOPS = frozenset(".!?…。！？｡؟।॥۔։።။។")
_CLOSERS = frozenset("\"'”’)»」』）】\ue000")
_NO_SPACES = "\u2e80"
"""Scripts from this character on have no spaces between words."""
_WORD = re.compile(r"[^\W_]")
_END = re.compile(r"""(?:[.!?][\s"'”’)\]»]*)+$|\s+$""")
_MARKUP = re.compile(
    r"\*\*(?=\S)|(?<=\S)\*\*|(?<![\w*])\*(?=[^\s*])|(?<=[^\s*])\*(?![\w*])"
    r"|(?<!\w)_{1,2}(?=[^\s_])|(?<=[^\s_])_{1,2}(?!\w)|`+|~~"
    rf"|{TAGS.pattern}|(?P<breaks>{BREAKS.pattern})",
    re.IGNORECASE,
)
_HAS_MARKUP = re.compile(r"[*_`<~]")
_HIGH = re.compile(r"[⁰¹²³⁴-⁹]|<sup>", re.IGNORECASE)
_LOW = re.compile(r"[(（{]\s*\d")
# What an answer that both rules read alike has not.
_ODD = re.compile(r"[^\S ]|[(（{【［〔<|*_`~#^\\:：;，、†⁰¹²³⁴-⁹…。！？｡؟।॥۔։።။។•\ue000]")
_ODD_PLACE = re.compile(
    r"""\[(?:(?<=[.!?"'”’»]\[)|(?<=[.!?"'”’»] \[)|(?!\d{1,3}\]))"""
    r"""|\](?:(?<!\[\d\])(?<!\[\d\d\])(?<!\[\d\d\d\])|(?=[\](]|[^\W_]|[ ,&–-]+\["""
    r"""| *,? *(?:and|or|und|oder|et|y) *\[))"""
)
_ODD_BEGIN = re.compile(r" *(?:[-+–·‣◦▪●○\[>=]|\d{1,3}[.)]|[a-z]\)|[ivx]{1,4}\.)")
# Before the last item of a list.
_LAST = re.compile(r"^(?:and|und|et|y|&)\s+")
# Between a row's cells.
_CELL = "\ue000"
_EDGES = f" \t\r\n\f\v\xa0\u3000{_CELL}"
_SHORT_LINE = 8
"""Words; a line so short that ends with a colon is a heading."""

_SEVERAL = "others in the same row, which are not read"
_WORDED = "a document named in words (`according to document 1`), which is no citation"
NOTES: dict[Rules, dict[str, str]] = {
    "alce": {
        "several": _SEVERAL,
        "lines": "several lines, of which alce reads the first",
        "thoughts": "thoughts, which alce reads as the answer",
        "behind": "citations behind the stop, which alce reads as statements of their own",
        "groups": "several documents in one bracket, of which alce reads the first",
        "notation": "citations in a notation that alce does not read",
        "years": "a year in brackets, which alce reads as a document's number",
        "worded": _WORDED,
        "uncited": "no citation that alce reads",
    },
    "sane": {
        "several": _SEVERAL,
        "thoughts": "thoughts, which are not read",
        "code": "code, which is not read",
        "headings": "headings, or lines that only introduce, which are not read",
        "sources": "a list of sources, which is read only for what a number means",
        "years": "a year in brackets, which is read as text",
        "worded": _WORDED,
        "unread": "brackets with a number that is read as text, such as [1a]",
        "uncited": "no citation that can be read",
    },
}
"""What a way of reading left unread or read otherwise than one may think, by kind."""


class Statement(NamedTuple):
    """A sentence, an item of a list, or a row of a table: characters `[start, end)` of the answer.

    Attributes:
        text: the characters that were read, citations included.
        claim: what is stated: without citations (sane: and without marks of layout).
        citations: in the order of the text.
        last: the character that closes it, citations behind it apart: of a sentence its own last
            one, of an item the comma or the stop behind it, else the line's end; `len(raw)` if
            nothing does but the end of the answer (alce: what ends its first line).
    """

    start: int
    end: int
    text: str
    claim: str
    citations: tuple[Citation, ...]
    last: int


class Answer(NamedTuple):
    """An answer as it was read.

    Attributes:
        rules: by which rules.
        raw: as it was written; all places are in it.
        text: the part that was read.
        bare: the text without citations: what correctness, length and ROUGE read.
        statements: in order.
        notes: keys of `NOTES[rules]`.
    """

    rules: Rules
    raw: str
    text: str
    bare: str
    statements: tuple[Statement, ...]
    notes: frozenset[str] = frozenset()


def is_list(dataset: str) -> bool:
    """Whether the answers of a dataset are comma-separated lists rather than sentences."""
    return dataset == "qampari"


def ended(text: str, dataset: str) -> str:
    """A sample as it is learnt from: a list that a search left with items to come gets an end."""
    return f"{text[:-1]}." if is_list(dataset) and text.endswith(",") else text


def rules_of(dataset: str, rules: Rules | None = None) -> Rules:
    """The rules by which the answers of a dataset are read: `rules` if given, else `alce` for
    ALCE's own three datasets."""
    return rules or ("alce" if dataset in ("asqa", "qampari", "eli5") else "sane")


def read_answer(
    raw: str,
    dataset: str,
    splitter: Splitter,
    rules: Rules = "sane",
    titles: Sequence[str] = (),
    noting: bool = False,
    parts: Sequence[Span] = (),
) -> Answer:
    """Read an answer.

    Args:
        raw: as it was written, whole or cut off anywhere.
        dataset: says whether it is a list of items or sentences.
        splitter: finds sentences.
        rules: how.
        titles: of the documents; sane: by them a list of sources at the end is understood.
        noting: alce: note what was left unread (sane rules do so anyway).
        parts: the characters of each statement, of an answer that came in parts.
    """
    listing = is_list(dataset)
    if rules == "sane":
        return _read_sane(raw, listing, splitter, titles, parts)
    answer = _read_alce(raw, listing, (lambda _: list(parts)) if parts else splitter)
    if noting:
        sane = _read_sane(raw, listing, splitter, titles, parts)
        uncited = not any(statement.citations for statement in answer.statements)
        notes = sane.notes - {"uncited"} | ({"uncited"} if uncited and sane.text else set())
        answer = answer._replace(notes=frozenset(notes & NOTES["alce"].keys()))
    return answer


def notes_of(answers: Iterable[Answer]) -> list[str]:
    """A line for each kind of thing that was left unread, with how many of the answers have it."""
    answers = list(answers)
    counts = Counter((answer.rules, note) for answer in answers for note in answer.notes)
    return [
        f"{counts[rules, note]} of {len(answers)} answers have {line}"
        for rules, lines in NOTES.items()
        for note, line in lines.items()
        if counts[rules, note]
    ]


# -- ALCE's rules


def _read_alce(raw: str, listing: bool, splitter: Splitter) -> Answer:
    """As ALCE's `compute_autoais` reads and splits it.

    A citation behind the final stop (`... Paris. [1]`) begins the next sentence, or is one by
    itself. A list loses trailing spaces, then stops, then commas, and is cut at its commas; empty
    items stay, so that the empty list is one empty item.
    """
    text = clean_output(raw)
    if listing:
        spans, start = [], 0
        for item in text.rstrip().rstrip(".").rstrip(",").split(","):
            end = start + len(item)
            first = end - len(item.lstrip())
            last = end if text[end : end + 1] in {",", "."} else len(text)
            spans.append((first, max(first, start + len(item.rstrip())), last))
            start = end + 1
    else:
        found = splitter(text)
        closed = is_behind_stop(text, 0, len(text))
        spans = [(a, b, b - (closed or i < len(found))) for i, (a, b) in enumerate(found, 1)]
    first = len(raw) - len(raw.lstrip())
    newline = raw.find("\n", first)
    # What ends the answer stands behind its last character.
    end, behind = (newline if newline >= 0 else len(raw)), len(text)
    statements = []
    for a, b, last in spans:
        own, at = text[a:b], first + a
        citations = tuple(
            Citation(at + c.start(), at + c.end(), as_number(c[1]))
            for c in (_CITATION.finditer(own) if "[" in own else ())
        )
        claim = remove_citations(own).strip()
        closing = first + last if last < behind else end
        statements.append(Statement(at, first + b, own, claim, citations, closing))
    if END_MARK in raw:
        marks = {i for mark in re.finditer(re.escape(END_MARK), raw) for i in range(*mark.span())}
        kept = [i for i in range(first, end) if i not in marks]
        statements = [_moved(statement, first, [*kept, end]) for statement in statements]
    return Answer("alce", raw, text, remove_citations(text), tuple(statements))


def _moved(statement: Statement, first: int, kept: Sequence[int]) -> Statement:
    """A statement whose places count what cleaning leaves, with those in the raw answer."""

    def span(start: int, end: int) -> Span:
        begin = kept[start - first]
        return begin, kept[end - 1 - first] + 1 if end > start else begin

    start, end = span(statement.start, statement.end)
    last = min(statement.last - first, len(kept) - 1)
    cited = tuple(Citation(*span(c.start, c.end), c.number) for c in statement.citations)
    return statement._replace(start=start, end=end, citations=cited, last=kept[last])


def remove_citations(text: str) -> str:
    """The text without its citations, as ALCE's `remove_citations` leaves it.

    `[12` goes with one space in front of it; every `]` goes, also one that closes no citation,
    and so does every ` |`. Of `[1, 2]` the text `, 2` stays.
    """
    if "[" in text:
        text = _REMOVED.sub("", text)
    return text.replace(" |", "").replace("]", "")


# -- sane rules


def _read_sane(
    raw: str,
    listing: bool,
    splitter: Splitter,
    titles: Sequence[str],
    parts: Sequence[Span] = (),
) -> Answer:
    if not parts and (plain := _read_plain(raw, listing, splitter)):
        return plain
    notes: set[str] = set()
    meant: Mapping[int, int] = {}
    if parts:
        laid = [Block("part", start, end, ()) for start, end in parts]
        text = raw
    else:
        spoken = said(raw, notes)
        if spoken:
            start, end = spoken[-1]
            end, meant = without_sources(raw, start, end, titles, notes)
            spoken[-1] = start, end
        laid = [block for a, b in spoken for block in blocks(raw, a, b, listing, notes)]
        text = "".join(raw[a:b] for a, b in spoken).strip()
    if "\n" in text:
        notes.add("lines")
    styles: list[Style] = ["brackets"]
    styles += ["superscripts"] if _HIGH.search(text) else []
    styles += ["parentheses"] if _LOW.search(text) else []
    for style in styles:
        found = [find(raw, b.start, b.end, titles, style, listing) for b in laid]
        if any(own.notations for own in found):
            break
    views = [_view(raw, block, own) for block, own in zip(laid, found, strict=True)] if laid else []
    make = _items if listing else _sentences
    drafts = make(raw, laid, views, splitter, notes, True)
    if not any(draft.claim for draft in drafts):
        # Headings alone are the answer.
        drafts = make(raw, laid, views, splitter, notes, False)
    notations = [notation for own in found for notation in own.notations] if laid else []
    covered = [(notation.start, notation.end) for notation in notations]
    for block in laid:
        notes |= unread(raw, block.start, block.end, covered)
    notes.update(*(own.notes for own in found) if laid else ())
    if any(notation.is_odd for notation in notations):
        notes.add("notation")
    if text and not notations:
        notes.add("uncited")
    statements = tuple(draft.statement(raw, meant) for draft in drafts)
    bare = _joined((statement.claim for statement in statements), listing)
    return Answer("sane", raw, text, bare, statements, frozenset(notes))


def _read_plain(raw: str, listing: bool, splitter: Splitter) -> Answer | None:
    """An answer that both rules read alike, as most are that are generated: the quick way."""
    if "  " in raw or _ODD.search(raw) or _ODD_PLACE.search(raw) or _ODD_BEGIN.match(raw):
        return None
    answer = _read_alce(raw, listing, splitter)
    claims = [statement.claim for statement in answer.statements]
    if (listing and _LAST.match(claims[-1])) or not (listing or all(map(_WORD.search, claims))):
        return None
    cites = any(statement.citations for statement in answer.statements)
    notes = unread(
        raw, 0, len(raw), [(c.start, c.end) for s in answer.statements for c in s.citations]
    )
    notes |= {"uncited"} if answer.text and not cites else set()
    bare = _joined(claims, listing)
    return Answer("sane", raw, answer.text, bare, answer.statements, frozenset(notes))


def _joined(claims: Iterable[str], listing: bool) -> str:
    return (", " if listing else " ").join(claims)


class _View(NamedTuple):
    """A block's text without marks of layout, each piece of it with its place in the view, and its
    first and last in the answer; and per citation the characters of the view that stand for it:
    none behind a stop, so that it begins no sentence."""

    text: str
    starts: list[int]
    places: list[Span]
    notations: list[tuple[int, int, Notation]]

    def at(self, char: int) -> int:
        """Where a character of the view stands in the answer."""
        piece = bisect_right(self.starts, char) - 1
        first, last = self.places[piece]
        return min(first + char - self.starts[piece], last)

    def claim(self, start: int, end: int) -> str:
        """What characters of the view state: without citations, single-spaced."""
        text, at = "", start
        for first, behind, _ in self.notations:
            if start <= first < behind <= end:
                text += self.text[at:first].rstrip()
                at = behind
                following = self.text[at : at + 1]
                if following.isalnum() and following < _NO_SPACES and text[-1:].isalnum():
                    text += " "
        return " ".join((text + self.text[at:end]).split())


def _view(raw: str, block: Block, found: Found) -> _View:
    _, first, end, breaks = block
    has_markup = _HAS_MARKUP.search(raw, first, end)
    if not (breaks or found.cuts or has_markup or block.kind == "row"):
        # As most are: nothing to leave out.
        spans = [(n.start - first, n.end - first, n) for n in found.notations]
        if not any(n.is_odd or is_behind_stop(raw, first, n.start) for n in found.notations):
            return _View(raw[first:end], [0], [(first, end)], spans)
    cuts: list[tuple[int, int, str, Notation | None]]
    cuts = [(n.start, n.end, "[0]", n) for n in found.notations]
    cuts += [(a, b, "", None) for a, b in found.cuts]
    cuts += [(a, b, " ", None) for a, b in breaks]
    if has_markup:
        for mark in _MARKUP.finditer(raw, first, end):
            cuts.append((*mark.span(), " " if mark["breaks"] else "", None))
    if block.kind == "row":
        bars = re.finditer(r"\|", raw[first:end])
        cuts += [(first + bar.start(), first + bar.end(), f" {_CELL} ", None) for bar in bars]
    starts: list[int] = []
    places: list[Span] = []
    notations: list[tuple[int, int, Notation]] = []
    # A plain local, which grows in place: there may be very many cuts.
    text, at = "", first
    for start, behind, instead, notation in [
        *sorted(cuts, key=lambda cut: cut[:2]),
        (end, end, "", None),
    ]:
        if start < at and notation is None:
            continue
        if at < start:
            starts.append(len(text))
            places.append((at, start - 1))
            text += raw[at:start]
        if notation and is_behind_stop(text, 0, len(text)):
            instead = ""
            following = raw[behind : min(behind + 2, end)].lstrip()
            if following[:1] in {".", "。"}:
                behind = raw.index(following[0], behind) + 1
            elif following[:1].isalnum() and text[-1:] < _NO_SPACES:
                instead = " "
            notations.append((len(text), len(text), notation))
        elif notation:
            notations.append((len(text), len(text) + len(instead), notation))
        if instead:
            starts.append(len(text))
            places.append((start, max(start, behind - 1)))
            text += instead
        at = max(at, behind)
    return _View(text, starts or [0], places or [(first, end)], notations)


def is_behind_stop(text: str, start: int, at: int) -> bool:
    """Whether a place stands behind a stop and what closes with it."""
    while start < at and (text[at - 1].isspace() or text[at - 1] in _CLOSERS):
        at -= 1
    return start < at and text[at - 1] in _STOPS


class _Draft:
    """A statement that may still get citations."""

    def __init__(self, start: int, end: int, claim: str, last: int) -> None:
        self.start, self.end, self.claim, self.last = start, end, claim, last
        self.citations: list[Citation] = []

    def cite(self, notation: Notation) -> None:
        """Add citations; the statement reaches over them."""
        self.citations += notation.citations
        self.start = min(self.start, notation.citations[0].start)
        self.end = max(self.end, notation.citations[-1].end)

    def statement(self, raw: str, meant: Mapping[int, int]) -> Statement:
        """What it has become, citing the documents that the answer's numbers mean."""
        cited = self.citations
        if meant:
            cited = [c._replace(number=meant.get(c.number, c.number)) for c in cited]
        return Statement(
            self.start, self.end, raw[self.start : self.end], self.claim, tuple(cited), self.last
        )


def _sentences(
    raw: str,
    laid: Sequence[Block],
    views: Sequence[_View],
    splitter: Splitter,
    notes: set[str],
    is_strict: bool,
) -> list[_Draft]:
    """The statements of an answer in sentences; unless `is_strict` also headings are."""
    drafts: list[_Draft] = []
    waiting: list[Notation] = []
    for number, (block, view) in enumerate(zip(laid, views, strict=True)):
        whole = [(0, len(view.text))] if block.kind == "part" else None
        spans = list(_worded(view, whole or split_sentences(view.text, splitter)))
        if not spans:
            for *_, notation in view.notations:
                if drafts:
                    drafts[-1].cite(notation)
                    notes.add("behind")
                else:
                    waiting.append(notation)
            continue
        if is_strict and _introduces(laid, number, view, spans):
            notes.add("headings")
            spans.pop()
            if not spans:
                continue
        own = []
        for place, (start, end) in enumerate(spans, 1):
            first, behind = view.at(start), view.at(end - 1) + 1
            last = behind - 1
            if place == len(spans) and not is_behind_stop(view.text, start, end):
                last = _line_end(raw, block)
            own.append(_Draft(first, behind, _cells(view.claim(start, end)), last))
        for notation in waiting:
            own[0].cite(notation)
        waiting = []
        # `[1] One. [2] Two.`: each belongs to what follows it.
        begins, ends = [start for start, _ in spans], [end for _, end in spans]
        is_leading = bool(view.notations) and (
            view.notations[0][0] <= begins[0] and view.notations[-1][0] < ends[-1]
        )
        for at, stop, notation in view.notations:
            place = (bisect_right if stop > at else bisect_left)(begins, at) - 1
            if place >= 0 and at >= ends[place] and not is_leading:
                notes.add("behind")
            elif place >= 0 and at >= ends[place]:
                place += 1
            if place < 0 and drafts and not is_leading:
                drafts[-1].cite(notation)
                notes.add("behind")
            else:
                own[max(place, 0)].cite(notation)
        drafts += own
    if waiting and not drafts:
        drafts.append(_Draft(waiting[0].start, waiting[0].end, "", len(raw)))
        for notation in waiting:
            drafts[0].cite(notation)
    return drafts


def _worded(view: _View, sentences: Sequence[Span]) -> Iterator[Span]:
    """The sentences that have a word besides citations, without spaces around them; one also ends
    where a citation stands behind a stop and a capital follows (`Take vitamin C. [1] Eggs …`)."""
    behind = [a for a, b, _ in view.notations if a == b and view.text[a:].lstrip()[:1].isupper()]
    parts = [
        span
        for start, end in sentences
        for span in itertools.pairwise([start, *(a for a in behind if start < a < end), end])
    ]
    for start, end in parts if behind else sentences:
        own = view.text[start:end]
        if _WORD.search(view.claim(start, end)):
            yield end - len(own.lstrip(_EDGES)), start + len(own.rstrip(_EDGES))


def _introduces(laid: Sequence[Block], number: int, view: _View, spans: Sequence[Span]) -> bool:
    """Whether a block's last sentence states nothing: a heading, or what introduces more."""
    start, end = spans[-1]
    last = view.text[end - 1]
    if (last not in ":：" and laid[number].kind != "heading") or any(
        at >= start for at, *_ in view.notations
    ):
        return False
    if laid[number].kind == "heading":
        return len(spans) == 1 and last not in ".!。"
    following = laid[number + 1].kind if number + 1 < len(laid) else ""
    short = len(view.text[start:end].split()) <= _SHORT_LINE
    return last in ":：" and (following in ("item", "row") or bool(following and short))


def _line_end(raw: str, block: Block) -> int:
    """Where the line of a block's end ends."""
    newline = raw.find("\n", block.end)
    return newline if newline >= 0 else len(raw)


def _cells(text: str) -> str:
    """A claim, of a table's row with its cells as parts of a sentence, or sentences."""
    if _CELL not in text:
        return text
    claim = ""
    for cell in filter(None, map(str.strip, text.split(_CELL))):
        claim += ("" if not claim else " " if claim[-1] in _STOPS else ", ") + cell
    return claim


def _items(
    raw: str,
    laid: Sequence[Block],
    views: Sequence[_View],
    splitter: Splitter,
    notes: set[str],
    is_strict: bool,
) -> list[_Draft]:
    """The statements of an answer that is a list: lines with bullets, or what commas divide."""
    bulleted = sum(block.kind in ("item", "row") for block in laid) > 1
    comma = "," if any("," in view.text or "，" in view.text for view in views) else ";"
    drafts: list[_Draft] = []
    for number, (block, view) in enumerate(zip(laid, views, strict=True)):
        text = view.text.replace("，", ",").replace("、", ",")
        text = text.rstrip().rstrip(".。").rstrip(comma)
        if not text and drafts:
            for *_, notation in view.notations:
                drafts[-1].cite(notation)
            continue
        if is_strict and (
            block.kind == "heading" or (text[-1:] in {":", "："} and number + 1 < len(laid))
        ):
            notes.add("headings")
            continue
        whole = bulleted and block.kind in ("item", "row")
        own, ends, begin, line_end = [], [], 0, _line_end(raw, block)
        for item in [text] if whole else text.split(comma):
            end = begin + len(item)
            start = end - len(item.lstrip())
            behind = max(start, begin + len(item.rstrip()))
            last = line_end
            if view.text[end : end + 1] in {comma, "，", "、", ".", "。"}:
                last = view.at(end)
            first = view.at(start) if start < len(view.text) else len(raw)
            stop = view.at(behind - 1) + 1 if behind > start else first
            own.append(_Draft(first, stop, _cells(view.claim(start, behind)), last))
            ends.append(end)
            begin = end + 1
        for at, _, notation in view.notations:
            own[min(sum(bound < at for bound in ends), len(own) - 1)].cite(notation)
        drafts += own
    if len(drafts) > 1:
        drafts[-1].claim = _LAST.sub("", drafts[-1].claim)
    return drafts or [_Draft(len(raw), len(raw), "", len(raw))]


# -- writing


def renumber_citations(text: str, renumber: Callable[[int], int | None]) -> str:
    """The text with other numbers in its citations, all written as `[1][2]`; where `renumber`
    returns None for all of them, they go with one space in front of them."""
    written, behind = "", 0
    for notation in find(text, 0, len(text)).notations:
        numbers = [renumber(citation.number) for citation in notation.citations]
        marks = "".join(f"[{number}]" for number in numbers if number is not None)
        before = text[behind : notation.start]
        written += (before if marks else before.removesuffix(" ")) + marks
        behind = notation.end
    return written + text[behind:]


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
