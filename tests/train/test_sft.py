"""Supervised fine-tuning on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel

from citepipe.data.files import read_examples, read_jsonl, write_examples
from citepipe.errors import InputError
from citepipe.models.load import load_base, load_for_inference, load_tokenizer
from citepipe.options import ModelOptions, PromptOptions
from citepipe.train import sft
from tests.train.conftest import assert_close, run

ADAPTER = "adapter_model.safetensors"


@pytest.mark.parametrize(("limit", "cut"), [(200, False), (3, True)])
def test_only_the_answer_is_learnt_with_its_end_unless_it_is_cut(
    limit: int, cut: bool, options: ModelOptions, prompt: PromptOptions, files: dict[str, Path]
) -> None:
    tokenizer = load_tokenizer(options)
    item = sft.encode_examples(read_examples(files["train"])[:1], prompt, tokenizer, limit)[0]
    ((asked, learnt),) = item.rows
    assert tokenizer.decode(asked).endswith("\nAnswer:")
    answer = tokenizer(" Silver River was directed by Anna Berg in 1995 [1].")["input_ids"]
    assert list(learnt) == (answer[:3] if cut else [*answer, tokenizer.eos_token_id])
    assert item.weight == len(learnt)


def test_training_lowers_the_dev_loss_and_leaves_an_adapter(adapter: Path) -> None:
    losses = [r["eval_loss"] for r in read_jsonl(adapter / "metrics.jsonl") if "eval_loss" in r]
    assert losses[-1] < losses[0]
    assert (adapter / ADAPTER).is_file()
    assert (adapter / "tokenizer.json").is_file()
    assert (adapter / "last" / ADAPTER).is_file()
    assert not adapter.with_name("state").exists(), "a finished run leaves no state"


@pytest.fixture
def call(supervised: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Two steps in a folder of their own."""
    options = supervised["options"].model_copy(update={"max_steps": 2, "evaluations": 1})
    folders = {"out": tmp_path / "out", "state": tmp_path / "state"}
    return supervised | folders | {"options": options}


def test_losses_are_means_over_tokens_of_answers_and_tracked(
    call: dict[str, Any], options: ModelOptions, prompt: PromptOptions
) -> None:
    # Answers of unlike length, so that a mean of means would be another number.
    examples = read_examples(call["train"])[:3]
    texts = ("Anna Berg [1].", "It was made in 1995, and it was directed by Anna Berg [1].", "No.")
    examples = [replace(e, output=text) for e, text in zip(examples, texts, strict=True)]
    call["train"] = call["dev"] = call["out"].with_name("unlike.json")
    write_examples(call["train"], examples)
    assert options.adapter is not None
    adapter = options.adapter.model_copy(update={"dropout": 0.0})
    call["model"] = options.model_copy(update={"adapter": adapter})
    call["options"] = call["options"].model_copy(update={"max_steps": 1, "batch_size": 3})
    logged: list[dict[str, float]] = []
    tracker = SimpleNamespace(log=lambda step, figures: logged.append({"step": step, **figures}))
    run(sft, call | {"tracker": tracker})
    tokenizer, base = load_tokenizer(options), load_base(options)

    def loss(model: Any) -> float:
        total, tokens = 0.0, 0
        for item in sft.encode_examples(examples, prompt, tokenizer, 200):
            row = item.rows[0]
            ids = torch.tensor([[*row.prompt, *row.answer]])
            labels = torch.tensor([[-100] * len(row.prompt) + list(row.answer)])
            with torch.no_grad():
                mean = model(ids, labels=labels).loss
            total, tokens = total + float(mean) * len(row.answer), tokens + len(row.answer)
        return total / tokens

    first, evaluation = read_jsonl(call["out"] / "metrics.jsonl")
    assert first["loss"] == pytest.approx(loss(base), abs=1e-5)
    trained = PeftModel.from_pretrained(base, call["out"]).eval()
    assert evaluation["eval_loss"] == pytest.approx(loss(trained), abs=1e-5)
    assert logged == [first, evaluation]


def test_all_weights_can_be_trained_and_gone_on_from(
    call: dict[str, Any], options: ModelOptions, tmp_path: Path
) -> None:
    whole = options.model_copy(update={"adapter": None})
    run(sft, call | {"model": whole})
    trained = load_for_inference(whole, call["out"]).state_dict()
    changed = [n for n, v in load_base(options).state_dict().items() if (v != trained[n]).any()]
    assert any("mlp" in name for name in changed)
    assert any("embed" in name for name in changed)
    run(sft, call | {"start": call["out"], "out": tmp_path / "again", "model": whole})
    assert (tmp_path / "again" / "model.safetensors").is_file()


def test_an_adapter_is_gone_on_from(call: dict[str, Any], adapter: Path) -> None:
    slow = call["options"].model_copy(update={"max_steps": 1, "learning_rate": 1e-9})
    run(sft, call | {"start": adapter, "options": slow})
    assert_close(adapter / ADAPTER, call["out"] / ADAPTER, atol=1e-7, rtol=0)


def test_gradient_checkpointing_changes_nothing(call: dict[str, Any], tmp_path: Path) -> None:
    run(sft, call)
    model = call["model"].model_copy(update={"gradient_checkpointing": True})
    run(sft, call | {"model": model, "out": tmp_path / "other"})
    assert_close(call["out"] / ADAPTER, tmp_path / "other" / ADAPTER, atol=1e-6, rtol=0)


def test_rows_without_answers(
    call: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.json"
    write_examples(empty, [replace(e, output=None) for e in read_examples(call["dev"])])
    with pytest.raises(InputError, match=r"empty\.json: expected rows with an answer"):
        run(sft, call | {"train": empty})
    assert not call["out"].exists()
    assert not call["state"].exists()
    # Without answers to dev questions every tenth of the twelve others is kept.
    assert "sft: answers 10, " in run(sft, call | {"dev": empty})
    assert "no dev question has an answer; 2 others choose" in capsys.readouterr().err
