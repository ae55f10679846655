"""A merged model is the base with its adapter, whatever kind of adapter it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml

from citepipe.cli import main
from citepipe.errors import InputError
from citepipe.models.load import load_base, load_for_inference, share_kept_by_merging
from citepipe.models.merge import dtype_of, export
from citepipe.options import ModelOptions


def _options(base: Path, dtype: str = "float32") -> ModelOptions:
    return ModelOptions.model_validate({"base": str(base), "dtype": dtype})


def _logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[3, 5, 7, 9]])).logits
    return found.float()


def _loaded(path: Path, **settings: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(path, **settings)


@pytest.fixture(scope="module")
def untied(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with an output layer of its own."""
    folder = tmp_path_factory.mktemp("untied")
    config = transformers.AutoConfig.from_pretrained(tiny_base)
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


def _adapted(base: Path, out: Path, config: peft.PeftConfig, size: float = 0.3) -> torch.Tensor:
    """Save an adapter with all of its weights moved at random; the logits with it."""
    model = peft.get_peft_model(_loaded(base, dtype=torch.float32), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(str(out))
    return _logits(model)


def _lora(**settings: Any) -> peft.LoraConfig:
    return peft.LoraConfig(
        **{"task_type": "CAUSAL_LM", "r": 2, "target_modules": "all-linear"} | settings
    )


KINDS: dict[str, Callable[[], peft.PeftConfig]] = {
    "LoRA": _lora,
    "embeddings": lambda: _lora(target_modules=["q_proj", "embed_tokens"]),
    "output layer": lambda: _lora(target_modules=["q_proj", "lm_head"]),
    "both": lambda: _lora(target_modules=["embed_tokens", "lm_head"]),
    "saved modules": lambda: _lora(modules_to_save=["embed_tokens"]),
    "DoRA": lambda: _lora(use_dora=True),
    "rank by layer": lambda: _lora(
        use_rslora=True, rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 3}
    ),
    "biases": lambda: _lora(lora_bias=True, target_modules=["q_proj", "v_proj"]),
    "tokens": lambda: _lora(trainable_token_indices=[3, 5]),
    "IA3": lambda: peft.IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ),
    "LoHa": lambda: peft.LoHaConfig(task_type="CAUSAL_LM", target_modules=["k_proj"]),
}
BIASED = ("biases",)


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_is_that_with_the_adapter(
    kind: str, is_tied: bool, tiny_base: Path, untied: Path, tmp_path: Path
) -> None:
    base = tiny_base if is_tied else untied
    if kind in BIASED:
        base = _with_biases(base, tmp_path / "biased")
    expected = _adapted(base, tmp_path / "adapter", KINDS[kind]())
    bare = _logits(load_base(_options(base)))
    assert (expected - bare).abs().max() > 0.1
    export(_options(base), tmp_path / "adapter", tmp_path / "out", "x")
    torch.testing.assert_close(_logits(_loaded(tmp_path / "out")), expected, atol=1e-4, rtol=1e-4)
    inside = load_for_inference(_options(base), tmp_path / "adapter")
    torch.testing.assert_close(_logits(inside), expected, atol=1e-4, rtol=1e-4)


def _with_biases(base: Path, out: Path) -> Path:
    config = transformers.AutoConfig.from_pretrained(base)
    config.attention_bias = True
    torch.manual_seed(2)
    transformers.LlamaForCausalLM(config).save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(out)
    return out


def test_the_tokenizer_and_the_card_come_along(tiny_base: Path, tmp_path: Path) -> None:
    _adapted(tiny_base, tmp_path / "adapter", _lora())
    scores = tmp_path / "scores.json"
    metrics = {"citation_rec": 12.34, "claims_nli": None}
    scores.write_text(json.dumps({"lexical": {"asqa": {"metrics": metrics}}}))
    curve = [{"step": 0, "dev/loss": 2.5}, {"step": 30, "dev/loss": 1.25}]
    lines = [json.dumps(record) for record in curve]
    (tmp_path / "adapter" / "metrics.jsonl").write_text("\n".join(lines))
    out = tmp_path / "model"
    record = {"system": "fg_rl", "seed": 3}
    said = export(
        _options(tiny_base), tmp_path / "adapter", out, "a|b\nc.zip", scores, "mit", record
    )
    assert said.startswith(f"merge: written {out}, ")
    kept = transformers.AutoTokenizer.from_pretrained(tiny_base)
    text = "Silver River [1]."
    assert transformers.AutoTokenizer.from_pretrained(out).encode(text) == kept.encode(text)
    assert (out / "generation_config.json").is_file()
    card = (out / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "mit",
        "tags": ["citepipe", "citations"],
    }
    for line in (
        f"| base | {tiny_base} |",
        "| trained weights | a/b c.zip |",
        "| rank | 2 |",
        "| precision | float32 |",
        "30 steps. On dev questions, from the start to the end:",
        "- dev/loss from 2.5 to 1.25",
        "- lexical, asqa: citation_rec 12.3",
        ' "system": "fg_rl",',
    ):
        assert line in body.splitlines()
    for taken in (out, Path()):
        with pytest.raises(InputError, match="expected the name of a new or empty directory"):
            export(_options(tiny_base), tmp_path / "adapter", taken, "x")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_sum_is_rounded_once(dtype: str, tiny_base: Path, tmp_path: Path) -> None:
    # A base in 16 bits of the one kind, written in the other: rounding it before would show.
    stored = torch.float16 if dtype == "bfloat16" else torch.bfloat16
    _loaded(tiny_base).to(stored).save_pretrained(tmp_path / "base")
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "base")
    assert dtype_of(_options(tmp_path / "base")) == str(stored).removeprefix("torch.")
    _adapted(tmp_path / "base", tmp_path / "adapter", _lora(), 0.02)
    export(_options(tmp_path / "base", dtype), tmp_path / "adapter", tmp_path / "out", "x")
    wrapped = peft.PeftModel.from_pretrained(
        _loaded(tmp_path / "base", dtype=torch.float32), tmp_path / "adapter"
    )
    exact = wrapped.merge_and_unload().state_dict()
    for name, weight in _loaded(tmp_path / "out").state_dict().items():
        assert weight.dtype == getattr(torch, dtype)
        assert torch.equal(weight, exact[name].to(weight.dtype)), name


def test_what_rounding_takes_is_said(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _loaded(tiny_base).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "base")
    _adapted(tmp_path / "base", tmp_path / "adapter", _lora(lora_alpha=1e-4))
    said = export(
        _options(tmp_path / "base", "bfloat16"), tmp_path / "adapter", tmp_path / "out", "x"
    )
    base = _loaded(tmp_path / "base", dtype=torch.bfloat16)
    kept = share_kept_by_merging(peft.PeftModel.from_pretrained(base, tmp_path / "adapter"))
    assert 0 < kept < 0.9
    line = f"rounded to bfloat16, {kept:.0%} of the adapter is left; float32 keeps all of it"
    assert line in capsys.readouterr().err
    assert said.endswith(f"adapter kept {kept:.1%}")


def test_a_whole_model_is_written_as_it_is(tiny_base: Path, tmp_path: Path) -> None:
    export(_options(tiny_base), tiny_base, tmp_path / "out", "x")
    assert torch.equal(_logits(_loaded(tmp_path / "out")), _logits(_loaded(tiny_base)))


def test_weights_that_are_not_finite(tiny_base: Path, tmp_path: Path) -> None:
    _adapted(tiny_base, tmp_path / "adapter", _lora(), float("inf"))
    with pytest.raises(InputError, match="its sum with the base is not finite"):
        export(_options(tiny_base), tmp_path / "adapter", tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()


def test_a_score_file_that_is_none(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("[]")
    with pytest.raises(InputError, match="expected a score file, it has no metrics"):
        export(_options(tiny_base), tiny_base, tmp_path / "out", "x", tmp_path / "scores.json")


def test_a_full_disk_leaves_nothing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", full)
    with pytest.raises(InputError, match="out: cannot be written: No space left on device"):
        export(_options(tiny_base), tiny_base, tmp_path / "out", "x")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = _adapted(tiny_base, tmp_path / "rl" / "best_peft" / "policy_adapter", _lora())
    packed = shutil.make_archive(str(tmp_path / "rl"), "zip", tmp_path / "rl")
    out = str(tmp_path / "out")
    assert main(["merge", packed, out, "--base", str(tiny_base)]) == 0
    torch.testing.assert_close(_logits(_loaded(Path(out))), expected, atol=1e-4, rtol=1e-4)
    path = tmp_path / "rl" / "best_peft" / "policy_adapter" / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "/home/somebody/llama"}
    path.write_text(json.dumps(config))
    capsys.readouterr()
    assert main(["merge", str(tmp_path / "rl"), str(tmp_path / "again")]) == 1
    said = capsys.readouterr().err
    assert (
        "it was trained on '/home/somebody/llama', which is not on this machine; say --base" in said
    )
