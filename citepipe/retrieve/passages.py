"""Passages from a user's own files: texts are cut at sentence ends, rows are taken as they are."""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from citepipe.data.example import Document, DocumentRow
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.progress import say, summary
from citepipe.retrieve.cut import count_words, cut
from citepipe.retrieve.texts import read_markdown, read_plain
from citepipe.text.sentences import load_splitter

Form = Literal["plain", "markdown", "rows", "table"]

FORMS: dict[str, Form] = {
    ".txt": "plain",
    ".text": "plain",
    ".md": "markdown",
    ".markdown": "markdown",
    ".jsonl": "rows",
    ".ndjson": "rows",
    ".tsv": "table",
}
"""How a file is read, by how its name ends; a folder's other files are passed over."""

_DOCUMENT = TypeAdapter(DocumentRow)
_COLUMNS = ("id", "text", "title")
"""The columns of a table without a line that names them, as in DPR's file of Wikipedia."""


@dataclass(slots=True)
class Passages:
    """What was read.

    Attributes:
        documents: the passages, in the order of the configuration's paths, of the names of files
            and of their places in them; with different ids and different texts.
        files: how many files they are from.
        duplicates: passages left out because one before has the same text.
        empty: files and rows without any text.
        passed_over: files of other kinds, by how their names end; `binary` for texts that are none.
        long_rows: rows, not cut, with more than twice the words of a passage.
    """

    documents: list[Document] = field(default_factory=list)
    files: int = 0
    duplicates: int = 0
    empty: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    long_rows: int = 0

    def summary(self) -> str:
        """What was read and what was not, in one line."""
        figures: dict[str, object] = {"passages": len(self.documents), "files": self.files}
        if self.duplicates:
            figures["repeated texts left out"] = self.duplicates
        if self.empty:
            figures["files or rows without text"] = self.empty
        if self.passed_over:
            kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self.passed_over.items()))
            figures["files passed over"] = f"{self.passed_over.total()} ({kinds})"
        if self.long_rows:
            figures["long rows left whole"] = f"{self.long_rows} (`cut: all` cuts them)"
        return summary("retrieval", figures)


class _Source(NamedTuple):
    """A file, the name that its passages have it by, and whether it was named itself."""

    path: Path
    name: str
    named: bool

    @property
    def form(self) -> Form:
        return FORMS[self.path.suffix.lower()]


class _Piece(NamedTuple):
    """A passage, how its row is named in complaints, and whether the id is the row's own."""

    document: Document
    where: str
    own_id: bool


class _Row(NamedTuple):
    where: str
    id: str | None
    title: str | None
    text: str


def read_passages(options: RetrievalOptions) -> Passages:
    """Read and cut the files that the options name.

    Folders are read with all that is below them, by the names of files; what begins with a dot is
    passed over. Ids are the file's path in its folder and the passage's number (`a/b.md#2`), or
    what the row gives; where a file before gave the same, the file's name stands in front. What
    was read, and what was not, is said.

    Raises:
        InputError: a path that cannot be read, a text that is not UTF-8 or UTF-16, a row that is
            no passage, an id that comes twice in a file, or no passages at all.
    """
    found = Passages()
    texts: set[str] = set()
    ids: set[str] = set()
    for source in _sources(options.passages, found):
        own: dict[str, str] = {}
        any_text = False
        for document, where, own_id in _pieces(source, options, found):
            any_text = True
            identity = str(document.id)
            if own_id and own.setdefault(identity, where) != where:
                raise InputError(
                    f"{where}, field id: expected another one than {own[identity]} has, got "
                    f"{identity}"
                )
            if document.text in texts:
                found.duplicates += 1
                continue
            while identity in ids:
                identity = f"{source.name}#{identity}"
            texts.add(document.text)
            ids.add(identity)
            found.documents.append(Document(document.title, document.text, id=identity))
        found.files += any_text
    if not found.documents:
        raise InputError(
            f"{', '.join(options.passages)}: expected texts in files that end in "
            f"{', '.join(FORMS)}; {found.summary()}"
        )
    say(found.summary())
    return found


def _sources(paths: Sequence[str], found: Passages) -> list[_Source]:
    """The files to read, each once, in order."""
    sources: list[_Source] = []
    seen: set[Path] = set()
    for given in map(Path, paths):
        if given.is_dir():
            prefix = f"{given.resolve().name}/" if len(paths) > 1 else ""
            new = [
                _Source(p, f"{prefix}{p.relative_to(given).as_posix()}", False)
                for p in _below(given)
            ]
        elif not given.exists():
            raise InputError(f"{given}: cannot be read: no such file or folder")
        elif given.suffix.lower() not in FORMS:
            raise InputError(
                f"{given}: expected a folder, or a file that ends in {', '.join(FORMS)}"
            )
        else:
            new = [_Source(given, given.name, True)]
        for source in new:
            kind = source.path.suffix.lower()
            if source.path.resolve() in seen:
                continue
            seen.add(source.path.resolve())
            if kind in FORMS:
                sources.append(source)
            else:
                found.passed_over[kind or "without ending"] += 1
    names = Counter(source.name for source in sources)
    return [s if names[s.name] == 1 else s._replace(name=s.path.as_posix()) for s in sources]


def _below(folder: Path) -> list[Path]:
    """All files below a folder, by name; links are followed, but into no folder twice."""

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None

    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for parent, inside, names in os.walk(folder, onerror=fail, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:
            inside.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _pieces(source: _Source, options: RetrievalOptions, found: Passages) -> Iterator[_Piece]:
    """A file's passages."""
    path = source.path
    splitter = load_splitter()
    if source.form in ("plain", "markdown"):
        whole = _whole_text(source)
        if whole is None:
            found.passed_over["binary"] += 1
            return
        read = read_plain if source.form == "plain" else read_markdown
        title, paragraphs = read(whole)
        if options.cut == "nothing":
            texts = [" ".join(block for paragraph in paragraphs for block in paragraph)]
        else:
            texts = cut(paragraphs, options.words, options.overlap, splitter)
        if not any(texts):
            found.empty += 1
            return
        for number, text in enumerate(texts, start=1):
            document = Document(title or path.stem, text, id=f"{source.name}#{number}")
            yield _Piece(document, str(path), own_id=False)
        return
    for number, row in enumerate(_rows(path) if source.form == "rows" else _table(path), start=1):
        text = " ".join(row.text.split())
        title = " ".join((row.title or "").split()) or path.stem
        identity = row.id or f"{source.name}#{number}"
        if not text:
            found.empty += 1
        elif options.cut != "all" or count_words(text) <= options.words:
            found.long_rows += options.cut == "texts" and count_words(text) > 2 * options.words
            yield _Piece(Document(title, text, id=identity), row.where, row.id is not None)
        else:
            for part, text in enumerate(
                cut(read_plain(row.text).paragraphs, options.words, options.overlap, splitter), 1
            ):
                yield _Piece(
                    Document(title, text, id=f"{identity}#{part}"), row.where, row.id is not None
                )


def _whole_text(source: _Source) -> str | None:
    """What a text file holds; None for one in a folder that is no text at all."""
    path = source.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not wide and b"\0" in data:
        if source.named:
            raise InputError(f"{path}: expected text, found a binary file")
        return None
    encoding, shown = ("utf-16", "UTF-16") if wide else ("utf-8-sig", "UTF-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected {shown} text, byte {error.start} is not") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, one at a time, each behind how it is named in complaints."""
    try:
        with path.open("rb") as stream:
            for number, data in enumerate(stream, start=1):
                where = f"{path}, line {number}"
                try:
                    line = data.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{where}: expected UTF-8 text, byte {error.start} of the line is not"
                    ) from None
                if line.strip():
                    yield where, line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _rows(path: Path) -> Iterator[_Row]:
    """Passages of a file with a JSON object per line."""
    for where, line in _lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where}: expected JSON, {error.msg} at column {error.colno}"
            ) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: expected JSON, {error}") from None
        document = validated(_DOCUMENT, row, where)
        found = _Row(where, document.id or None, document.title, document.text)
        # Bytes that are UTF-8 hold no half characters, but an escape may stand for one.
        if "\\ud" in line.lower():
            _check_unicode(found)
        yield found


def _check_unicode(row: _Row) -> None:
    for name, value in (("id", row.id), ("title", row.title), ("text", row.text)):
        try:
            (value or "").encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"{row.where}, field {name}: expected Unicode text, got half a character"
            ) from None


def _table(path: Path) -> Iterator[_Row]:
    """Passages of a file with columns between tabs: id, text, title, or as its first line says."""
    names: Sequence[str] | None = None
    for where, line in _lines(path):
        cells = [_cell(cell) for cell in line.split("\t")]
        if names is None:
            lower = [cell.strip().lower() for cell in cells]
            if "text" in lower:
                names = lower
                continue
            if len(cells) not in (2, 3):
                raise InputError(
                    f"{where}: expected columns id, text and title between tabs, or their names, "
                    f"got {len(cells)} column{'s' * (len(cells) != 1)}"
                )
            names = _COLUMNS[: len(cells)]
        if len(cells) != len(names):
            raise InputError(
                f"{where}: expected {len(names)} columns ({', '.join(names)}), got {len(cells)}"
            )
        row = dict(zip(names, cells, strict=True))
        yield _Row(where, row.get("id") or None, row.get("title"), row["text"])


def _cell(cell: str) -> str:
    """A cell without the quotes that a CSV writer puts around texts with quotes in them."""
    if len(cell) > 1 and cell.startswith('"') and cell.endswith('"'):
        return cell[1:-1].replace('""', '"')
    return cell
