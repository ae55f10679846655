"""Checkpoints of torch, read without unpickling: honest ones, and others."""

from __future__ import annotations

import copy
import io
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from citepipe.errors import InputError
from citepipe.models.torch_file import read_tensors

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor.detach())


def _random_tensor(rng: random.Random, shared: torch.Tensor) -> torch.Tensor:
    shape = [rng.randrange(0, 5) for _ in range(rng.randrange(0, 4))]
    tensor = (torch.randn(shape) * 10).to(rng.choice(DTYPES))
    kind = rng.randrange(5)
    if kind == 0 and tensor.dim() > 1:
        return tensor.transpose(0, 1)
    if kind == 1:
        return shared[rng.randrange(5) : 20 : rng.randrange(1, 4)]
    if kind == 2:
        return torch.nn.Parameter(torch.randn(2, 3))
    return tensor


@pytest.mark.parametrize("seed", range(20))
def test_what_torch_has_written_is_read_as_torch_reads_it(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    shared = torch.arange(20, dtype=torch.float32)
    state = OrderedDict((f"layer.{n}.weight", _random_tensor(rng, shared)) for n in range(12))
    path = tmp_path / "adapter_model.bin"
    protocol = 2 + seed % 3
    torch.save(dict(state) if seed % 2 else state, path, pickle_protocol=protocol)
    _same(read_tensors(path), state)
    if protocol == 2:
        _same(read_tensors(path), torch.load(path, weights_only=True))


def test_the_state_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    torch.save(module.state_dict(), tmp_path / "a.bin")
    _same(read_tensors(tmp_path / "a.bin"), module.state_dict())
    torch.save({"state_dict": module.state_dict(), "step": 3}, tmp_path / "b.bin")
    _same(read_tensors(tmp_path / "b.bin"), module.state_dict())


def _checkpoint(path: Path, program: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in members.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", content)
    return path


class _Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


# Each makes the folder MARK when it is unpickled, or tries another trick.
EVIL = {
    "reduce": b"cos\nmkdir\n(VMARK\ntR.",
    "two names": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93(VMARK\ntR.",
    "inst": b"(VMARK\nios\nmkdir\n.",
    "obj": b"(cos\nmkdir\nVMARK\no.",
    "newobj": b"cos\nmkdir\n(VMARK\nt\x81.",
    "build": b"ccollections\nOrderedDict\n(tRcos\nmkdir\nb.",
    "a method by its path": b"\x80\x04\x8c\x02os\x8c\x0cpath.os.mkdir\x93(VMARK\ntR.",
    "from the memo": b"cos\nmkdir\np0\n0g0\n(VMARK\ntR.",
    "builtins": b"cbuiltins\neval\n(V__import__('os').mkdir('MARK')\ntR.",
    "torch's own loader": b"ctorch\nload\n(VMARK\ntR.",
    "an old persistent id": b"Pstorage\n.",
    "extension": b"\x82\x01.",
    "a method of dictionaries": b"ccollections\nOrderedDict\n((VMARK\nVMARK\nttR.",
}


@pytest.mark.parametrize("program", EVIL.values(), ids=EVIL)
def test_nothing_is_run(program: bytes, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = _checkpoint(tmp_path / "a.bin", program.replace(b"MARK", str(marker).encode()))
    with pytest.raises(InputError) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_the_marker_would_have_been_made(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Runs(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


def _lying(tmp_path: Path, old: bytes, new: bytes) -> Path:
    """A checkpoint of one tensor of 2 x 3 numbers, with something changed in its description."""
    written = io.BytesIO()
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, written, pickle_protocol=2)
    source = zipfile.ZipFile(written)
    folder = source.namelist()[0].partition("/")[0]
    program = source.read(f"{folder}/data.pkl")
    assert old in program
    numbers = source.read(f"{folder}/data/0")
    return _checkpoint(tmp_path / "a.bin", program.replace(old, new, 1), data__0=numbers)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (b"K\x02K\x03\x86", b"K\x02K\x04\x86", "tensor 'a': reaches beyond its 6 numbers"),
        (b"K\x03K\x01\x86", b"K\x7fK\x01\x86", "tensor 'a': reaches beyond its 6 numbers"),
        (b"K\x03K\x01\x86", b"K\x03\x85", "expected a shape with a stride per dimension"),
        (b"K\x03K\x01\x86", b"J\xff\xff\xff\xffK\x01\x86", "a stride per dimension"),
        (b"FloatStorage", b"LongStorage", "expected 6 numbers of int64 in 'archive/data/0'"),
        (b"FloatStorage", b"EvilStorage", "it wants to use 'torch.EvilStorage'"),
        (b"X\x01\x00\x00\x000", b"X\x04\x00\x00\x00../0", "expected a storage in the file"),
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009", "There is no item named"),
        (b"K\x06", b"K\x09", "expected 9 numbers of float32"),
    ],
)
def test_lies_about_the_numbers(old: bytes, new: bytes, line: str, tmp_path: Path) -> None:
    if b"Storage" in old:
        assert len(old) - len(new) in (0, 1)
    path = _lying(tmp_path, old, new)
    with pytest.raises(InputError) as caught:
        read_tensors(path)
    assert line in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"expected a checkpoint of torch 1\.6 or later"):
        read_tensors(path)
    torch.save({"step": 3}, path)
    with pytest.raises(InputError, match="expected tensors, there are none in it"):
        read_tensors(path)
    with pytest.raises(InputError, match="No such file"):
        read_tensors(tmp_path / "b.bin")


def test_damage_of_any_kind_is_told_in_a_line(tmp_path: Path) -> None:
    written = io.BytesIO()
    torch.save({"a": torch.arange(6.0), "b": torch.ones(2)}, written)
    whole = written.getvalue()
    rng = random.Random(0)
    path = tmp_path / "a.bin"
    for _ in range(400):
        data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole)
        for _ in range(rng.randrange(1, 20)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        said = ""
        try:
            read_tensors(path)
        except InputError as error:
            said = str(error)
        assert "\n" not in said


def _int(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + len(data).to_bytes(4, "little") + data


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _tensor(
    name: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    """A name and a tensor of a storage called 0, as a pickle says it."""
    storage = _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + _int(count)
    numbers = b"".join(b"(" + b"".join(map(_int, group)) + b"t" for group in (shape, strides))
    place = b"((" + storage + b"tQ" + _int(offset) + numbers
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + place + hooks + b"tR"


FOUR = struct.pack("<4f", 1, 2, 3, 4)


def test_a_pickle_written_by_hand(tmp_path: Path) -> None:
    program = b"}(" + _tensor("a", 4, (2, 2), (1, 2)) + b"u."
    found = read_tensors(_checkpoint(tmp_path / "a.bin", program, data__0=FOUR))
    assert found["a"].tolist() == [[1, 3], [2, 4]]


DOUBLED = b")q\x01" + b"h\x01\x86q\x01" * 60
# What would take all memory, all time or the whole stack, if it were hashed, written out or made.
BOMBS = {
    "a deep key": (b"})" + b"\x85" * 300_000 + b"K\x01s.", "a tuple where a name belongs"),
    "a wide key": (b"}" + DOUBLED + b"K\x01s.", "a tuple where a name belongs"),
    "a wide kind": (b"(" + DOUBLED + b"NNNNtQ.", "a tuple where a str belongs"),
    "a wide type": (b"(" + _text("storage") + DOUBLED + b"NNNtQ.", "a tuple where a name belongs"),
    "a wide function": (DOUBLED + b")R.", "a tuple where a name belongs"),
    "strides of nothing": (
        b"}(" + _tensor("a", 4, (2**34,), (0,)) + b"u.",
        "more than 4 times as large",
    ),
    "strides of nothing in many dimensions": (
        b"}(" + _tensor("a", 4, (2,) * 60, (0,) * 60) + b"u.",
        "more than 4 times as large",
    ),
    "many dimensions": (
        b"}(" + _tensor("a", 4, (1,) * 65, (0,) * 65) + b"u.",
        "expected a shape with a stride per dimension",
    ),
    "a large number": (b"}(" + _tensor("a", 1 << 9000, (1,), (1,)) + b"u.", "no place or size"),
    "a large empty one": (
        b"}(" + _tensor("a", 4, (0, 2**90), (2**90, 1)) + b"u.",
        "no place or size",
    ),
    "many dictionaries": (b"}" * 5_000_100 + b".", "too many instructions"),
    "a list in itself": (b"]q\x01h\x01a.", "expected names with tensors, got list"),
    "a dictionary in itself": (b"}q\x01" + _text("a") + b"h\x01s.", "there are none in it"),
}


@pytest.mark.parametrize(("program", "line"), BOMBS.values(), ids=BOMBS)
def test_nothing_is_made_large(program: bytes, line: str, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "a.bin", b"\x80\x02" + program, data__0=FOUR)
    with pytest.raises(InputError) as caught:
        read_tensors(path)
    assert line in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250


def test_names_of_the_file_stay_in_the_line(tmp_path: Path) -> None:
    program = b"}(" + _tensor("a\n\x1b[31m" + "b" * 500, 4, (9,), (1,)) + b"u."
    with pytest.raises(InputError) as caught:
        read_tensors(_checkpoint(tmp_path / "a.bin", program, data__0=FOUR))
    said = str(caught.value)
    assert r"tensor 'a\n\x1b[31mbbb" in said
    for absent in ("\n", "\x1b", "b" * 90):
        assert absent not in said


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    one = _tensor("1", 4, (4,), (1,))
    # The number 1 and the text "1".
    program = b"}(" + one + b"K\x01" + one[len(_text("1")) :] + b"u."
    with pytest.raises(InputError, match="has two tensors of the name '1'"):
        read_tensors(_checkpoint(tmp_path / "a.bin", program, data__0=FOUR))


def test_tensors_that_share_a_storage_have_memory_of_their_own(tmp_path: Path) -> None:
    numbers = torch.arange(6.0)
    torch.save({"a": numbers, "b": numbers, "c": numbers[2:4]}, tmp_path / "a.bin")
    found = read_tensors(tmp_path / "a.bin")
    found["a"].zero_()
    found["b"] += 1
    assert found["a"].tolist() == [0] * 6
    assert found["b"].tolist() == [1, 2, 3, 4, 5, 6]
    assert found["c"].tolist() == [2, 3]


def test_members_are_neither_packed_nor_longer_than_the_file(tmp_path: Path) -> None:
    program = b"}(" + _tensor("a", 2**22, (2**22,), (1,)) + b"u."
    path = tmp_path / "a.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", bytes(2**24), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**16
    with pytest.raises(InputError, match="'archive/data/0' as torch stores it, not packed"):
        read_tensors(path)
    _checkpoint(path, program, data__0=FOUR)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = (2**24).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(InputError, match="'archive/data/0' as torch stores it, not packed"):
        read_tensors(path)


def test_members_that_lie_on_top_of_each_other(tmp_path: Path) -> None:
    # A thousand names for the same mebibyte: a gibibyte, if they were read.
    count = 2**18
    names = [f"n{number}" for number in range(1000)]
    tensors = b"".join(
        _tensor(name, count, (count,), (1,)).replace(_text("0"), _text(str(number)))
        for number, name in enumerate(names)
    )
    path = tmp_path / "a.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"}(" + tensors + b"u.")
        archive.writestr("archive/data/0", bytes(4 * count))
        first = archive.getinfo("archive/data/0")
        for number in range(1, len(names)):
            again = copy.copy(first)
            again.filename = f"archive/data/{number}"
            archive.filelist.append(again)
    with pytest.raises(InputError, match="more than 4 times as large"):
        read_tensors(path)


def test_a_file_that_is_cut_off_and_a_number_that_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    torch.save({"a": torch.tensor([1.5, 2.5])}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="expected a whole checkpoint of torch, it is cut off"):
        read_tensors(path)
    place = whole.index(struct.pack("<2f", 1.5, 2.5))
    path.write_bytes(whole[:place] + b"\x01" + whole[place + 1 :])
    with pytest.raises(InputError, match=r"cut off or damaged \(Bad CRC-32"):
        read_tensors(path)
