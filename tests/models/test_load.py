"""What is no model is one clear line, and an adapter that does not fit is not loaded in part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from citepipe.errors import InputError
from citepipe.models.load import (
    computing,
    load_base,
    load_for_inference,
    load_tokenizer,
    load_trainable,
    share_kept_by_merging,
)
from citepipe.models.merge import export
from citepipe.models.pretrained import load_checkpoint, precision
from citepipe.models.save import building
from citepipe.options import AdapterOptions
from tests.models.tiny import adapted, logits, lora, options

SOFT_PROMPT = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)


def test_an_adapter_that_16_bits_would_lose_is_kept_apart_and_its_loss_is_reported(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_base(options(tiny_base, dtype="bfloat16")).save_pretrained(tmp_path / "base")
    load_tokenizer(options(tiny_base)).save_pretrained(tmp_path / "base")
    halved = options(tmp_path / "base", dtype="bfloat16")
    config = peft.LoraConfig(r=4, target_modules="all-linear")
    model = peft.get_peft_model(load_base(halved), config)
    shares = []
    for size in (1e-5, 3e-2):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(str(tmp_path / "adapter"))
        shares.append(share_kept_by_merging(model))
        loaded = load_for_inference(halved, tmp_path / "adapter")
        assert isinstance(loaded, peft.PeftModel) == (size == 1e-5)
        assert ("kept apart from the base" in capsys.readouterr().err) == (size == 1e-5)
        merged = export(halved, tmp_path / "adapter", tmp_path / f"merged-{size}", "x")
        assert merged.endswith(f"adapter kept {shares[-1]:.1%}")
        line = f"rounded to bfloat16, {shares[-1]:.0%} of the adapter is left; float32 keeps all"
        assert (line in capsys.readouterr().err) == (size == 1e-5)
    assert shares[0] < 0.5
    assert shares[1] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("has", [None, "amx_bf16", "avx512_bf16"])
def test_auto_is_bfloat16_on_a_processor_that_multiplies_it(
    has: str | None, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known | ({has: True} if has else {}))
    expected = torch.bfloat16 if has else torch.float32
    auto = options(tiny_base, dtype="auto")
    assert load_base(auto).dtype == expected
    assert load_trainable(auto.model_copy(update={"adapter": None}), None).dtype == torch.float32
    with computing(auto):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == expected
    assert precision("auto", "cpu") == str(expected).removeprefix("torch.")
    assert precision("float32", "cpu") == "float32"


@pytest.mark.parametrize("is_quick", [False, True])
def test_auto_is_bfloat16_on_a_gpu_that_has_it(
    is_quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: is_quick)
    assert precision("auto", "cuda:1") == ("bfloat16" if is_quick else "float32")


@pytest.mark.parametrize("load", [load_base, load_tokenizer])
def test_a_directory_that_is_not_a_model_is_one_clear_line(load: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a model directory, it has no config\.json"):
        load(options(tmp_path))
    with pytest.raises(InputError, match="no such directory"):
        load(options(tmp_path / "none"))
    with pytest.raises(InputError, match=r"expected a PEFT adapter, adapter_config\.json"):
        load_for_inference(options(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("config", "change", "line"),
    [
        (lora(), {"peft_type": "MAGIC"}, "MAGIC"),
        (lora(), {"new_kind": {"x": 1}}, "the installed PEFT does not know new_kind"),
        (SOFT_PROMPT, {}, "it is PROMPT_TUNING, expected one that is added to"),
    ],
    ids=["unknown", "of a later version", "soft prompt"],
)
def test_a_configuration_that_means_another_adapter(
    config: Any, change: dict[str, object], line: str, tiny_base: Path, tmp_path: Path
) -> None:
    adapted(tiny_base, tmp_path, config)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change | {"enable_lora": None}))
    with pytest.raises(InputError, match=f"no adapter that fits the base model: .*{line}"):
        load_for_inference(options(tiny_base), tmp_path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda name, w: {name.replace("base_model.model.", ""): w}, r"it has model\.layers"),
        (lambda name, w: {name.replace("lora_A", "lora_X"): w}, "it has .*lora_X"),
        (lambda name, w: {name: w} if ".0." in name else {}, "lacks .*layers.1.* and 13 more"),
        (lambda name, w: {name: w[..., :1].contiguous()}, "mismatch"),
    ],
    ids=["no prefix", "another name", "half of it", "another shape"],
)
def test_an_adapter_of_another_base_is_one_clear_line(
    change: Any, line: str, tiny_base: Path, tmp_path: Path
) -> None:
    adapted(tiny_base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({k: v for name, w in tensors.items() for k, v in change(name, w).items()}, path)
    for load in (load_for_inference, load_trainable):
        with pytest.raises(InputError, match=f"no adapter that fits the base model: .*{line}"):
            load(options(tiny_base), tmp_path / "adapter")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"no adapter that fits the base model: .*header"):
        load_for_inference(options(tiny_base), tmp_path / "adapter")


@pytest.mark.parametrize("more", [1, 64, -8])
def test_another_vocabulary_that_was_not_trained(
    more: int, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = load_base(options(tiny_base)).config.vocab_size
    expected = adapted(tiny_base, tmp_path / "adapter", tokens=tokens + more)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("embed_tokens" in name for name in saved)
    found = logits(load_for_inference(options(tiny_base), tmp_path / "adapter"))
    assert found.shape[-1] == tokens
    common = min(tokens, tokens + more)
    torch.testing.assert_close(found[..., :common], expected[..., :common], atol=1e-4, rtol=1e-4)
    assert "embeddings of another vocabulary are left out" in capsys.readouterr().err


def test_another_vocabulary_that_was_trained(tiny_base: Path, tmp_path: Path) -> None:
    tokens = load_base(options(tiny_base)).config.vocab_size
    config = lora(modules_to_save=["embed_tokens"])
    adapted(tiny_base, tmp_path / "adapter", config, tokens=tokens + 1)
    line = f"trained with {tokens + 1} tokens, their embeddings too, and the base has {tokens}"
    with pytest.raises(InputError, match=line):
        load_for_inference(options(tiny_base), tmp_path / "adapter")


def test_weights_of_other_shapes_or_pickled_or_half_are_one_clear_line(
    tiny_base: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    weights, config = base / "model.safetensors", base / "config.json"
    right = config.read_text()
    config.write_text(right.replace('"hidden_size": 16', '"hidden_size": 32'))
    with pytest.raises(InputError, match="its weights have other shapes than its config"):
        load_base(options(base))
    config.write_text(right)
    tensors = load_file(weights)
    half = {name: value for name, value in tensors.items() if ".1." not in name}
    save_file(half, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"its weights lack model\.layers\.1.* and 8 more"):
        load_base(options(base))
    torch.save(tensors, base / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InputError, match=r"its weights are pickled \(\.bin\), not safetensors"):
        load_base(options(base))


def test_options_that_the_base_or_the_machine_does_not_have(tiny_base: Path) -> None:
    adapter = AdapterOptions(target_modules=["zz"])
    with pytest.raises(InputError, match=r"^model\.adapter\.target_modules: "):
        load_trainable(options(tiny_base, adapter=adapter), None)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="4bit needs a GPU"):
            load_base(options(tiny_base, quantization="4bit"))


ODD = {
    "config.json": {"model_type": "odd", "auto_map": {"AutoConfig": "o.Config"}},
    "tokenizer_config.json": {
        "tokenizer_class": "O",
        "auto_map": {"AutoTokenizer": ["o.O", None]},
    },
}


@pytest.mark.parametrize(("file", "change"), ODD.items(), ids=ODD)
def test_the_code_of_a_repository_is_neither_run_nor_offered(
    file: str, change: Any, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on the terminal"))
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "o.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (base / file).write_text(json.dumps(json.loads((base / file).read_text()) | change))
    for load in (
        lambda: (load_base if file == "config.json" else load_tokenizer)(options(base)),
        lambda: load_checkpoint(str(base), "AutoModelForCausalLM", "cpu", "float32", None),
    ):
        with pytest.raises(InputError, match="needs code of its own, which is not run"):
            load()
    assert not (tmp_path / "ran").exists()


def test_what_is_written_is_whole_or_absent(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("old", "new"):
        with building(out) as partial:
            (partial / name).touch()
    full = "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"
    with pytest.raises(RuntimeError, match="enforce fail"), building(out):
        raise RuntimeError(full)

    def write_until_full() -> None:
        with building(out) as partial:
            (partial / ".trial").symlink_to("/dev/full")
            raise RuntimeError(full)

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_until_full()
    assert caught.value.filename == str(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["new"]
