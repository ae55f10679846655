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
_KINDS: dict[type, str] = {
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


def validated(adapter: TypeAdapter[_T], value: Any, where: str, inside: str = "") -> _T:
    """The value as a type of ours.

    Args:
        adapter: for the type.
        value: decoded JSON.
        where: how the record is named in errors, for instance `train.json, row 3`.
        inside: the field of the record that the value is, if it is not the whole.

    Raises:
        RowError: it does not fit; every line names the record and the field, and says what was
            expected and what is there.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RowError([_line(where, inside, dict(one)) for one in found]) from None


def _line(where: str, inside: str, error: dict[str, Any]) -> str:
    loc, kind = list(error["loc"]), error["type"]
    if loc[:1] == ["extra"]:
        # What nothing reads is named as a whole, however deep the fault is.
        loc = loc[1:2]
    path = inside
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{shown(part)}"
    field = f", field {path.lstrip('.')}" if path else ""
    if kind == "missing":
        return f"{where}{field}: missing"
    if kind == "recursion_depth_exceeded":
        return f"{where}{field}: expected JSON of ordinary depth"
    if kind not in _EXPECTED:
        return f"{where}{field}: {error['msg'].removeprefix('Value error, ')}"
    return f"{where}{field}: expected {_EXPECTED[kind]}, got {kind_of(error['input'])}"


def kind_of(value: Any) -> str:
    """What a decoded value is, in words."""
    return _KINDS.get(type(value), "something else")


def present(value: Any) -> Any:
    """An object without its null fields, which count as absent; anything else as it is."""
    if not isinstance(value, dict):
        return value
    return {name: inner for name, inner in value.items() if inner is not None}


def shown(text: str) -> str:
    """A name or a value from a file, fit to stand in a line: printable and not too long."""
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return cut if cut.isprintable() else ascii(cut)
