"""Decoded JSON checked by pydantic; what is wrong with it becomes lines that name row and field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from citepipe.errors import InputError

_T = TypeVar("_T")
_LONGEST = 60
_EXPECTED = {
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "an object",
    "dataclass_type": "an object",
}
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


class RowError(InputError):
    """A record that is refused; `lines` has a line for each thing that is wrong with it."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(lines[0])
        self.lines = list(lines)


def validated(adapter: TypeAdapter[_T], value: Any, where: str) -> _T:
    """Decoded JSON as a type of ours; `where` names the record in errors (`train.json, row 3`).

    Raises:
        RowError: it does not fit; every line names the record and the field, and says what was
            expected and what is there.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RowError([_line(where, dict(one)) for one in found]) from None


def _line(where: str, error: dict[str, Any]) -> str:
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{shown(p)}" for p in error["loc"])
    field = f"{where}, field {path.lstrip('.')}" if path else where
    if error["type"] == "missing":
        return f"{field}: missing"
    if expected := _EXPECTED.get(error["type"]):
        return f"{field}: expected {expected}, got {kind_of(error['input'])}"
    return f"{field}: {error['msg'].removeprefix('Value error, ')}"


def kind_of(value: Any) -> str:
    """What a decoded value is, in words."""
    return _KINDS[type(value)]


def present(value: Any) -> Any:
    """An object without its null fields, which count as absent; anything else as it is."""
    if not isinstance(value, dict):
        return value
    return {name: inner for name, inner in value.items() if inner is not None}


def shown(text: str) -> str:
    """A name or a value from a file, fit to stand in a line: printable and not too long."""
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return cut if cut.isprintable() else ascii(cut)
