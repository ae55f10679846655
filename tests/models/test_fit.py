"""An adapter for another base is refused and not loaded in part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from citepipe.errors import InputError
from citepipe.models.load import load_base, load_for_inference, load_tokenizer, load_with_adapter
from citepipe.options import ModelOptions


def _options(base: Path) -> ModelOptions:
    return ModelOptions.model_validate({"base": str(base), "dtype": "float32"})


def _logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[3, 5, 7, 9]])).logits
    return found


def _adapter(base: Path, out: Path, tokens: int = 0, **settings: Any) -> torch.Tensor:
    """Save an adapter on the base, first resized to a number of tokens; the logits with it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    if tokens:
        model.resize_token_embeddings(tokens)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **settings)
    wrapped = peft.get_peft_model(model, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape)
    wrapped.save_pretrained(str(out))
    return _logits(wrapped)


@pytest.mark.parametrize(("layers", "line"), [(1, "it has .*layers.1"), (3, "it lacks .*layers.2")])
def test_a_base_of_another_depth(layers: int, line: str, tiny_base: Path, tmp_path: Path) -> None:
    _adapter(tiny_base, tmp_path / "adapter")
    config = transformers.AutoConfig.from_pretrained(tiny_base, num_hidden_layers=layers)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    base = load_base(_options(tmp_path / "base"))
    with pytest.raises(InputError, match=f"no adapter that fits the base model: {line}"):
        load_with_adapter(base, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("base_model.model.", "", r"it has model\.layers"),
        ("lora_A", "lora_X", r"it has .*lora_X"),
    ],
)
def test_weights_by_other_names(
    old: str, new: str, line: str, tiny_base: Path, tmp_path: Path
) -> None:
    _adapter(tiny_base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name.replace(old, new): value for name, value in load_file(path).items()}, path)
    with pytest.raises(InputError, match=line):
        load_for_inference(_options(tiny_base), tmp_path / "adapter")


def test_half_of_an_adapter(tiny_base: Path, tmp_path: Path) -> None:
    _adapter(tiny_base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    # Of two layers with two matrices each one layer is left.
    save_file({name: value for name, value in load_file(path).items() if ".0." in name}, path)
    with pytest.raises(InputError, match=r"it lacks .*layers.1.*lora_A.weight and 1 more"):
        load_for_inference(_options(tiny_base), tmp_path / "adapter")


@pytest.mark.parametrize("more", [1, 64, -8])
def test_another_vocabulary_that_was_not_trained(
    more: int, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tiny_base)
    tokens = load_base(options).config.vocab_size
    expected = _adapter(tiny_base, tmp_path / "adapter", tokens + more)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("embed_tokens" in name for name in saved)
    found = _logits(load_for_inference(options, tmp_path / "adapter"))
    assert found.shape[-1] == tokens
    common = min(tokens, tokens + more)
    torch.testing.assert_close(found[..., :common], expected[..., :common], atol=1e-4, rtol=1e-4)
    assert "embeddings of another vocabulary are left out" in capsys.readouterr().err


def test_another_vocabulary_that_was_trained(tiny_base: Path, tmp_path: Path) -> None:
    options = _options(tiny_base)
    tokens = load_base(options).config.vocab_size
    _adapter(tiny_base, tmp_path / "adapter", tokens + 1, modules_to_save=["embed_tokens"])
    line = f"trained with {tokens + 1} tokens, their embeddings too, and the base has {tokens}"
    with pytest.raises(InputError, match=line):
        load_for_inference(options, tmp_path / "adapter")


def test_the_code_of_a_repository_is_neither_run_nor_offered(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        pytest.fail("a question was asked")

    monkeypatch.setattr("builtins.input", asked)
    marker = tmp_path / "ran"
    for name, change in (
        ("config.json", {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Config"}}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd", None]}},
        ),
    ):
        base = tmp_path / name.partition(".")[0]
        shutil.copytree(tiny_base, base)
        (base / "odd.py").write_text(f"open({str(marker)!r}, 'w')")
        value = json.loads((base / name).read_text()) | change
        (base / name).write_text(json.dumps(value))
        with pytest.raises(InputError, match=r"custom code|model type"):
            (load_base if name == "config.json" else load_tokenizer)(_options(base))
    assert not marker.exists()
