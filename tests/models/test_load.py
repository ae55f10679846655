"""What is no model is one clear line, and what is merged answers as before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from citepipe.errors import InputError
from citepipe.models.load import (
    load_base,
    load_for_inference,
    load_tokenizer,
    load_trainable,
    share_kept_by_merging,
)
from citepipe.models.save import publish
from citepipe.options import AdapterOptions, ModelOptions


def test_a_merged_adapter_answers_as_it_did_apart(tiny_base: Path, tmp_path: Path) -> None:
    options = ModelOptions(base=str(tiny_base), dtype="float32")
    model = get_peft_model(load_base(options), LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    apart = PeftModel.from_pretrained(load_base(options), tmp_path / "adapter").eval()(ids).logits
    merged = load_for_inference(options, tmp_path / "adapter")
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(merged(ids).logits, apart, atol=1e-4, rtol=1e-4)


def test_an_adapter_that_16_bits_would_lose_is_kept_apart(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ModelOptions(base=str(tiny_base), dtype="bfloat16")
    model = get_peft_model(load_base(options), LoraConfig(r=4, target_modules="all-linear"))
    shares = []
    for size in (1e-5, 3e-2):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(tmp_path / "adapter")
        shares.append(share_kept_by_merging(model))
        loaded = load_for_inference(options, tmp_path / "adapter")
        assert isinstance(loaded, PeftModel) == (size == 1e-5)
        said = capsys.readouterr().err
        assert ("kept apart from the base" in said) == (size == 1e-5)
    assert shares[0] < 0.5
    assert shares[1] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("load", [load_base, load_tokenizer])
def test_a_directory_that_is_not_a_model_is_one_clear_line(load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"expected a model directory, config\.json is missing"):
        load(ModelOptions(base=str(tmp_path)))


def test_a_path_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        load_base(ModelOptions(base=str(tmp_path / "none")))


def test_a_directory_that_is_not_an_adapter_is_one_clear_line(
    tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"expected a PEFT adapter, adapter_config\.json"):
        load_for_inference(ModelOptions(base=str(tiny_base), dtype="float32"), tmp_path)


def test_weights_that_are_cut_off_are_named(tiny_base: Path, tmp_path: Path) -> None:
    options = ModelOptions(base=str(tiny_base), dtype="float32")
    model = get_peft_model(load_base(options), LoraConfig(r=4, target_modules="all-linear"))
    model.save_pretrained(tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: expected safetensors"):
        load_for_inference(options, tmp_path / "adapter")


def test_an_adapter_of_another_base_is_one_clear_line(tiny_base: Path, tmp_path: Path) -> None:
    options = ModelOptions(base=str(tiny_base), dtype="float32")
    model = get_peft_model(load_base(options), LoraConfig(r=4, target_modules="all-linear"))
    model.save_pretrained(tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: w[..., :1].contiguous() for name, w in load_file(weights).items()}, weights)
    for load in (load_for_inference, load_trainable):
        with pytest.raises(InputError, match=r"no adapter that fits the base model: .*mismatch"):
            load(options, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"adapter_config\.json, line 1: expected JSON"):
        load_for_inference(options, tmp_path / "adapter")


def test_weights_of_other_shapes_are_one_clear_line(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 16', '"hidden_size": 32'))
    with pytest.raises(InputError, match="its weights have other shapes than its config"):
        load_base(ModelOptions(base=str(tmp_path / "base"), dtype="float32"))


def test_pickled_weights_are_not_read(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "base" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InputError, match=r"no model there: .*safetensors"):
        load_base(ModelOptions(base=str(tmp_path / "base"), dtype="float32"))


def test_modules_that_the_base_does_not_have_are_one_clear_line(tiny_base: Path) -> None:
    adapter = AdapterOptions(target_modules=["zz"])
    with pytest.raises(InputError, match=r"^model\.adapter\.target_modules: "):
        load_trainable(ModelOptions(base=str(tiny_base), dtype="float32", adapter=adapter), None)


def test_four_bits_without_a_gpu_is_one_clear_line(tiny_base: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="4bit needs a GPU"):
        load_base(ModelOptions(base=str(tiny_base), quantization="4bit"))


def test_a_finished_directory_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name in ("new", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    publish(tmp_path / "new", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]
    assert not (tmp_path / "new").exists()
