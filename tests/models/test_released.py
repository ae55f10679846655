"""Released weights in the layouts that they come in."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from citepipe.errors import InputError
from citepipe.models.load import is_ready, load_for_inference
from citepipe.models.released import find_weights, prepare, read_pickled, write_untrained
from tests.models.tiny import adapted, loaded, logits, options


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that adds something to every layer."""
    folder = tmp_path_factory.mktemp("adapter")
    adapted(tiny_base, folder)
    return folder


def _pickled(adapter: Path, folder: Path) -> Path:
    """The same adapter as older versions of PEFT have saved it."""
    from safetensors.torch import load_file

    folder.mkdir(parents=True)
    torch.save(load_file(adapter / "adapter_model.safetensors"), folder / "adapter_model.bin")
    config = json.loads((adapter / "adapter_config.json").read_text())
    known = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias")
    old = {key: config[key] for key in known}
    old |= {"base_model_name_or_path": "/home/somebody/llama", "enable_lora": None}
    (folder / "adapter_config.json").write_text(json.dumps(old))
    return folder


LAYOUTS = [".", "best_peft/policy_adapter", "rl-fg", "rl-fg/best_peft/policy_adapter"]


@pytest.mark.parametrize("inner", LAYOUTS)
@pytest.mark.parametrize("is_archive", [False, True], ids=["folder", "zip"])
def test_every_layout_gives_the_same_model(
    inner: str, is_archive: bool, adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    pickled = (_pickled(adapter, source / inner) / "adapter_model.bin").read_bytes()
    if "best_peft" in inner:
        _pickled(adapter, (source / inner).parent / "value_adapter")
    assert not is_ready(source)
    if is_archive:
        source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source))
    assert prepare(source, tmp_path / "out") == "weights: kind adapter, files 1, converted 1"
    assert is_ready(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "released.json").read_text())
    digest = hashlib.sha256(pickled).hexdigest()
    assert record["found"] == inner
    assert record["files"] == [{"name": "adapter_model.bin", "sha256": digest, "converted": True}]
    base = options(tiny_base)
    found = logits(load_for_inference(base, tmp_path / "out"))
    assert torch.equal(found, logits(load_for_inference(base, adapter)))
    assert not torch.equal(found, logits(load_for_inference(base, None)))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_cannot_be_found(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected one adapter .* there is none"):
        find_weights(tmp_path / "empty")
    for name in ("a", "b"):
        _pickled(adapter, tmp_path / "two" / name)
    with pytest.raises(InputError, match=r"expected one adapter .* there are several: a, b"):
        find_weights(tmp_path / "two")
    (tmp_path / "text").write_text("hello")
    for name in ("text", "absent"):
        with pytest.raises(InputError, match="expected a folder, or a zip or tar archive of one"):
            prepare(tmp_path / name, tmp_path / "out")


def test_the_base_as_it_is(tiny_base: Path, tmp_path: Path) -> None:
    base = options(tiny_base)
    assert write_untrained(base, tmp_path / "out") == f"weights: untrained, on {tiny_base}"
    found = logits(load_for_inference(base, tmp_path / "out"))
    assert torch.equal(found, logits(load_for_inference(base, None)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def _written(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", b"3")

    return write


def _flipped(path: Path) -> None:
    torch.save({"a": torch.full((9,), 1.5)}, path)
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 1.5), struct.pack("<f", 2.5), 1))


NO_TENSORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an object": (lambda path: torch.save({"a": Path("x")}, path), "global: GLOBAL pathlib"),
    "a function": (_written(b"cos\nmkdir\n(VMARK\ntR."), "GLOBAL os.mkdir whose module os"),
    "an instance": (_written(b"(VMARK\nios\nmkdir\n."), "it has operand"),
    "no tensors": (lambda path: torch.save({"step": 3}, path), "there are none"),
    "an old file": (
        lambda path: torch.save({}, path, _use_new_zipfile_serialization=False),
        "not a zip file",
    ),
    "a changed number": (_flipped, "is damaged"),
}


@pytest.mark.parametrize(("write", "line"), NO_TENSORS.values(), ids=NO_TENSORS)
def test_pickles_of_anything_but_tensors(
    write: Callable[[Path], None], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.bin"
    write(path)
    with pytest.raises(InputError, match=f"a.bin: expected tensors only, .*{line}") as caught:
        read_pickled(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "MARK").exists()


def test_tensors_of_a_pickle_have_memory_of_their_own(tmp_path: Path) -> None:
    numbers = torch.arange(6.0).reshape(2, 3)
    state = {"a": numbers, "b": numbers.T, "c": torch.nn.Parameter(numbers[:1].bfloat16())}
    torch.save({"state_dict": state}, tmp_path / "a.bin")
    found = read_pickled(tmp_path / "a.bin")
    assert all(torch.equal(found[name], state[name]) for name in state)
    found["a"].zero_()
    assert torch.equal(found["b"], numbers.T)
    assert found["b"].is_contiguous()


@pytest.mark.parametrize(
    ("expected", "other"),
    [
        ("tasks/rl-fg/best_peft/policy_adapter", "tasks/rl-fg/last_value_peft"),
        ("sft", "sft/checkpoint-100"),
        ("rl/best_peft/policy_adapter", "rl/best_peft_corr_rec/policy_adapter"),
    ],
)
def test_checkpoints_on_the_way_and_value_models_are_passed_over(
    expected: str, other: str, adapter: Path, tmp_path: Path
) -> None:
    for folder in (expected, other):
        _pickled(adapter, tmp_path / folder)
    assert find_weights(tmp_path) == tmp_path / expected


def test_a_whole_model_in_parts(tiny_base: Path, tmp_path: Path) -> None:
    model = loaded(tiny_base)
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(tiny_base / "config.json", source)
    state = model.state_dict()
    parts = [source / f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    for number, path in enumerate(parts):
        torch.save({name: state[name] for name in sorted(state)[number::2]}, path)
    line = "weights: kind model, files 2, converted 2"
    assert prepare(source, tmp_path / "out") == line
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(model))
    parts[0].unlink()
    prepare(source, tmp_path / "out")
    with pytest.raises(InputError, match="no model that loads"):
        load_for_inference(options(tiny_base), tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"<html>Quota exceeded</html>"])
@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_what_is_no_weights(name: str, content: bytes, adapter: Path, tmp_path: Path) -> None:
    folder = _pickled(adapter, tmp_path / "source")
    (folder / "adapter_model.bin").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        prepare(folder, tmp_path / "out")
    assert str(caught.value).startswith(f"{folder / name}: expected ")
    assert not (tmp_path / "out").exists()
