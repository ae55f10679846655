"""Reading and writing examples, result files and records; whatever is written appears whole."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from citepipe.data.example import DATASETS, Example
from citepipe.errors import InputError

_INK = re.compile(r"\S")


@contextmanager
def atomic_writer(path: Path | str) -> Iterator[TextIO]:
    """A text file that appears under `path` only when the block ends without an error.

    A link stays a link: the file that it leads to is replaced. A pipe or a device is written to
    as the block goes on. What killed writers of the same file have left behind is removed.

    Raises:
        InputError: it cannot be written; what was there stays.
    """
    path, target = Path(path), Path(os.path.realpath(path))
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8") as stream:
                yield stream
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
            if not _is_running(left.name.split(".")[-2]):
                left.unlink(missing_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            with partial.open("w", encoding="utf-8") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass  # It is another user's.
    return True


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    with atomic_writer(path) as stream:
        json.dump(value, stream, ensure_ascii=False, indent=1)
        stream.write("\n")


def write_jsonl(path: Path | str, records: Iterable[Any]) -> None:
    """Write one JSON value per line, atomically."""
    with atomic_writer(path) as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Decode a JSON file.

    Raises:
        InputError: the file is missing, unreadable, or not JSON; the message has the line.
    """
    text = read_text(path)
    return _whole_characters(_decoded(text, path), text, path)


def read_jsonl(path: Path | str) -> list[Any]:
    """Decode a file with one JSON value per line; blank lines are passed over.

    Raises:
        InputError: the file is missing, or a line is not JSON; the message has the line.
    """
    return [decoded_line(line, where) for where, line in lines_of(read_text(path), path)]


def read_text(path: Path | str) -> str:
    """What a file holds, without the mark that some systems put in front of UTF-8.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, byte {error.start} is not") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def lines_of(text: str, path: Path | str) -> list[tuple[str, str]]:
    """The lines that are not blank, each behind how it is named in errors."""
    return [
        (f"{path}, line {number}", line)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def decoded_line(line: str, where: str) -> Any:
    """The JSON value of one line.

    Raises:
        InputError: it is not JSON.
    """
    return _whole_characters(_decoded(line, where, one_line=True), line, where)


def _decoded(text: str, where: Path | str, one_line: bool = False) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = "" if one_line else f", line {error.lineno}"
        raise InputError(
            f"{where}{line}: expected JSON, {error.msg} at column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected JSON of ordinary size and depth, {error}") from None


def _whole_characters(value: Any, source: str, where: Path | str) -> Any:
    """The decoded value, if every escape in its source stands for text that can be written."""
    if "\\ud" in source or "\\uD" in source:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: expected Unicode text, got half a character, "
                f"{error.object[error.start]!a}"
            ) from None
    return value


class Rows(NamedTuple):
    """The rows of a file: their form, their number, and each decoded as it is read.

    `each` yields how a row is named in errors, and its value, or the error that there is none.
    """

    form: Literal["list", "result", "lines"]
    total: int
    each: Iterator[tuple[str, Any]]


def read_rows(path: Path | str) -> Rows:
    """Open a JSON list, an ALCE result file (`{"data": [...]}`), or a file of one row per line.

    What the file holds decides, not its name: JSON lines may be called `.json` (as EXPERTQA's
    are), and a list `.jsonl`.

    Raises:
        InputError: the file cannot be read, is neither of these, or has no rows.
    """
    path, text = Path(path), read_text(path)
    begin = _INK.search(text)
    if begin is None:
        raise InputError(f"{path}: expected at least one row, got an empty file")
    if _has_lines(text, begin.start()) or (path.suffix == ".jsonl" and begin[0] != "["):
        lines = lines_of(text, path)
        return Rows("lines", len(lines), _each(lines, decoded_line))
    value = _decoded(text, path)
    form: Literal["list", "result"] = "list"
    if isinstance(value, dict) and ("data" in value or "question" not in value):
        form, value = "result", value.get("data")
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of rows, or an object with the list as `data`")
    if not value:
        raise InputError(f"{path}: expected at least one row, got none")
    # Looked for once, as a file may be large.
    escapes = "\\ud" if "\\ud" in text or "\\uD" in text else ""
    rows = ((f"{path}, row {number}", row) for number, row in enumerate(value))
    decode = lambda row, where: _whole_characters(row, escapes, where)  # noqa: E731
    return Rows(form, len(value), _each(rows, decode))


def _has_lines(text: str, begin: int) -> bool:
    """Whether the first line is JSON as it stands, and more follows; copies no more than that."""
    end = text.find("\n", begin)
    if end < 0 or not _INK.search(text, end):
        return False
    try:
        json.loads(text[begin:end])
    except (ValueError, RecursionError):
        return False
    return True


def _each(
    rows: Iterable[tuple[str, Any]], decode: Callable[[Any, str], Any]
) -> Iterator[tuple[str, Any]]:
    for where, row in rows:
        try:
            yield where, decode(row, where)
        except InputError as error:
            yield where, error


def each_example(
    path: Path | str,
    dataset: str | None = None,
    needs_documents: bool = True,
    own_as: str | None = None,
) -> Iterator[tuple[str, Example | InputError]]:
    """How each row of a file is named in errors, and its example, or what is wrong with it.

    The arguments are those of `read_examples`.
    """
    dataset = dataset or dataset_in_name(path)
    for number, (where, row) in enumerate(read_rows(path).each):
        try:
            yield where, Example.from_row(row, where, dataset, number, needs_documents, own_as)
        except InputError as error:
            yield where, error


def read_examples(
    path: Path | str,
    dataset: str | None = None,
    needs_documents: bool = True,
    own_as: str | None = None,
) -> list[Example]:
    """Read the examples of a file (see `read_rows`).

    Args:
        path: the file.
        dataset: the dataset of rows that do not name theirs; by default it is looked for in the
            file's name, as ALCE does.
        needs_documents: a row must have a list of documents, be it empty.
        own_as: the dataset as which rows count for which there is none; None refuses them.

    Raises:
        InputError: broken JSON, a bad row, or no rows at all.
    """
    examples = []
    for _, found in each_example(path, dataset, needs_documents, own_as):
        if isinstance(found, InputError):
            raise found
        examples.append(found)
    return examples


def dataset_in_name(path: Path | str) -> str | None:
    """The dataset that a file's name speaks of, as ALCE's evaluation takes it from there.

    A name that speaks of several says nothing.
    """
    named = [name for name in DATASETS if name in Path(path).name.lower()]
    return named[0] if len(named) == 1 else None


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """A file of answers.

    Attributes:
        path: the file.
        sha256: of what it held.
        examples: the questions, with the answer as it was written in `output`.
        left_out: the complaints about bad rows, if those were to be left out.
    """

    path: Path
    sha256: str
    examples: list[Example]
    left_out: list[str]

    @property
    def without_documents(self) -> int:
        """How many examples have no documents: whatever their answers cite is out of range."""
        return sum(not example.docs for example in self.examples)

    @property
    def outputs(self) -> list[str]:
        """The answers as they were written."""
        return [example.output or "" for example in self.examples]


def read_answers(path: Path, dataset: str | None, skip_bad: bool = False) -> AnswerFile:
    """Read an ALCE result file, or a list of examples with `output`.

    Args:
        path: the file.
        dataset: the dataset of all rows; None takes what the rows or the file's name say.
        skip_bad: leave bad rows out instead of refusing the file.

    Raises:
        InputError: there is no such dataset; a bad row, one without `output`, or one of another
            dataset; or, if those are to be left out, no other.
    """
    if dataset is not None and dataset not in DATASETS:
        raise InputError(f"dataset {dataset!r}: expected one of {', '.join(DATASETS)}")
    left_out: list[str] = []
    examples: list[Example] = []
    for where, found in each_example(path, dataset):
        if isinstance(found, InputError):
            bad = found
        elif dataset is not None and found.dataset != dataset:
            bad = InputError(f"{where}, field dataset: expected {dataset}, got {found.dataset}")
        elif found.output is None:
            bad = InputError(f"{where}, field output: missing")
        else:
            examples.append(found)
            continue
        if not skip_bad:
            raise bad
        left_out.append(str(bad))
    if not examples:
        raise InputError(f"{path}: no row can be used; the first complaint: {left_out[0]}")
    return AnswerFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), examples, left_out)


def write_examples(path: Path | str, examples: Sequence[Example]) -> None:
    """Write examples as the authors' files have them: a JSON list of rows."""
    write_json(path, [example.to_row() for example in examples])


def write_result(path: Path | str, args: dict[str, Any], examples: Sequence[Example]) -> None:
    """Write an ALCE result file: `{"args": …, "data": [row with "output": str]}`."""
    rows = [{**example.to_row(), "output": example.output or ""} for example in examples]
    write_json(path, {"args": args, "data": rows})
