"""Reading and writing examples, result files and records; whatever is written appears whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from citepipe.data.example import DATASETS, Example
from citepipe.errors import InputError


@contextmanager
def atomic_writer(path: Path | str) -> Iterator[TextIO]:
    """A text file that appears under `path` only when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, byte {error.start} is not") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return _unicode_only(json.loads(text), text, str(path))
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
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, byte {error.start} is not") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    values = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values.append(_unicode_only(json.loads(line), line, f"{path}, line {number}"))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: expected JSON, {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: expected JSON, {error}") from None
    return values


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


def read_examples(path: Path | str, dataset: str | None = None) -> list[Example]:
    """Read a list of examples: a JSON list, an ALCE result file, or (`.jsonl`) one row per line.

    Args:
        path: the file.
        dataset: the dataset of rows that do not name theirs; by default it is looked for in the
            file's name, as ALCE does.

    Raises:
        InputError: broken JSON, a bad row, or no rows at all.
    """
    path = Path(path)
    rows = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
    if isinstance(rows, dict):
        rows = rows.get("data")
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of rows, or an object with the list as `data`")
    if not rows:
        raise InputError(f"{path}: expected at least one row, got none")
    if dataset is None:
        dataset = dataset_in_name(path)
    return [
        Example.from_row(row, f"{path}, row {number}", dataset, number)
        for number, row in enumerate(rows)
    ]


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
