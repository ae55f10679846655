"""Reading and writing examples, result files and records; whatever is written appears whole."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from pydantic_core import from_json

from citepipe.data.example import DATASETS, NAMES, Example, from_cells
from citepipe.errors import InputError


@contextmanager
def atomic_writer(path: Path | str) -> Iterator[TextIO]:
    """A text file that appears under `path` only when the block ends without an error.

    A link stays a link: the file that it leads to is replaced. A pipe or a device is written to
    as the block goes on.

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
        # One name for all writers, so that the next one replaces what a killed one has left.
        partial = target.with_name(f".{target.name}.partial")
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
    """Decode a JSON file; InputError if it is missing, unreadable or not JSON, with the line."""
    return decoded(read_text(path), path)


def read_jsonl(path: Path | str) -> list[Any]:
    """Decode a file with one JSON value per line, passing over blank lines; errors as above."""
    return [decoded(line, where, one_line=True) for where, line in lines_of(read_text(path), path)]


def read_text(path: Path | str) -> str:
    """What a file holds, without a byte order mark; InputError if it is not UTF-8."""
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


def decoded(text: str, where: Path | str, one_line: bool = False) -> Any:
    """The JSON value of a text, or of one line of it; InputError if it is not JSON."""
    try:
        return from_json(text)
    except ValueError as error:
        if "hex escape" in str(error):
            from citepipe.progress import say

            with suppress(ValueError):
                halves = json.dumps(json.loads(text), ensure_ascii=False)
                say(f"{where}: half of a surrogate pair, which is no character, is read as U+FFFD")
                return from_json(
                    halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                )
        what, line, column = re.split(r" at line (\d+) column ", str(error))
        place = where if one_line else f"{where}, line {line}"
        raise InputError(f"{place}: expected JSON, {what} at column {column}") from None


class Rows(NamedTuple):
    """The rows of a file: the dataset that its `args` name, and how each row is named in errors,
    with its value, or the error that there is none."""

    dataset: str | None
    each: Iterator[tuple[str, Any]]


def read_rows(path: Path | str | Sequence[Any]) -> Rows:
    """The rows of a JSON list, an ALCE result file (`{"data": [...]}`), a file of one per line, or
    a table (`.csv`, `.tsv`, `.parquet`).

    But for tables what the file holds decides, not its name: JSON lines may be called `.json` (as
    EXPERTQA's are), and a list `.jsonl`. Rows that are there already are taken as they are.

    Raises:
        InputError: the file cannot be read, is none of these, or has no rows.
    """
    if not isinstance(path, (Path, str)):
        if not path:
            raise InputError("rows: expected at least one row, got none")
        return Rows(None, ((f"row {number}", row) for number, row in enumerate(path)))
    ending = Path(path).suffix.lower()
    if ending == ".parquet":
        value: Any = _parquet(path)
    else:
        text = read_text(path)
        begin = text.lstrip()[:1]
        if not begin:
            raise InputError(f"{path}: expected at least one row, got an empty file")
        if ending in (".csv", ".tsv"):
            return Rows(None, iter(_table(text, path)))
        if _has_lines(text) or (ending == ".jsonl" and begin != "["):
            return Rows(None, _each(lines_of(text, path)))
        value = decoded(text, path)
    said = None
    if isinstance(value, dict):
        args = value.get("args")
        said = args.get("dataset_name", args.get("dataset")) if isinstance(args, dict) else None
        is_row = "data" not in value and any(name in value for name in NAMES["question"])
        value = [value] if is_row else value.get("data")
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of rows, or an object with the list as `data`")
    if not value:
        raise InputError(f"{path}: expected at least one row, got none")
    each = ((f"{path}, row {number}", row) for number, row in enumerate(value))
    return Rows(said if said in DATASETS else None, each)


def _table(text: str, path: Path | str) -> list[tuple[str, Any]]:
    """The rows of comma- (or semicolon-) and of tab-separated values, below a line of names."""
    csv.field_size_limit(sys.maxsize)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    lines = csv.reader(StringIO(text), delimiter=delimiter, strict=True)
    found: list[tuple[str, Any]] = []
    where = f"{path}, line 1"
    try:
        names = [re.sub(r"\W+", "_", name.strip().lower()) for name in next(lines)]
        where = f"{path}, line {lines.line_num + 1}"
        for cells in lines:
            if len(cells) == len(names):
                found.append((where, from_cells(names, cells)))
            elif cells:
                expected = f"expected {len(names)} cells as in the first line"
                found.append((where, InputError(f"{where}: {expected}, got {len(cells)}")))
            where = f"{path}, line {lines.line_num + 1}"
    except csv.Error as error:
        raise InputError(f"{where}: expected a row of a table: {error}") from None
    if not found:
        raise InputError(f"{path}: expected at least one row, got none")
    return found


def _parquet(path: Path | str) -> Any:
    import pandas as pd

    try:
        return json.loads(pd.read_parquet(path).to_json(orient="records"))
    except ImportError:
        raise InputError(f"{path}: Parquet is read with pyarrow: pip install pyarrow") from None
    # A damaged file makes its reader raise anything.
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as Parquet: {line}") from None


def _has_lines(text: str) -> bool:
    """Whether the first line is JSON as it stands, and more follows."""
    first, newline, _ = text.strip().partition("\n")
    try:
        return bool(newline) and from_json(first) is not None
    except ValueError:
        return False


def _each(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    for where, line in lines:
        try:
            yield where, decoded(line, where, one_line=True)
        except InputError as error:
            yield where, error


def each_example(
    path: Path | str | Sequence[Any],
    dataset: str | None = None,
    needs_documents: bool = True,
    own_as: str | None = None,
) -> Iterator[tuple[str, Example | InputError]]:
    """How each row of a file is named in errors, and its example, or what is wrong with it.

    Arguments are those of `Example.from_row`; by default the dataset of rows that do not name
    theirs is that of the file (`dataset_of`).
    """
    rows = read_rows(path)
    dataset = dataset or dataset_of(path, rows)
    for number, (where, row) in enumerate(rows.each):
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
    """The examples of `each_example`; InputError for broken JSON, a bad row, or no rows."""
    return [example_of(found) for _, found in each_example(path, dataset, needs_documents, own_as)]


def example_of(found: Example | InputError) -> Example:
    """The example that `each_example` yields, if it is one; else its error is raised."""
    if isinstance(found, InputError):
        raise found
    return found


def dataset_of(path: Path | str | Sequence[Any], rows: Rows) -> str | None:
    """The dataset of a file: what its `args` name, or else the one that its name has in it, as in
    ALCE's evaluation; None for none or several."""
    named = named_in(path)
    return rows.dataset or (named[0] if len(named) == 1 else None)


def named_in(path: Path | str | Sequence[Any]) -> list[str]:
    """The datasets that a file's name has in it; rows have none."""
    name = Path(path).name.lower() if isinstance(path, (Path, str)) else ""
    return [dataset for dataset in DATASETS[:-1] if dataset in name]


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """A file of answers, its digest, the questions with the answer as it was written in `output`,
    and what is wrong with the rows that were left out."""

    path: Path
    sha256: str
    examples: list[Example]
    left_out: list[str]

    @property
    def outputs(self) -> list[str]:
        """The answers as they were written."""
        return [example.output or "" for example in self.examples]


def read_answers(
    path: Path | Sequence[Any], dataset: str | None, skip_bad: bool = False
) -> AnswerFile:
    """Read an ALCE result file, or rows with `output`.

    Args:
        path: the file, or its rows.
        dataset: the dataset of all rows; None takes that of the rows, of the file's `args` or of
            its name, and else `own`, unless the name has several.
        skip_bad: leave bad rows out instead of refusing the file.

    Raises:
        InputError: there is no such dataset; a bad row, one without `output`, or one of another
            dataset; or, if those are to be left out, no other.
    """
    if dataset is not None and dataset not in DATASETS:
        raise InputError(f"dataset {dataset!r}: expected one of {', '.join(DATASETS)}")
    name = path if isinstance(path, Path) else Path("rows")
    left_out: list[str] = []
    examples: list[Example] = []
    own_as = "own" if len(named_in(path)) < 2 else None
    for where, found in each_example(path, dataset, own_as=own_as):
        if isinstance(found, InputError):
            bad = found
        elif dataset is not None and found.dataset != dataset:
            bad = InputError(f"{where}, field dataset: expected {dataset}, got {found.dataset}")
        elif found.output is None:
            others = ", ".join(NAMES["output"][1:])
            bad = InputError(f"{where}, field output: missing (also read as {others})")
        else:
            examples.append(found)
            continue
        if not skip_bad:
            raise bad
        left_out.append(str(bad))
    if not examples:
        first = f"; the first complaint: {left_out[0]}" if left_out else ""
        raise InputError(f"{name}: no row can be used{first}")
    read = path.read_bytes() if isinstance(path, Path) else json.dumps(path, default=str).encode()
    return AnswerFile(name, hashlib.sha256(read).hexdigest(), examples, left_out)


def write_examples(path: Path | str, examples: Sequence[Example]) -> None:
    """Write examples as the authors' files have them: a JSON list of rows."""
    write_json(path, [example.to_row() for example in examples])


def write_result(path: Path | str, args: dict[str, Any], examples: Sequence[Example]) -> None:
    """Write an ALCE result file: `{"args": …, "data": [row with "output": str]}`."""
    rows = [example.to_row() | {"output": example.output or ""} for example in examples]
    write_json(path, {"args": args, "data": rows})
