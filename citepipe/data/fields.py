"""Typed access to the fields of a decoded row; every complaint names the row and the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from citepipe.errors import InputError

_T = TypeVar("_T")
_LONGEST = 60
_NAMES: Mapping[Any, str] = {str: "a string", list: "a list", dict: "an object", bool: "a boolean"}


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of an object.

    Attributes:
        row: the object.
        where: how it is named in complaints.
        complaints: takes them, and what is wrong counts as empty; None raises the first.
    """

    row: Mapping[str, Any]
    where: str
    complaints: list[str] | None = None

    def complain(self, line: str) -> None:
        """Say that something is wrong: `line` follows on the object's name.

        Raises:
            InputError: if complaints are not collected.
        """
        if self.complaints is None:
            raise InputError(f"{self.where}{line}")
        self.complaints.append(f"{self.where}{line}")

    def inside(self, name: str, row: Mapping[str, Any]) -> Fields:
        """The fields of an object that stands in this one under `name`."""
        return Fields(row, f"{self.where}, field {name}", self.complaints)

    def required(self, name: str, kind: type[_T]) -> _T:
        """The value of a field that must be there; if it is not, an empty one."""
        if self.row.get(name) is None:
            self.complain(f", field {name}: missing")
            return kind()
        return self._typed(name, kind)

    def optional(self, name: str, kind: type[_T]) -> _T | None:
        """The value of a field that may be absent or null."""
        return None if self.row.get(name) is None else self._typed(name, kind)

    def each(self, name: str, kind: type[_T]) -> list[tuple[int, _T]]:
        """The elements of a list field that are of type `kind`, each behind its place; null counts
        as empty."""
        found = []
        for number, value in enumerate(self.optional(name, list) or []):
            if isinstance(value, kind):
                found.append((number, value))
            else:
                self.complain(
                    f", field {name}[{number}]: expected {_NAMES[kind]}, got {kind_of(value)}"
                )
        return found

    def strings(self, name: str, values: Any) -> tuple[str, ...]:
        """The strings of a list that stands under `name`."""
        if not isinstance(values, list):
            self.complain(f", field {name}: expected a list of strings, got {kind_of(values)}")
            return ()
        for number, value in enumerate(values):
            if not isinstance(value, str):
                self.complain(f", field {name}[{number}]: expected a string, got {kind_of(value)}")
        return tuple(value for value in values if isinstance(value, str))

    def _typed(self, name: str, kind: type[_T]) -> _T:
        value = self.row[name]
        if isinstance(value, kind):
            return value
        self.complain(f", field {name}: expected {_NAMES[kind]}, got {kind_of(value)}")
        return kind()


def kind_of(value: Any) -> str:
    """What a decoded value is, in words."""
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)


def shown(text: str) -> str:
    """A name or a value from a file, fit to stand in a line: printable and not too long."""
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return cut if cut.isprintable() else ascii(cut)
