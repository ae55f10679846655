"""Tensors of a torch checkpoint (`.bin`, `.pt`), read without unpickling.

A pickle is a program. Here its opcodes are interpreted, by a closed list of those that checkpoints
of weights have, and of the functions that they name only a few are understood, as words: nothing is
imported or called because a file says so. Whatever else a file has in it is refused by name.

The format is that of torch since 1.6 (`torch/serialization.py`): a zip file whose `data.pkl`
describes the tensors and whose `data/N` hold their numbers.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError

if TYPE_CHECKING:
    import torch

_DTYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = ("torch._utils", "_rebuild_parameter")
_DICT = ("collections", "OrderedDict")
_MOST_OPCODES = 20_000_000
_MOST_PICKLE = 2**28
_LONGEST_NAME = 80
_FAULTS = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,
    UnicodeDecodeError,
    NotImplementedError,
    EOFError,
    OSError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, slots=True)
class _Name:
    """What a pickle wants to import; it stays a word."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers in the file: their type, where they are, how many there are."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: which numbers of a storage, in which order."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """Where a group of things begins on the stack."""


_MARK = _Mark()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a state dictionary, by their names.

    A dictionary of dictionaries (`{"state_dict": {...}}`) is taken apart one level deep.

    Raises:
        InputError: the file is no checkpoint of tensors, is damaged, or has in it what tensors do
            not need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except InputError:
        raise
    except zipfile.BadZipFile:
        raise InputError(
            f"{path}: expected a checkpoint of torch 1.6 or later, which is a zip file"
        ) from None
    except _FAULTS as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: expected a checkpoint of tensors: {said}") from None


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, torch.Tensor]:
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise InputError(f"{path}: expected a checkpoint of torch, a zip file with one data.pkl")
    folder = pickles[0].rpartition("/")[0]
    if archive.getinfo(pickles[0]).file_size > _MOST_PICKLE:
        raise InputError(f"{path}: expected tensors, its data.pkl alone is larger than 256 MiB")
    if f"{folder}/byteorder" in archive.namelist():
        order = archive.read(f"{folder}/byteorder").decode()
        if order != "little":
            raise InputError(f"{path}: expected numbers in little-endian order, got {order[:20]!r}")
    found = _interpret(path, archive.read(pickles[0]))
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected names with tensors, got {type(found).__name__}")
    views: dict[str, _View] = {}
    for name, value in found.items():
        inner = value.items() if isinstance(value, dict) else [(None, value)]
        for below, view in inner:
            if not isinstance(view, _View):
                continue
            full = str(name) if below is None or name == "state_dict" else f"{name}.{below}"
            views[str(below) if name == "state_dict" else full] = view
    if not views:
        raise InputError(f"{path}: expected tensors, there are none in it")
    loaded: dict[_Storage, torch.Tensor] = {}
    return {
        name: _tensor(path, archive, folder, name, view, loaded) for name, view in views.items()
    }


def _tensor(
    path: Path,
    archive: zipfile.ZipFile,
    folder: str,
    name: str,
    view: _View,
    loaded: dict[_Storage, torch.Tensor],
) -> torch.Tensor:
    import torch

    storage = view.storage
    if storage not in loaded:
        dtype = getattr(torch, storage.dtype)
        member = f"{folder}/data/{storage.key}"
        size = archive.getinfo(member).file_size
        if size != storage.count * dtype.itemsize:
            raise InputError(
                f"{path}, tensor {name}: expected {storage.count} numbers of {storage.dtype} in "
                f"{member}, it has {size} bytes"
            )
        data = bytearray(archive.read(member))
        numbers = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        loaded[storage] = numbers
    if len(view.shape) != len(view.strides) or min((*view.shape, *view.strides), default=0) < 0:
        raise InputError(f"{path}, tensor {name}: expected a shape with a stride per dimension")
    last = view.offset + sum(
        (n - 1) * step for n, step in zip(view.shape, view.strides, strict=True)
    )
    if view.offset < 0 or (0 not in view.shape and last >= storage.count):
        raise InputError(f"{path}, tensor {name}: reaches beyond its {storage.count} numbers")
    flat = loaded[storage]
    return torch.as_strided(flat, view.shape, view.strides, view.offset).clone()


def _interpret(path: Path, program: bytes) -> Any:
    """What a pickle describes, of dictionaries, lists, tuples, plain values and tensors."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("a group without a beginning")
        group = stack[place + 1 :]
        del stack[place:]
        return group

    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if count > _MOST_OPCODES:
            raise ValueError("too many instructions")
        name = opcode.name
        if name in _PLAIN:
            stack.append(argument)
        elif name in _FIXED:
            stack.append(_FIXED[name]())
        elif name == "STOP":
            [result] = stack
            return result
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            group = stack[-size:]
            del stack[-size:]
            stack.append(tuple(group))
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            _as(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEMS":
                items = since_mark()
            else:
                items = stack[-2:]
                del stack[-2:]
            _as(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
            stack.append(_understood(path, module, attribute))
        elif name == "STACK_GLOBAL":
            attribute, module = _as(stack.pop(), str), _as(stack.pop(), str)
            stack.append(_understood(path, module, attribute))
        elif name == "BINPERSID":
            stack.append(_storage(path, stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_made(path, _as(function, _Name), _as(arguments, tuple)))
        elif name == "BUILD":
            # Only an ordered dictionary has a state, torch's own (`_metadata`): of no use here.
            state = stack.pop()
            if not isinstance(stack[-1], dict) or not isinstance(state, dict):
                raise InputError(f"{path}: expected tensors only, it sets the state of an object")
        else:
            raise InputError(f"{path}: expected tensors only, it has the instruction {name}")
    raise ValueError("it does not end")


_PLAIN = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
    }
)
_FIXED: Mapping[str, Any] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _understood(path: Path, module: str, name: str) -> _Name:
    known = (module, name) in (_TENSOR, _PARAMETER, _DICT)
    if known or (module == "torch" and name in _DTYPES):
        return _Name(module, name)
    shown = f"{module}.{name}"[:_LONGEST_NAME]
    raise InputError(f"{path}: expected tensors only, it wants to use {shown!r}")


def _storage(path: Path, told: Any) -> _Storage:
    kind, dtype, key, _, count = _as(told, tuple)
    if kind != "storage" or not isinstance(dtype, _Name) or dtype.name not in _DTYPES:
        raise InputError(f"{path}: expected a storage of numbers, got {str(told)[:_LONGEST_NAME]}")
    if not isinstance(key, str) or not key.isalnum() or _as(count, int) < 0:
        raise InputError(f"{path}: expected a storage in the file, got {str(key)[:20]!r}")
    return _Storage(_DTYPES[dtype.name], key, count)


def _made(path: Path, function: _Name, arguments: tuple[Any, ...]) -> Any:
    said = (function.module, function.name)
    if said == _DICT and arguments in ((), ([],)):
        return {}
    if said == _TENSOR:
        storage, offset, shape, strides, *_ = arguments
        numbers = [_as(n, int) for n in (offset, *_as(shape, tuple), *_as(strides, tuple))]
        del numbers
        return _View(_as(storage, _Storage), offset, shape, strides)
    if said == _PARAMETER:
        return _as(arguments[0], _View)
    raise InputError(f"{path}: expected tensors only, it calls {'.'.join(said)[:_LONGEST_NAME]}")


def _as(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"a {type(value).__name__.lstrip('_')} where a {kind.__name__} belongs")
    return value
