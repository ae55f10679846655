"""Tensors of a torch checkpoint (`.bin`, `.pt`), read without unpickling.

A pickle is a program. Here its opcodes are interpreted, by a closed list of those that checkpoints
of weights have, and of the functions that they name only a few are understood, as words: nothing is
imported or called because a file says so. Whatever else a file has in it is refused by name.

The format is that of torch since 1.6 (`torch/serialization.py`): a zip file whose `data.pkl`
describes the tensors and whose `data/N` hold their numbers.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections import Counter
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
_MOST_OPCODES = 5_000_000
_MOST_PICKLE = 2**26
_MOST_DIMENSIONS = 64
_LONGEST_NAME = 80
_LARGEST_NUMBER = 2**63 - 1
_CHUNK = 2**24

_LARGEST_RATIO = 4
"""Of all tensors' bytes to the file's: tied weights are there twice, hardly anything more often."""

_RATIO_FROM = 2**26
"""Bytes of tensors from which on the ratio counts."""

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

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


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

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class _Mark:
    """Where a group of things begins on the stack."""


_MARK = _Mark()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a state dictionary, by their names.

    A dictionary of dictionaries (`{"state_dict": {...}}`) is taken apart one level deep. Each
    tensor has memory of its own; at most one storage is in memory beside the tensors.

    Raises:
        InputError: the file is no checkpoint of tensors, is damaged, or has in it what tensors do
            not need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except InputError:
        raise
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: {_not_a_zip(path, error)}") from None
    except _FAULTS as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: expected a checkpoint of tensors: {said}") from None


def _not_a_zip(path: Path, error: zipfile.BadZipFile) -> str:
    with path.open("rb") as stream:
        begin = stream.read(4)
    if begin == b"PK\x03\x04":
        said = " ".join(str(error).split())[:_LONGEST_NAME]
        return f"expected a whole checkpoint of torch, it is cut off or damaged ({said})"
    return "expected a checkpoint of torch 1.6 or later, which is a zip file"


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, torch.Tensor]:
    import torch

    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise InputError(f"{path}: expected a checkpoint of torch, a zip file with one data.pkl")
    folder = pickles[0].rpartition("/")[0]
    if _size(path, archive, pickles[0]) > _MOST_PICKLE:
        raise InputError(f"{path}: expected tensors, its data.pkl alone is larger than 64 MiB")
    if f"{folder}/byteorder" in archive.namelist():
        if _size(path, archive, f"{folder}/byteorder") > _LONGEST_NAME:
            raise InputError(f"{path}: expected little or big in its byteorder")
        order = archive.read(f"{folder}/byteorder").decode()
        if order != "little":
            raise InputError(f"{path}: expected numbers in little-endian order, got {order[:20]!r}")
    views = _views(path, _interpret(path, archive.read(pickles[0])))
    total = 0
    for name, view in views.items():
        _check_view(path, name, view)
        total += view.count * getattr(torch, view.storage.dtype).itemsize
    if total > max(_RATIO_FROM, _LARGEST_RATIO * path.stat().st_size):
        raise InputError(
            f"{path}: expected about as many numbers as are in the file, its tensors would be "
            f"more than {_LARGEST_RATIO} times as large"
        )
    left = Counter(view.storage for view in views.values())
    loaded: dict[_Storage, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}
    for name, view in views.items():
        storage = view.storage
        if storage not in loaded:
            loaded[storage] = _numbers(path, archive, folder, name, storage)
        left[storage] -= 1
        flat = loaded[storage] if left[storage] else loaded.pop(storage)
        tensor = torch.as_strided(flat, view.shape, view.strides, view.offset)
        # The last tensor of a storage may keep it, if it is all of it.
        keeps = not left[storage] and view.count == storage.count and tensor.is_contiguous()
        found[name] = tensor if keeps else tensor.clone()
    return found


def _size(path: Path, archive: zipfile.ZipFile, member: str) -> int:
    """Bytes of a member, which torch stores as they are; a packed one could be any size."""
    info = archive.getinfo(member)
    packed = info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size
    if packed or info.file_size > path.stat().st_size:
        raise InputError(f"{path}: expected {_shown(member)} as torch stores it, not packed")
    return info.file_size


def _views(path: Path, found: Any) -> dict[str, _View]:
    """The tensors of what a pickle describes, by name."""
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected names with tensors, got {_kind(found)}")
    views: dict[str, _View] = {}

    def add(name: str, view: Any) -> None:
        if not isinstance(view, _View):
            return
        if name in views:
            raise InputError(f"{path}: has two tensors of the name {_shown(name)}")
        views[name] = view

    for name, value in found.items():
        if isinstance(value, dict):
            for below, view in value.items():
                add(str(below) if name == "state_dict" else f"{name}.{below}", view)
        else:
            add(str(name), value)
    if not views:
        raise InputError(f"{path}: expected tensors, there are none in it")
    return views


def _check_view(path: Path, name: str, view: _View) -> None:
    """Check that all numbers of a tensor are in its storage."""
    where = f"{path}, tensor {_shown(name)}"
    if (
        len(view.shape) != len(view.strides)
        or len(view.shape) > _MOST_DIMENSIONS
        or min((*view.shape, *view.strides), default=0) < 0
    ):
        raise InputError(f"{where}: expected a shape with a stride per dimension")
    steps = zip(view.shape, view.strides, strict=True)
    last = view.offset + sum((n - 1) * step for n, step in steps)
    if view.offset < 0 or (0 not in view.shape and last >= view.storage.count):
        raise InputError(f"{where}: reaches beyond its {view.storage.count} numbers")


def _numbers(
    path: Path, archive: zipfile.ZipFile, folder: str, name: str, storage: _Storage
) -> torch.Tensor:
    """A storage, read into memory once and checked by the sum that the file has of it."""
    import torch

    dtype = getattr(torch, storage.dtype)
    member = f"{folder}/data/{storage.key}"
    size = _size(path, archive, member)
    if size != storage.count * dtype.itemsize:
        raise InputError(
            f"{path}, tensor {_shown(name)}: expected {storage.count} numbers of {storage.dtype} "
            f"in {_shown(member)}, it has {size} bytes"
        )
    if not size:
        return torch.empty(0, dtype=dtype)
    data = bytearray(size)
    place = 0
    with archive.open(member) as stream:
        while chunk := stream.read(_CHUNK):
            data[place : place + len(chunk)] = chunk
            place += len(chunk)
    return torch.frombuffer(data, dtype=dtype)


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
            for key, value in zip(items[::2], items[1::2], strict=True):
                # A tuple as key would be hashed, however deep or wide it is.
                if not isinstance(key, str | int):
                    raise ValueError(f"a {_kind(key)} where a name belongs")
                _as(stack[-1], dict)[key] = value
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
    shown = _shown(f"{module}.{name}")
    raise InputError(f"{path}: expected tensors only, it wants to use {shown}")


def _storage(path: Path, told: Any) -> _Storage:
    kind, dtype, key, _, count = _as(told, tuple)
    # Only words are shown: a tuple may be too deep or wide to be written out.
    if _as(kind, str) != "storage":
        raise InputError(f"{path}: expected a storage of numbers, got {_shown(kind)}")
    if _as(dtype, _Name).name not in _DTYPES:
        raise InputError(f"{path}: expected a storage of numbers, got one of {dtype}")
    if not (_as(key, str).isascii() and key.isalnum()) or _number(count) < 0:
        raise InputError(f"{path}: expected a storage in the file, got {_shown(key)}")
    return _Storage(_DTYPES[dtype.name], key, count)


def _made(path: Path, function: _Name, arguments: tuple[Any, ...]) -> Any:
    said = (function.module, function.name)
    if said == _DICT and (not arguments or (len(arguments) == 1 and arguments[0] == [])):
        return {}
    if said == _TENSOR:
        storage, offset, shape, strides, *_ = arguments
        for number in (offset, *_as(shape, tuple), *_as(strides, tuple)):
            _number(number)
        return _View(_as(storage, _Storage), offset, shape, strides)
    if said == _PARAMETER:
        return _as(arguments[0], _View)
    raise InputError(f"{path}: expected tensors only, it calls {function}")


def _as(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"a {_kind(value)} where a {_kind(kind)} belongs")
    return value


def _number(value: Any) -> int:
    number: int = _as(value, int)
    if abs(number) > _LARGEST_NUMBER:
        raise ValueError("a number that no place or size can be")
    return number


def _kind(value: Any) -> str:
    """How a kind of value is called in complaints."""
    name = value.__name__ if isinstance(value, type) else type(value).__name__
    return str(name).strip("_").lower()


def _shown(text: str) -> str:
    """Words of the file, so that they stay in one line and do nothing to a terminal."""
    return ascii(text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}...")
