"""Checkpoints of torch, read without unpickling: honest ones, and others."""

from __future__ import annotations

import io
import os
import pickle
import random
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
        (b"K\x02K\x03\x86", b"K\x02K\x04\x86", "tensor a: reaches beyond its 6 numbers"),
        (b"K\x03K\x01\x86", b"K\x7fK\x01\x86", "tensor a: reaches beyond its 6 numbers"),
        (b"K\x03K\x01\x86", b"K\x03\x85", "expected a shape with a stride per dimension"),
        (b"K\x03K\x01\x86", b"J\xff\xff\xff\xffK\x01\x86", "a stride per dimension"),
        (b"FloatStorage", b"LongStorage", "expected 6 numbers of int64 in archive/data/0"),
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
