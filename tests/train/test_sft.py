"""Supervised fine-tuning on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from citepipe.data.files import read_examples, read_jsonl, write_examples
from citepipe.errors import InputError
from citepipe.models.load import load_base, load_for_inference, load_tokenizer
from citepipe.options import ModelOptions, PromptOptions, SFTOptions
from citepipe.train import sft


def test_only_the_answer_and_the_end_of_sequence_are_learnt(
    options: ModelOptions, prompt: PromptOptions, files: dict[str, Path]
) -> None:
    tokenizer = load_tokenizer(options)
    item = sft.encode_examples(read_examples(files["train"])[:1], prompt, tokenizer, 200)[0]
    (row,) = item.rows
    learnt = row.token_ids[len(row.token_ids) - row.answer :].tolist()
    assert tokenizer.decode(learnt[:-1]) == " Silver River was directed by Anna Berg in 1995 [1]."
    assert learnt[-1] == tokenizer.eos_token_id
    assert item.weight == len(learnt)
    assert tokenizer.decode(row.token_ids[: -row.answer]).endswith("\nAnswer:")


def test_an_answer_over_the_limit_is_cut_without_an_end(
    options: ModelOptions, prompt: PromptOptions, files: dict[str, Path]
) -> None:
    tokenizer = load_tokenizer(options)
    item = sft.encode_examples(read_examples(files["train"])[:1], prompt, tokenizer, 3)[0]
    assert item.rows[0].answer == 3
    assert tokenizer.eos_token_id not in item.rows[0].token_ids


def test_training_lowers_the_dev_loss_and_leaves_an_adapter(adapter: Path) -> None:
    losses = [r["eval_loss"] for r in read_jsonl(adapter / "metrics.jsonl") if "eval_loss" in r]
    assert losses[-1] < losses[0]
    assert (adapter / "adapter_model.safetensors").is_file()
    assert (adapter / "tokenizer.json").is_file()
    assert (adapter / "last" / "adapter_model.safetensors").is_file()
    assert not adapter.with_name("state").exists(), "a finished run leaves no state"


@pytest.fixture
def call(
    options: ModelOptions, prompt: PromptOptions, files: dict[str, Path], tmp_path: Path
) -> dict[str, Any]:
    return {
        "train": files["train"],
        "dev": files["dev"],
        "model": options,
        "prompt": prompt,
        "options": SFTOptions(max_steps=2, batch_size=4, evaluations=1),
        "start": None,
        "out": tmp_path / "out",
        "state": tmp_path / "state",
        "fingerprint": "a",
        "seed": 0,
        "threads": 1,
    }


class _Tracker:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, figures: dict[str, float]) -> None:
        self.logged.append((step, dict(figures)))


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
    call["options"] = SFTOptions(max_steps=1, batch_size=3, evaluations=1)
    tracker = _Tracker()
    sft.run(**call, tracker=tracker)  # type: ignore[arg-type]
    tokenizer, base = load_tokenizer(options), load_base(options)

    def loss(model: Any) -> float:
        total, tokens = 0.0, 0
        for item in sft.encode_examples(examples, prompt, tokenizer, 200):
            row = item.rows[0]
            labels = row.token_ids.clone()
            labels[: -row.answer] = -100
            with torch.no_grad():
                mean = model(row.token_ids[None], labels=labels[None]).loss
            total, tokens = total + float(mean) * row.answer, tokens + row.answer
        return total / tokens

    first, evaluation = read_jsonl(call["out"] / "metrics.jsonl")
    assert first["loss"] == pytest.approx(loss(base), abs=1e-5)
    trained = PeftModel.from_pretrained(base, call["out"]).eval()
    assert evaluation["eval_loss"] == pytest.approx(loss(trained), abs=1e-5)
    assert [step for step, _ in tracker.logged] == [1, 1]
    assert tracker.logged[0][1]["loss"] == first["loss"]
    assert tracker.logged[1][1]["eval_loss"] == evaluation["eval_loss"]


def test_all_weights_can_be_trained_and_gone_on_from(
    call: dict[str, Any], options: ModelOptions, tmp_path: Path
) -> None:
    whole = options.model_copy(update={"adapter": None})
    sft.run(**{**call, "model": whole})
    trained = load_for_inference(whole, call["out"]).state_dict()
    changed = [n for n, v in load_base(options).state_dict().items() if (v != trained[n]).any()]
    assert any("mlp" in name for name in changed)
    assert any("embed" in name for name in changed)
    again = {"start": call["out"], "out": tmp_path / "again", "model": whole}
    sft.run(**{**call, **again})
    assert (tmp_path / "again" / "model.safetensors").is_file()


def test_an_adapter_is_gone_on_from(call: dict[str, Any], adapter: Path) -> None:
    call["options"] = SFTOptions(max_steps=1, learning_rate=1e-9, evaluations=1)
    sft.run(**{**call, "start": adapter})
    before = load_file(adapter / "adapter_model.safetensors")
    after = load_file(call["out"] / "adapter_model.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-7, rtol=0)


def test_gradient_checkpointing_changes_nothing(call: dict[str, Any], tmp_path: Path) -> None:
    sft.run(**call)
    model = call["model"].model_copy(update={"gradient_checkpointing": True})
    sft.run(**{**call, "model": model, "out": tmp_path / "other"})
    plain = load_file(call["out"] / "adapter_model.safetensors")
    checkpointed = load_file(tmp_path / "other" / "adapter_model.safetensors")
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, atol=1e-6, rtol=0)


def test_rows_without_answers_are_one_clear_line(call: dict[str, Any], tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    write_examples(empty, [replace(e, output=None) for e in read_examples(call["dev"])])
    with pytest.raises(InputError, match=r"empty\.json: expected rows with an answer"):
        sft.run(**{**call, "train": empty})
    assert not call["out"].exists()
    assert not call["state"].exists()


def test_without_answers_to_dev_questions_a_tenth_of_the_others_is_kept(
    call: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.json"
    write_examples(empty, [replace(e, output=None) for e in read_examples(call["dev"])])
    answers = sum(bool(example.output) for example in read_examples(call["train"]))
    kept = -(-answers // 10)
    said = sft.run(**{**call, "dev": empty})
    assert f"answers {answers - kept}, " in said
    assert f"{kept} of {answers} answers are kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"schedule": "cosin"}, r"sft\.schedule: expected one of linear, cosine, .*'cosin'"),
        ({"fsdp": True}, r"sft\.fsdp: .*model\.adapter"),
    ],
)
def test_options_that_cannot_be_come_before_any_model(
    changed: dict[str, Any], complaint: str, call: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sft, "load_trainable")
    options = call["options"].model_copy(update=changed)
    with pytest.raises(InputError, match=complaint):
        sft.run(**{**call, "options": options})
