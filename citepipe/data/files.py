"""Reading and writing examples, result files and records; whatever is written appears whole."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from citepipe.data.example import DATASETS, Example
from citepipe.errors import InputError


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
    text = _text(path)
    return _unicode_only(_decoded(text, path), text, str(path))


def _decoded(text: str, path: Path | str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: expected JSON, {error.msg} at column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON of ordinary size and depth, {error}") from None


def read_jsonl(path: Path | str) -> list[Any]:
    """Decode a file with one JSON value per line; blank lines are passed over.

    Raises:
        InputError: the file is missing, or a line is not JSON; the message has the line.
    """
    return [_decoded_line(line, where) for where, line in _lines(path)]


def _text(path: Path | str) -> str:
    """What a file holds, without the mark that some systems put in front of UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, byte {error.start} is not") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _lines(path: Path | str, text: str | None = None) -> list[tuple[str, str]]:
    """The lines of a file that are not blank, each behind how it is named in complaints."""
    lines = (_text(path) if text is None else text).split("\n")
    return [
        (f"{path}, line {number}", line)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _decoded_line(line: str, where: str) -> Any:
    try:
        return _unicode_only(json.loads(line), line, where)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: expected JSON, {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected JSON, {error}") from None


@contextmanager
def _leave_out(bad: list[str] | None) -> Iterator[None]:
    """Put the complaint about a bad record into `bad` and go on behind the block; None raises."""
    try:
        yield
    except InputError as error:
        if bad is None:
            raise
        bad.append(str(error))


def _unicode_only(value: Any, source: str, where: str) -> Any:
    """The decoded value, if every escape in its source stands for text that can be written."""
    if "\\ud" not in source.lower():
        return value
    rows = enumerate(value) if isinstance(value, list) else [(None, value)]
    for number, row in rows:
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            surrogate = ascii(error.object[error.start])
            row_named = "" if number is None else f", row {number}"
            raise InputError(
                f"{where}{row_named}: expected Unicode text, got half a character, {surrogate}"
            ) from None
    return value


class Row(NamedTuple):
    """A row of a data file: how it is named in complaints, its place among the rows from 0, and
    the decoded value, or the complaint that it cannot be decoded."""

    where: str
    number: int
    value: Any


class Rows(NamedTuple):
    """The rows of a file, decoded one by one, with the form and the number of all of them."""

    form: Literal["list", "result", "lines"]
    total: int
    each: Iterator[Row]


def read_rows(path: Path | str) -> Rows:
    """Open a JSON list, an ALCE result file (`{"data": [...]}`), or a file of one row per line.

    What the file holds decides, not its name: JSON lines may be called `.json` (as EXPERTQA's
    are), and a list `.jsonl`.

    Raises:
        InputError: the file cannot be read, is neither of these, or has no rows. A line that is
            not JSON is a complaint in its place instead.
    """
    path = Path(path)
    text = _text(path)
    start = text.lstrip()[:1]
    if not start:
        raise InputError(f"{path}: expected at least one row, got an empty file")
    if path.suffix == ".jsonl" and start != "[":
        return _rows_of_lines(path, text)
    try:
        value = _decoded(text, path)
    except InputError:
        if _has_lines(text, start, path.suffix):
            return _rows_of_lines(path, text)
        raise
    form: Literal["list", "result"] = "list"
    if isinstance(value, dict):
        if "data" in value or "question" not in value:
            form, value = "result", value.get("data")
        else:
            value = [value]
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of rows, or an object with the list as `data`")
    if not value:
        raise InputError(f"{path}: expected at least one row, got none")
    return Rows(form, len(value), _checked_rows(value, text, path))


def _has_lines(text: str, start: str, suffix: str) -> bool:
    """Whether a text that is not JSON as a whole has a row per line: its first line is one."""
    first, newline, rest = text.strip().partition("\n")
    if not newline or not rest.strip() or (start != "{" and suffix != ".jsonl"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _rows_of_lines(path: Path, text: str) -> Rows:
    lines = _lines(path, text)

    def decoded() -> Iterator[Row]:
        for number, (where, line) in enumerate(lines):
            try:
                yield Row(where, number, _decoded_line(line, where))
            except InputError as error:
                yield Row(where, number, error)

    return Rows("lines", len(lines), decoded())


def _checked_rows(values: list[Any], text: str, path: Path) -> Iterator[Row]:
    # Looked for once, as a file may be large.
    escapes = "\\ud" if "\\ud" in text.lower() else ""
    for number, value in enumerate(values):
        where = f"{path}, row {number}"
        try:
            yield Row(where, number, _unicode_only(value, escapes, where))
        except InputError as error:
            yield Row(where, number, error)


def read_examples(
    path: Path | str,
    dataset: str | None = None,
    bad: list[str] | None = None,
    check: Callable[[Example, str], None] | None = None,
    needs_documents: bool = True,
    own_as: str | None = None,
) -> list[Example]:
    """Read the examples of a file (see `read_rows`).

    Args:
        path: the file.
        dataset: the dataset of rows that do not name theirs; by default it is looked for in the
            file's name, as ALCE does.
        bad: takes the complaint about each bad row, which is then left out; None raises the first.
        check: what else a row has to stand, given the example and how its row is named.
        needs_documents: a row must have a list of documents, be it empty.
        own_as: the dataset as which rows count for which there is none; None refuses them.

    Raises:
        InputError: broken JSON, a bad row, or no rows at all.
    """
    path = Path(path)
    if dataset is None:
        dataset = dataset_in_name(path)
    examples: list[Example] = []
    for where, number, value in read_rows(path).each:
        with _leave_out(bad):
            if isinstance(value, InputError):
                raise value
            example = Example.from_row(value, where, dataset, number, needs_documents, own_as)
            if check is not None:
                check(example, where)
            examples.append(example)
    return examples


def dataset_in_name(path: Path) -> str | None:
    """The dataset that a file's name speaks of, as ALCE's evaluation takes it from there."""
    return next((name for name in DATASETS if name in path.name.lower()), None)


def write_examples(path: Path | str, examples: Sequence[Example]) -> None:
    """Write examples as the authors' files have them: a JSON list of rows."""
    write_json(path, [example.to_row() for example in examples])


def write_result(path: Path | str, args: dict[str, Any], examples: Sequence[Example]) -> None:
    """Write an ALCE result file: `{"args": …, "data": [row with "output": str]}`."""
    rows = [{**example.to_row(), "output": example.output or ""} for example in examples]
    write_json(path, {"args": args, "data": rows})
