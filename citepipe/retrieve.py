"""Documents for questions that come without any: BM25 (with bm25s) over a user's own texts.

Texts are cut into passages at the ends of sentences; rows are passages as they are.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from citepipe.data.example import Document, DocumentRow, Example
from citepipe.data.files import decoded, lines_of
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.progress import Progress, say, summary
from citepipe.text.lean import lean_imports
from citepipe.text.sentences import Splitter, load_splitter

# Thai, Lao, Burmese, Khmer, Japanese and Chinese characters: every one counts as a word.
_UNSPACED = "\u0e01-\u0e5b\u0e81-\u0edf\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
_UNSPACED += "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# What has no spaces for long is no word: it is cut like a sentence of many words.
_SHOWN_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]{{1,100}}")
# A run of letters, digits and the marks that belong to letters (Python's \w leaves out the vowel
# signs of Indic scripts).
_MARKS = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_SOUGHT_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}_])[\w{_MARKS}])+")

_DOCUMENT = TypeAdapter(DocumentRow)
# Paragraphs and the items of lists.
_BLOCK_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•‣◦|]|\d{1,3}[.)])\s)")
_STOP = re.compile(r"(?<=[。！？])")
_ENDS = tuple(".:;!?。！？：")
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*['\"]?(\S.*?)['\"]?[ \t]*$", re.MULTILINE)
_LONGEST_TITLE, _LONGEST_HEADING = 12, 30
"""Words of a first line, and of a Markdown heading, that can be the title of every passage."""
# Sums of the same numbers in another order differ by less, and have to tie.
_DECIMALS = 9


class Record(NamedTuple):
    """A text or a row, as errors name it, its title and id if any, its paragraphs and items."""

    where: str
    title: str | None
    blocks: list[str]
    id: str | None = None


def read_plain(text: str, path: Path) -> Iterator[Record]:
    """A text; a short first line that ends no sentence, before an empty line, is its title."""
    title, blocks = None, _BLOCK_END.split(text.strip())
    first, *rest = re.split(r"\n\s*\n", text.strip(), maxsplit=1)
    is_short = "\n" not in first and len(first.split()) <= _LONGEST_TITLE
    if rest and is_short and not first.endswith(_ENDS):
        title, *blocks = blocks
    yield Record(str(path), title, blocks)


def read_markdown(text: str, path: Path) -> Iterator[Record]:
    """A text in Markdown. The title is that of its front matter, or the first heading.

    Other headings begin the paragraph behind them (`Heading: text`); links lose their addresses.
    """
    from markdown_it import MarkdownIt

    title, heading, kind = None, "", ""
    blocks: list[str] = []
    if front := _FRONT_MATTER.match(text):
        named = _FRONT_TITLE.search(front[1])
        title, text = named and named[1], text[front.end() :]
    for token in MarkdownIt("commonmark").parse(text):
        # The text of a heading or paragraph comes behind the token that opens it.
        before, kind = kind, token.type
        content = "".join(
            " " if part.type.endswith("break") else part.content
            for part in token.children or [token]
            if part.type not in ("html_block", "html_inline")
        ).strip()
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
        row = validated(_DOCUMENT, decoded(line, where, one_line=True), where)
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
            names = ["id", "text", "title"][: max(len(cells), 2)]
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
    """Read and cut the files that the options name; log what was read, and what was not.

    Returns:
        Passages of different texts, in the order of the options' paths and the files' names. Their
        ids are the file's path in its folder and the passage's number (`a/b.md#2`), or what the
        row gives; where a file before gave the same, the file's name stands in front.

    Raises:
        InputError: a path that cannot be read, a text that is not UTF-8 or UTF-16, a row that is
            no passage, an id that comes twice in a file, or no passages at all.
    """
    passages: dict[str, Document] = {}
    ids: set[str] = set()
    counts: Counter[str] = Counter()
    given = options.passages or []
    for path, name in _sources(given, counts):
        own: dict[str, str] = {}
        for document, where in _passages(path, name, options, counts):
            identity = str(document.id)
            if (first := own.setdefault(identity, where)) != where:
                expected = f"expected another one than {first} has, got {identity}"
                raise InputError(f"{where}, field id: {expected}")
            if document.text in passages:
                counts["repeated texts left out"] += 1
                continue
            while identity in ids:
                identity = f"{name}#{identity}"
            ids.add(identity)
            passages[document.text] = replace(document, id=identity)
        counts["files"] += bool(own)
    files = counts.pop("files", 0)
    line = summary("retrieval", {"passages": len(passages), "files": files, **counts})
    if not passages:
        ends, paths = ", ".join(FORMS), ", ".join(given)
        raise InputError(f"{paths}: expected texts in files that end in {ends}; {line}")
    say(line)
    return list(passages.values())


def _sources(paths: Sequence[str], counts: Counter[str]) -> list[tuple[Path, str]]:
    """The files to read, each once, in order, with their names in the ids of passages."""
    sources: dict[Path, tuple[Path, str]] = {}
    for given in map(Path, paths):
        if not given.is_dir() and given.suffix.lower() not in FORMS:
            ends = ", ".join(FORMS)
            raise InputError(f"{given}: expected a folder, or a file that ends in {ends}")
        prefix = f"{given.resolve().name}/" if len(paths) > 1 else ""
        for path in _below(given) if given.is_dir() else [given]:
            if path.suffix.lower() not in FORMS:
                counts[f"files {path.suffix.lower() or 'without ending'} passed over"] += 1
                continue
            name = path.name if path == given else prefix + path.relative_to(given).as_posix()
            sources.setdefault(path.resolve(), (path, name))
    return list(sources.values())


def _below(folder: Path) -> list[Path]:
    """All files below a folder, by name; links are followed, but into no folder twice."""

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None

    files: list[Path] = []
    visited: set[str] = set()
    for parent, inside, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            inside.clear()
            continue
        visited.add(real)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _passages(
    path: Path, name: str, options: RetrievalOptions, counts: Counter[str]
) -> Iterator[tuple[Document, str]]:
    """A file's passages, each with how its row is named in errors."""
    text = _text(path)
    if text is None:
        # A file that is named itself is meant to be read.
        if str(path) in (options.passages or ()):
            raise InputError(f"{path}: expected text, found a binary file")
        counts["binary files passed over"] += 1
        return
    read = FORMS[path.suffix.lower()]
    is_text = read in (read_plain, read_markdown)
    is_cut = options.cut == "all" or (options.cut == "texts" and is_text)
    for number, record in enumerate(read(text, path), start=1):
        identity = name if is_text else record.id or f"{name}#{number}"
        title = " ".join((record.title or "").split()) or path.stem
        blocks = [joined for block in record.blocks if (joined := " ".join(block.split()))]
        if not blocks:
            counts["files or rows without text"] += 1
            continue
        parts = cut(blocks, options.words if is_cut else sys.maxsize, load_splitter())
        for place, part in enumerate(parts, start=1):
            numbered = f"{identity}#{place}" if is_text or len(parts) > 1 else identity
            yield Document(title, part, id=numbered), record.where


def _text(path: Path) -> str | None:
    """What a file holds; None if it is no text at all."""
    try:
        data = path.read_bytes()
        is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if not is_wide and b"\0" in data:
            return None
        text = data.decode("utf-16" if is_wide else "utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        form = "UTF-16" if is_wide else "UTF-8"
        raise InputError(f"{path}: expected {form} text, byte {error.start} is not") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def count_words(text: str) -> int:
    """Words between spaces; of scripts without spaces every character counts."""
    return sum(1 for _ in _SHOWN_WORD.finditer(text))


def cut(blocks: Sequence[str], words: int, splitter: Splitter) -> list[str]:
    """Passages of at most `words` words.

    A passage ends with a block (a paragraph, an item of a list) if it then has at least half of the
    words, else with a sentence. Only a sentence that is longer than a passage is cut inside.
    """
    whole = " ".join(blocks)
    if count_words(whole) <= words:
        return [whole]
    passages: list[list[str]] = [[]]
    held = 0
    for block in blocks:
        for place, part in enumerate(_parts(block, words, splitter)):
            size = count_words(part)
            if held and (held + size > words or (place == 0 and 2 * held >= words)):
                passages.append([])
                held = 0
            passages[-1].append(part)
            held += size
    return list(map(" ".join, passages))


def _parts(block: str, words: int, splitter: Splitter) -> Iterator[str]:
    """The sentences of a block, and of those that are longer than `words` parts of that size."""
    for start, end in splitter(block):
        for sentence in filter(None, _STOP.split(block[start:end])):
            places = [match.span() for match in _SHOWN_WORD.finditer(sentence)]
            for first in range(0, len(places), words):
                part = places[first : first + words]
                yield sentence[part[0][0] : part[-1][1]]


def words_of(texts: Sequence[str], options: RetrievalOptions) -> list[list[str]]:
    """The words of texts as BM25 counts them: compatible characters made one (NFKC), case folded,
    stop words left out, stemmed, and without accents."""
    from bm25s import stopwords

    with lean_imports():
        from nltk.stem.snowball import SnowballStemmer

    stop_words = options.stop_words or ()
    if isinstance(stop_words, str):
        name = "EN" if stop_words == "english" else stop_words.upper()
        stop_words = getattr(stopwords, f"STOPWORDS_{name}")
    left_out = set(map(_folded, stop_words))

    @cache
    def stem(word: str) -> str:
        # A new stemmer for each, as the Arabic one remembers things of the word before.
        stemmed = SnowballStemmer(options.stemmer).stem(word) if options.stemmer else word
        # `zürich` as `zurich`: people ask without accents.
        bare = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", stemmed or word))
        return unicodedata.normalize("NFC", bare) or word

    found = []
    progress = Progress("retrieval", len(texts), "texts read", patient=True)
    for text in texts:
        words = _SOUGHT_WORD.findall(_folded(text))
        found.append([stem(word) for word in words if word not in left_out])
        progress.advance()
    return found


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


class Retriever:
    """An index of passages in memory: words of titles and texts.

    Raises:
        InputError: there are no passages, or no words in them but stop words.
    """

    def __init__(self, passages: Sequence[Document], options: RetrievalOptions) -> None:
        from bm25s import BM25

        self.passages, self._options = passages, options
        words = words_of([f"{p.title}\n{p.text}" for p in passages], options)
        if not any(words):
            raise InputError(
                f"{', '.join(options.passages or ['documents'])}: expected passages with words in "
                f"them to look for, got {len(passages)} passages without any"
            )
        self._index = BM25(k1=options.k1, b=options.b, dtype="float64")
        self._index.index(words, create_empty_token=False, show_progress=False)

    def find(self, questions: Sequence[str], k: int) -> list[list[Document]]:
        """The best `k` passages for each question, best first; ties stand as the passages do.

        Only passages that share a word with the question are found, so there may be fewer or none.
        """
        found = []
        for words in words_of(questions, self._options):
            scores = self.scores(words).round(_DECIMALS)
            candidates = np.flatnonzero(scores > 0)
            # The sort is stable, and candidates stand in the order of the passages.
            best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
            found.append([self.passages[i] for i in best])
        return found

    def find_documents(self, examples: Sequence[Example], k: int) -> list[Example]:
        """The examples in their order; those without documents get the best `k` passages."""
        bare = [example for example in examples if not example.docs]
        if not bare:
            return list(examples)
        found = self.find([example.question for example in bare], k)
        without = sum(not docs for docs in found)
        few = sum(len(docs) < k for docs in found) - without
        say(
            f"retrieval: {len(bare)} of {len(examples)} questions had no documents and got up to "
            f"{k} of {len(self.passages)} passages, {few} of them fewer and {without} none"
        )
        each = iter(found)
        return [e if e.docs else replace(e, docs=tuple(next(each))) for e in examples]

    def scores(self, words: Sequence[str]) -> NDArray[np.float64]:
        """Every passage's score for a question's words (repeated ones count again), [passages]."""
        ids = self._index.get_tokens_ids(words)
        scores: NDArray[np.float64] = self._index.get_scores_from_ids(ids)
        return scores


def nearest_parts(examples: Sequence[Example], options: RetrievalOptions) -> list[Example]:
    """The examples with their own documents cut into passages, those nearest to the question first.

    Passages that share no word with it stand behind, in the order of the documents.
    """
    splitter, found = load_splitter(), []
    for example in examples:
        parts = {
            (doc.title, text): Document(doc.title, text, id=doc.id)
            for doc in example.docs
            for text in cut(_BLOCK_END.split(doc.text), options.words, splitter)
        }
        retriever = Retriever(list(parts.values()), options)
        scores = retriever.scores(words_of([example.question], options)[0]).round(_DECIMALS)
        best = np.argsort(-scores, kind="stable")
        found.append(replace(example, docs=tuple(retriever.passages[i] for i in best)))
    before, after = (sum(len(e.docs) for e in own) for own in (examples, found))
    say(f"retrieval: {before} documents of {len(found)} questions were cut into {after} passages")
    return found
