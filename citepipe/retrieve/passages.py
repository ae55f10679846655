"""Passages from a user's own files: texts are cut at sentence ends, rows are taken as they are."""

from __future__ import annotations

import codecs
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from citepipe.data.example import Document, DocumentRow
from citepipe.data.files import decoded_line, lines_of
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.progress import say, summary
from citepipe.text.sentences import Splitter, load_splitter

UNSPACED = "\u0e01-\u0e5b\u0e81-\u0edf\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
UNSPACED += "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese characters, as the inside of a regex's class."""

_DOCUMENT = TypeAdapter(DocumentRow)
_REPEATED, _EMPTY = "repeated texts left out", "files or rows without text"
_LONG = "long rows left whole (`cut: all` cuts them)"
# What has no spaces for long is no word: it is cut as one must, like a sentence of many words.
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]{{1,100}}")
# Paragraphs and the items of lists.
_BLOCK_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•‣◦|]|\d{1,3}[.)])\s)")
_STOP = re.compile(r"(?<=[。！？])")
_ENDS = tuple(".:;!?。！？：")
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*['\"]?(\S.*?)['\"]?[ \t]*$", re.MULTILINE)
_LONGEST_TITLE = 12
"""Words of a first line, at most, that is a title because an empty line follows."""
_LONGEST_HEADING = 30
"""Words of a heading, at most, that is a title: every passage is shown with it."""


class Record(NamedTuple):
    """A text, or a row: how it is named in errors, its title and id if it has them, and its
    paragraphs and items of lists."""

    where: str
    title: str | None
    blocks: list[str]
    id: str | None = None


def read_plain(text: str, path: Path) -> Iterator[Record]:
    """A text whose paragraphs are separated by empty lines.

    A short first line that ends no sentence and is followed by an empty line is the title.
    """
    blocks = _BLOCK_END.split(text.strip())
    first, *rest = re.split(r"\n\s*\n", text.strip(), maxsplit=1)
    is_short = "\n" not in first and len(first.split()) <= _LONGEST_TITLE
    if rest and is_short and not first.endswith(_ENDS):
        yield Record(str(path), blocks[0], blocks[1:])
    else:
        yield Record(str(path), None, blocks)


def read_markdown(text: str, path: Path) -> Iterator[Record]:
    """A text in Markdown. The title is that of its front matter, or the first heading.

    Other headings begin the paragraph behind them (`Heading: text`); links lose their addresses.
    """
    from markdown_it import MarkdownIt

    title, heading = None, ""
    blocks: list[str] = []
    if front := _FRONT_MATTER.match(text):
        named = _FRONT_TITLE.search(front[1])
        title, text = named and named[1], text[front.end() :]
    kind = ""
    for token in MarkdownIt("commonmark").parse(text):
        # The text of a heading or paragraph comes behind the token that opens it.
        before, kind = kind, token.type
        parts = [
            " " if part.type.endswith("break") else part.content
            for part in token.children or [token]
            if part.type not in ("html_block", "html_inline")
        ]
        content = "".join(parts).strip()
        if content and before != "heading_open":
            colon = ":" if heading and not heading.endswith(_ENDS) else ""
            blocks.append(f"{heading}{colon} {content}".strip())
            heading = ""
        elif content:
            blocks += [heading] if heading else []
            heading = "" if content == title else content
            if title is None and len(content.split()) <= _LONGEST_HEADING:
                title, heading = content, ""
    yield Record(str(path), title, [*blocks, heading] if heading else blocks)


def read_rows(text: str, path: Path) -> Iterator[Record]:
    """Passages of a file with a JSON object per line."""
    for where, line in lines_of(text, path):
        row = validated(_DOCUMENT, decoded_line(line, where), where)
        yield Record(where, row.title, _BLOCK_END.split(row.text), row.id)


def read_table(text: str, path: Path) -> Iterator[Record]:
    """Passages of a file with columns between tabs: as its first line says, or those of DPR's file
    of Wikipedia (id, text, title)."""
    names: list[str] = []
    for where, line in lines_of(text, path):
        # A CSV writer puts quotes around texts with quotes in them.
        cells = [
            cell[1:-1].replace('""', '"') if re.fullmatch('".*"', cell) else cell
            for cell in line.split("\t")
        ]
        if not names:
            names = [cell.strip().lower() for cell in cells]
            if "text" in names:
                continue
            names = ["id", "text", "title"][: len(cells)]
            if len(cells) not in (2, 3):
                raise InputError(
                    f"{where}: expected columns id, text and title between tabs, or their names, "
                    f"got {len(cells)} column{'s' * (len(cells) != 1)}"
                )
        if len(cells) != len(names):
            raise InputError(
                f"{where}: expected {len(names)} columns ({', '.join(names)}), got {len(cells)}"
            )
        row = dict(zip(names, cells, strict=True))
        yield Record(where, row.get("title"), [row["text"]], row.get("id"))


FORMS: dict[str, Callable[[str, Path], Iterator[Record]]] = {
    ".txt": read_plain,
    ".text": read_plain,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".jsonl": read_rows,
    ".ndjson": read_rows,
    ".tsv": read_table,
}
"""How a file is read, by how its name ends; a folder's other files are passed over."""


def read_passages(options: RetrievalOptions) -> list[Document]:
    """Read and cut the files that the options name.

    Folders are read with all that is below them, by the names of files; what begins with a dot is
    passed over. Ids are the file's path in its folder and the passage's number (`a/b.md#2`), or
    what the row gives; where a file before gave the same, the file's name stands in front. What
    was read, and what was not, is logged.

    Returns:
        The passages, in the order of the configuration's paths, of the names of files and of their
        places in them; with different ids and different texts.

    Raises:
        InputError: a path that cannot be read, a text that is not UTF-8 or UTF-16, a row that is
            no passage, an id that comes twice in a file, or no passages at all.
    """
    passages: dict[str, Document] = {}
    ids: set[str] = set()
    passed_over: Counter[str] = Counter()
    counts = Counter({"files": 0, _REPEATED: 0, _EMPTY: 0, _LONG: 0})
    for path, name in _sources(options.passages, passed_over):
        own: dict[str, str] = {}
        for document, where in _passages(path, name, options, counts, passed_over):
            identity = str(document.id)
            if own.setdefault(identity, where) != where:
                raise InputError(
                    f"{where}, field id: expected another one than {own[identity]} has, got "
                    f"{identity}"
                )
            if document.text in passages:
                counts[_REPEATED] += 1
                continue
            while identity in ids:
                identity = f"{name}#{identity}"
            ids.add(identity)
            passages[document.text] = replace(document, id=identity)
        counts["files"] += bool(own)
    figures: dict[str, object] = {"passages": len(passages), "files": counts.pop("files")}
    figures |= {name: count for name, count in counts.items() if count}
    if passed_over:
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(passed_over.items()))
        figures["files passed over"] = f"{passed_over.total()} ({kinds})"
    if not passages:
        raise InputError(
            f"{', '.join(options.passages)}: expected texts in files that end in "
            f"{', '.join(FORMS)}; {summary('retrieval', figures)}"
        )
    say(summary("retrieval", figures))
    return list(passages.values())


def _sources(paths: Sequence[str], passed_over: Counter[str]) -> list[tuple[Path, str]]:
    """The files to read, each once, in order, with the names that their passages have them by."""
    sources: dict[Path, tuple[Path, str]] = {}
    for given in map(Path, paths):
        new = [(given, given.name)]
        if given.is_dir():
            prefix = f"{given.resolve().name}/" if len(paths) > 1 else ""
            new = [(path, prefix + path.relative_to(given).as_posix()) for path in _below(given)]
        elif not given.exists():
            raise InputError(f"{given}: cannot be read: no such file or folder")
        elif given.suffix.lower() not in FORMS:
            ends = ", ".join(FORMS)
            raise InputError(f"{given}: expected a folder, or a file that ends in {ends}")
        for path, name in new:
            if path.suffix.lower() not in FORMS:
                passed_over[path.suffix.lower() or "without ending"] += 1
            else:
                sources.setdefault(path.resolve(), (path, name))
    times = Counter(name for _, name in sources.values())
    return [(path, name if times[name] == 1 else str(path)) for path, name in sources.values()]


def _below(folder: Path) -> list[Path]:
    """All files below a folder, by name; links are followed, but into no folder twice."""

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None

    files: list[Path] = []
    visited: set[str] = set()
    for parent, inside, names in os.walk(folder, onerror=fail, followlinks=True):
        is_new = (real := os.path.realpath(parent)) not in visited
        visited.add(real)
        inside[:] = sorted(name for name in inside if is_new and not name.startswith("."))
        files += [Path(parent, name) for name in names if is_new and not name.startswith(".")]
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _passages(
    path: Path,
    name: str,
    options: RetrievalOptions,
    counts: Counter[str],
    passed_over: Counter[str],
) -> Iterator[tuple[Document, str]]:
    """A file's passages, each with how its row is named in errors."""
    text = _text(path)
    if text is None:
        # A file that is named itself is meant to be read.
        if str(path) in options.passages:
            raise InputError(f"{path}: expected text, found a binary file")
        passed_over["binary"] += 1
        return
    read = FORMS[path.suffix.lower()]
    is_text = read in (read_plain, read_markdown)
    is_cut = options.cut == "all" or (options.cut == "texts" and is_text)
    for number, record in enumerate(read(text, path), start=1):
        identity = name if is_text else record.id or f"{name}#{number}"
        title = " ".join((record.title or "").split()) or path.stem
        blocks = [joined for block in record.blocks if (joined := " ".join(block.split()))]
        if not blocks:
            counts[_EMPTY] += 1
            continue
        parts = [" ".join(blocks)]
        if is_cut:
            parts = cut(blocks, options.words, options.overlap, load_splitter())
        elif options.cut == "texts":
            counts[_LONG] += count_words(parts[0]) > 2 * options.words
        for place, part in enumerate(parts, start=1):
            numbered = f"{identity}#{place}" if is_text or len(parts) > 1 else identity
            yield Document(title, part, id=numbered), record.where


def _text(path: Path) -> str | None:
    """What a file holds; None if it is no text at all."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not wide and b"\0" in data:
        return None
    encoding, shown = ("utf-16", "UTF-16") if wide else ("utf-8-sig", "UTF-8")
    try:
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected {shown} text, byte {error.start} is not") from None


def count_words(text: str) -> int:
    """Words between spaces; of scripts without spaces every character counts."""
    return sum(1 for _ in _WORD.finditer(text))


def cut(blocks: Sequence[str], words: int, overlap: int, splitter: Splitter) -> list[str]:
    """Passages of at most `words` words.

    A passage ends with a block if it then has at least half of the words, else with a sentence.
    Only a sentence that is longer than a passage is cut inside.

    Args:
        blocks: paragraphs, and items of lists.
        words: the most words of a passage.
        overlap: a passage begins with the last sentences of the one before, as far as they have
            no more words than this, and leave room for one more sentence.
        splitter: where sentences end.
    """
    whole = " ".join(blocks)
    if count_words(whole) <= words:
        return [whole]
    passages: list[str] = []
    current: list[tuple[str, int]] = []
    for block in blocks:
        for place, part in enumerate(_parts(block, words, splitter)):
            size, held = count_words(part), sum(count for _, count in current)
            if current and (held + size > words or (place == 0 and 2 * held >= words)):
                passages.append(" ".join(text for text, _ in current))
                # Never the whole passage again, however short it is.
                del current[0]
                while current and sum(count for _, count in current) > min(overlap, words - size):
                    del current[0]
            current.append((part, size))
    return [*passages, " ".join(text for text, _ in current)]


def _parts(block: str, words: int, splitter: Splitter) -> Iterator[str]:
    """The sentences of a block, and of those that are longer than `words` parts of that size."""
    for start, end in splitter(block):
        for sentence in filter(None, _STOP.split(block[start:end])):
            places = [match.span() for match in _WORD.finditer(sentence)]
            for first in range(0, len(places), words):
                part = places[first : first + words]
                yield sentence[part[0][0] : part[-1][1]]
