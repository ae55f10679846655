"""A merged model is the base with its adapter, whatever kind of adapter it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import transformers
import yaml

from citepipe.cli import main
from citepipe.errors import InputError
from citepipe.models.load import load_base, load_for_inference, trained_with
from citepipe.models.merge import dtype_of, export
from citepipe.options import PromptOptions
from tests.models.tiny import adapted, loaded, logits, lora, options


def _varied(base: Path, out: Path, **settings: bool) -> Path:
    """A base as another one is, but for some settings and with other weights."""
    config = transformers.AutoConfig.from_pretrained(base)
    for name, value in settings.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(config).save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(out)
    return out


KINDS: dict[str, Callable[[], peft.PeftConfig]] = {
    "LoRA": lora,
    "embeddings": lambda: lora(target_modules=["q_proj", "embed_tokens"]),
    "output layer": lambda: lora(target_modules=["q_proj", "lm_head"]),
    "saved modules": lambda: lora(modules_to_save=["embed_tokens"]),
    "DoRA": lambda: lora(use_dora=True),
    "rank by layer": lambda: lora(
        use_rslora=True, rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 3}
    ),
    "biases": lambda: lora(lora_bias=True, target_modules=["q_proj", "v_proj"]),
    "tokens": lambda: lora(trainable_token_indices=[3, 5]),
    "IA3": lambda: peft.IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ),
}


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_is_that_with_the_adapter(
    kind: str, is_tied: bool, tiny_base: Path, tmp_path: Path
) -> None:
    settings = {"tie_word_embeddings": is_tied, "attention_bias": kind == "biases"}
    base = _varied(tiny_base, tmp_path / "base", **settings)
    expected = adapted(base, tmp_path / "adapter", KINDS[kind]())
    bare = logits(load_base(options(base)))
    assert (expected - bare).abs().max() > 0.1
    export(options(base), tmp_path / "adapter", tmp_path / "out", "x")
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), expected, atol=1e-4, rtol=1e-4)
    inside = load_for_inference(options(base), tmp_path / "adapter")
    torch.testing.assert_close(logits(inside), expected, atol=1e-4, rtol=1e-4)


def test_the_tokenizer_and_the_card_come_along(tiny_base: Path, tmp_path: Path) -> None:
    adapted(tiny_base, tmp_path / "adapter", lora())
    scores = tmp_path / "scores.json"
    metrics = {"citation_rec": 12.34, "claims_nli": None}
    part = {"metrics": metrics, "intervals": {"citation_rec": [10.04, 14.6]}}
    scores.write_text(json.dumps({"lexical": {"asqa": part}}))
    about = {"step": 2, "model": {"base": str(tiny_base)}, "prompt": {"instruction": "Cite."}}
    (tmp_path / "adapter" / "citepipe.json").write_text(json.dumps(about))
    steps = [{"step": 2, "loss": 9}, {"step": 2, "dev_reward": 0.5}, {"step": 3, "dev_reward": 0.1}]
    lines = "\n".join(map(json.dumps, steps))
    (tmp_path / "adapter" / "metrics.jsonl").write_text(lines)
    out = tmp_path / "model"
    record = {"system": "fg_rl", "seed": 3}
    said = export(options(tiny_base), tmp_path / "adapter", out, "a.zip", scores, "mit", record)
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
    assert body.endswith("\n- lexical, asqa: citation_rec 12.3 [10.0, 14.6]\n")
    made = json.loads(body.partition("```json\n")[2].partition("```")[0])
    assert set(made.pop("versions")) == {"citepipe", "torch", "transformers", "peft"}
    assert made == {
        "base": str(tiny_base),
        "trained weights": "a.zip",
        "precision": "float32",
        "adapter": {"peft_type": "LORA", "r": 2, "lora_alpha": 8},
        "adapter left after rounding": "100.0%",
        "training": record,
        "kept step": {"step": 2, "dev_reward": 0.5},
        "prompt": {"instruction": "Cite."},
    }
    # The whole model knows its prompt too.
    model, prompt = trained_with(out)
    assert (model.base, prompt) == (str(out), PromptOptions(instruction="Cite."))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_sum_is_rounded_once(dtype: str, tiny_base: Path, tmp_path: Path) -> None:
    # A base in 16 bits of the one kind, written in the other: rounding it before would show.
    stored = torch.float16 if dtype == "bfloat16" else torch.bfloat16
    loaded(tiny_base).to(stored).save_pretrained(tmp_path / "base")
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "base")
    assert dtype_of(options(tmp_path / "base")) == str(stored).removeprefix("torch.")
    adapted(tmp_path / "base", tmp_path / "adapter", lora(), 0.02)
    export(options(tmp_path / "base", dtype=dtype), tmp_path / "adapter", tmp_path / "out", "x")
    wrapped = peft.PeftModel.from_pretrained(
        loaded(tmp_path / "base", dtype=torch.float32), tmp_path / "adapter"
    )
    exact = wrapped.merge_and_unload().state_dict()
    for name, weight in loaded(tmp_path / "out").state_dict().items():
        assert weight.dtype == getattr(torch, dtype)
        assert torch.equal(weight, exact[name].to(weight.dtype)), name


def test_whole_models_are_written_as_they_are_and_what_is_no_model_is_refused(
    tiny_base: Path, tmp_path: Path
) -> None:
    adapted(tiny_base, tmp_path / "adapter", lora(), float("inf"))
    (tmp_path / "scores.json").write_text("[]")
    export(options(tiny_base), tiny_base, tmp_path / "whole", "x")
    assert torch.equal(logits(loaded(tmp_path / "whole")), logits(loaded(tiny_base)))
    for line, trained, out, scores in (
        ("its sum with the base is not finite", tmp_path / "adapter", "new", None),
        ("expected a score file, it has no metrics", tiny_base, "new", tmp_path / "scores.json"),
        ("expected the name of a new or empty directory", tiny_base, "adapter", None),
    ):
        with pytest.raises(InputError, match=line):
            export(options(tiny_base), trained, tmp_path / out, "x", scores)
    assert not (tmp_path / "new").exists()


def test_the_command(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = adapted(tiny_base, tmp_path / "rl" / "best_peft" / "policy_adapter", lora())
    packed = shutil.make_archive(str(tmp_path / "rl"), "zip", tmp_path / "rl")
    out = str(tmp_path / "out")
    assert main(["merge", packed, out, "--base", str(tiny_base)]) == 0
    torch.testing.assert_close(logits(loaded(Path(out))), expected, atol=1e-4, rtol=1e-4)
    path = tmp_path / "rl" / "best_peft" / "policy_adapter" / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "/home/somebody/llama"}
    path.write_text(json.dumps(config))
    capsys.readouterr()
    assert main(["merge", str(tmp_path / "rl"), str(tmp_path / "again")]) == 1
    said = capsys.readouterr().err
    assert (
        "it was trained on '/home/somebody/llama', which is not on this machine; say --base" in said
    )
