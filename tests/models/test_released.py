"""Released weights in the layouts that they come in."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import transformers

from citepipe.errors import InputError
from citepipe.models.load import is_ready, load_for_inference
from citepipe.models.released import find_weights, prepare, read_pickled, write_untrained
from citepipe.options import ModelOptions


def _options(base: Path, dtype: str = "float32") -> ModelOptions:
    return ModelOptions.model_validate({"base": str(base), "dtype": dtype})


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that adds something to every layer."""
    folder = tmp_path_factory.mktemp("adapter")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_base)
    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    wrapped = peft.get_peft_model(model, config)
    for name, weights in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=0.3)
    wrapped.save_pretrained(str(folder))
    return folder


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[3, 5, 7, 9]])).logits
    return found


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


LAYOUTS = {
    "plain": ".",
    "after PPO": "best_peft/policy_adapter",
    "in a folder": "rl-fg",
    "both": "rl-fg/best_peft/policy_adapter",
}


@pytest.mark.parametrize("inner", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("is_archive", [False, True], ids=["folder", "zip"])
def test_every_layout_gives_the_same_model(
    inner: str, is_archive: bool, adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    _pickled(adapter, source / inner)
    if "best_peft" in inner:
        _pickled(adapter, (source / inner).parent / "value_adapter")
    assert not is_ready(source)
    if is_archive:
        source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source))
    said = prepare(source, tmp_path / "out")
    assert said == "weights: kind adapter, files 1, converted 1"
    assert is_ready(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.bin"))
    record = json.loads((tmp_path / "out" / "released.json").read_text())
    assert record["found"] == inner
    assert [file["converted"] for file in record["files"]] == [True]
    options = _options(tiny_base)
    found = _logits(load_for_inference(options, tmp_path / "out"))
    assert torch.equal(found, _logits(load_for_inference(options, adapter)))
    assert not torch.equal(found, _logits(load_for_inference(options, None)))
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_what_cannot_be_found(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected an adapter .* there is none"):
        find_weights(tmp_path / "empty")
    for name in ("a", "b"):
        _pickled(adapter, tmp_path / "two" / name)
    with pytest.raises(InputError, match="expected one adapter or model, there are several: a, b"):
        find_weights(tmp_path / "two")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="expected a folder, or a zip or tar archive of one"):
        prepare(tmp_path / "text", tmp_path / "out")
    with pytest.raises(InputError, match="no such file or directory"):
        prepare(tmp_path / "absent", tmp_path / "out")


def test_checkpoints_on_the_way_are_passed_over(adapter: Path, tmp_path: Path) -> None:
    _pickled(adapter, tmp_path / "sft")
    _pickled(adapter, tmp_path / "sft" / "checkpoint-100")
    assert find_weights(tmp_path) == tmp_path / "sft"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"peft_type": "MAGIC"}, "field peft_type: expected a kind of adapter, got 'MAGIC'"),
        ({"new_kind": {"x": 1}}, "field new_kind: the installed PEFT does not know it"),
    ],
)
def test_a_configuration_that_means_another_adapter(
    change: dict[str, object], line: str, adapter: Path, tmp_path: Path
) -> None:
    folder = _pickled(adapter, tmp_path / "source")
    config = json.loads((folder / "adapter_config.json").read_text()) | change
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=line):
        prepare(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_base_as_it_is(tiny_base: Path, tmp_path: Path) -> None:
    options = _options(tiny_base)
    assert write_untrained(options, tmp_path / "out") == f"weights: untrained, on {tiny_base}"
    found = _logits(load_for_inference(options, tmp_path / "out"))
    assert torch.equal(found, _logits(load_for_inference(options, None)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def _written(content: bytes) -> Callable[[Path], None]:
    return lambda path: _zip(path, {"archive/data.pkl": content, "archive/version": b"3"})


def _zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _flipped(path: Path) -> None:
    torch.save({"a": torch.full((9,), 1.5)}, path)
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 1.5), struct.pack("<f", 2.5), 1))


NO_TENSORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an object": (lambda path: torch.save({"a": Path("x")}, path), "global: GLOBAL pathlib"),
    "a function": (_written(b"cos\nmkdir\n(VMARK\ntR."), "GLOBAL os.mkdir whose module os"),
    "an instance": (_written(b"(VMARK\nios\nmkdir\n."), "it has operand"),
    "no tensors": (lambda path: torch.save({"step": 3}, path), "there are none"),
    "far too many": (
        lambda path: torch.save({"a": torch.zeros(1).expand(2**30)}, path),
        "more than the file has",
    ),
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


def test_a_symbolic_link_is_copied(adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter, tmp_path / "source")
    (tmp_path / "outside").write_text("{}")
    (folder / "tokenizer.json").symlink_to(tmp_path / "outside")
    prepare(folder, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "out" / "tokenizer.json").samefile(tmp_path / "outside")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "out" / weights).samefile(folder / weights)


def test_layouts_of_longer_paths_and_of_value_models(adapter: Path, tmp_path: Path) -> None:
    long = Path("tasks/qa_feedback/model_outputs/rl-fg/best_peft/policy_adapter")
    _pickled(adapter, tmp_path / "zip" / long)
    assert find_weights(tmp_path / "zip") == tmp_path / "zip" / long
    for name in ("last_policy_peft", "last_value_peft"):
        _pickled(adapter, tmp_path / "ppo" / name)
    assert find_weights(tmp_path / "ppo") == tmp_path / "ppo" / "last_policy_peft"
    for name in ("best_peft", "best_peft_corr_rec"):
        _pickled(adapter, tmp_path / "two" / "rl" / name / "policy_adapter")
        _pickled(adapter, tmp_path / "two" / "rl" / name / "value_adapter")
    assert find_weights(tmp_path / "two") == tmp_path / "two/rl/best_peft/policy_adapter"


def test_a_second_time_replaces_the_first(adapter: Path, tmp_path: Path) -> None:
    folder = _pickled(adapter, tmp_path / "source")
    prepare(folder, tmp_path / "out")
    (folder / "tokenizer.json").write_text("{}")
    prepare(folder, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def _in_two(tiny_base: Path, source: Path) -> transformers.PreTrainedModel:
    """A model in two pickled parts, without an index."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_base)
    source.mkdir()
    shutil.copy(tiny_base / "config.json", source)
    state = model.state_dict()
    names = sorted(state)
    for part in (0, 1):
        path = source / f"pytorch_model-0000{part + 1}-of-00002.bin"
        torch.save({name: state[name] for name in names[part::2]}, path)
    return model


def test_a_whole_model_in_parts(tiny_base: Path, tmp_path: Path) -> None:
    model = _in_two(tiny_base, tmp_path / "source")
    assert prepare(tmp_path / "source", tmp_path / "out") == (
        "weights: kind model, files 2, converted 2"
    )
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(_logits(loaded), _logits(model))


def test_a_missing_part(tiny_base: Path, tmp_path: Path) -> None:
    _in_two(tiny_base, tmp_path / "source")
    (tmp_path / "source" / "pytorch_model-00001-of-00002.bin").unlink()
    with pytest.raises(InputError, match="expected 2 parts, there are 1"):
        prepare(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", [b"", b"<html>Quota exceeded</html>", b"version https://git-lfs.github.com/spec/v1"]
)
@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_what_is_no_weights(name: str, content: bytes, adapter: Path, tmp_path: Path) -> None:
    folder = _pickled(adapter, tmp_path / "source")
    (folder / "adapter_model.bin").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        prepare(folder, tmp_path / "out")
    assert str(caught.value).startswith(f"{folder / name}: expected ")
    assert not (tmp_path / "out").exists()


def test_the_record_has_the_digest_of_the_source(adapter: Path, tmp_path: Path) -> None:
    prepare(adapter, tmp_path / "out")
    source = (adapter / "adapter_model.safetensors").read_bytes()
    [file] = json.loads((tmp_path / "out" / "released.json").read_text())["files"]
    assert file == {
        "name": "adapter_model.safetensors",
        "sha256": hashlib.sha256(source).hexdigest(),
        "converted": False,
    }


def test_a_full_disk_is_one_line(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _pickled(adapter, tmp_path / "source")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(InputError, match="out: cannot be written: No space left on device"):
        prepare(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
