"""Released weights in the layouts that they come in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
import transformers

from citepipe.errors import InputError
from citepipe.models.export import export
from citepipe.models.load import is_ready, load_for_inference, share_kept_by_merging
from citepipe.models.released import find_weights, prepare, write_untrained
from citepipe.options.model import ModelOptions


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


def test_a_whole_model_in_shards_of_pickles(tiny_base: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_base)
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(tiny_base / "config.json", source)
    state = model.state_dict()
    names = sorted(state)
    files = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({n: state[n] for n in names if files[n] == file}, source / file)
    index = source / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    assert prepare(source, tmp_path / "out") == "weights: kind model, files 2, converted 2"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(_logits(loaded), _logits(model))


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


def test_a_pickle_that_runs_code(adapter: Path, tmp_path: Path) -> None:
    folder = _pickled(adapter, tmp_path / "source")
    torch.save({"a": Path("x")}, folder / "adapter_model.bin")
    with pytest.raises(InputError, match=r"expected tensors only, it wants to use 'pathlib"):
        prepare(folder, tmp_path / "out")


def test_a_merged_model_is_that_with_the_adapter(
    adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    options = _options(tiny_base)
    out = tmp_path / "model"
    scores = tmp_path / "scores.json"
    scores.write_text('{"lexical": {"asqa": {"metrics": {"citation_rec": 12.34}}}}')
    said = export(options, adapter, out, "adapter.zip", scores, "mit")
    assert said.startswith(f"merge: written {out}, ")
    merged = transformers.AutoModelForCausalLM.from_pretrained(out)
    expected = _logits(load_for_inference(options, adapter))
    assert torch.allclose(_logits(merged), expected, atol=1e-5)
    assert transformers.AutoTokenizer.from_pretrained(out).encode("a b")
    card = (out / "README.md").read_text()
    assert card.startswith("---\n")
    for line in (
        f"| base | `{tiny_base}` |",
        'license: "mit"',
        "| trained weights | `adapter.zip` |",
        "| LoRA | r 2, alpha 8 |",
        "- lexical, asqa: citation_rec 12.3",
    ):
        assert line in card.splitlines()
    with pytest.raises(InputError, match="expected a new or empty directory"):
        export(options, adapter, out, "adapter.zip")


def test_rounding_once_loses_as_much_as_is_said(
    adapter: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    shutil.copytree(adapter, small)
    config = json.loads((small / "adapter_config.json").read_text())
    config["lora_alpha"] = 1e-4
    (small / "adapter_config.json").write_text(json.dumps(config))
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16)
    stored = tmp_path / "base"
    base.save_pretrained(stored)
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(stored)
    export(_options(stored, "bfloat16"), small, tmp_path / "out", "small")
    said = capsys.readouterr().err
    kept = share_kept_by_merging(peft.PeftModel.from_pretrained(base, small))
    assert f"rounded to bfloat16, {kept:.0%} of the adapter is left" in said
    assert kept < 0.9
