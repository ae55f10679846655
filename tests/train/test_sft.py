"""Supervised fine-tuning on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from citepipe.data.files import read_examples, read_jsonl, write_examples
from citepipe.errors import InputError
from citepipe.models.load import load_base, load_for_inference, load_tokenizer
from citepipe.options import ModelOptions, PromptOptions
from citepipe.train import sft
from citepipe.train.trainer import Item
from tests.train.conftest import ADAPTER, GOOD, Stage, assert_close


@pytest.mark.parametrize(("limit", "cut"), [(200, False), (3, True)])
def test_only_the_answer_is_learnt_with_its_end_unless_it_is_cut(
    limit: int, cut: bool, options: ModelOptions, prompt: PromptOptions, common: dict[str, Any]
) -> None:
    tokenizer = load_tokenizer(options)
    item = sft.encode_examples(read_examples(common["train"])[:1], prompt, tokenizer, limit)[0]
    ((asked, learnt),) = item.rows
    assert tokenizer.decode(asked).endswith("\nAnswer:")
    answer = tokenizer(f" {GOOD}")["input_ids"]
    assert list(learnt) == (answer[:3] if cut else [*answer, tokenizer.eos_token_id])
    assert item.weight == len(learnt)


@pytest.mark.parametrize(
    ("stop", "limit", "learnt", "said"),
    [
        # Where an answer has one line, all that is judged stands in it.
        (None, 200, "First [1]. Second ## third.", "the lines of 2 of 3 answers are put in one"),
        (["##"], 200, "First [1].\nSecond ", "1 of 3 answers are cut: before a stop string"),
        ([], 3, None, "sft: 3 of 3 answers are cut: max_output_tokens"),
    ],
)
def test_what_is_cut_of_answers_is_said(
    stop: list[str] | None,
    limit: int,
    learnt: str | None,
    said: str,
    options: ModelOptions,
    prompt: PromptOptions,
    common: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer = load_tokenizer(options)
    texts = ("<think>\nHm.</think>First [1].\nSecond ## third.", "One [1].\nTwo [2].", GOOD)
    examples = [
        replace(example, output=text)
        for example, text in zip(read_examples(common["train"])[:3], texts, strict=True)
    ]
    stopping = prompt.model_copy(update={"stop": stop})
    items = sft.encode_examples(examples, stopping, tokenizer, limit)
    if learnt is not None:
        assert tokenizer.decode(items[0].rows[0].answer[:-1]) == f" {learnt}"
    assert said in capsys.readouterr().err


def test_training_lowers_the_dev_loss_and_leaves_an_adapter(adapter: Path) -> None:
    losses = [r["eval_loss"] for r in read_jsonl(adapter / "metrics.jsonl") if "eval_loss" in r]
    assert losses[-1] < losses[0]
    assert (adapter / "tokenizer.json").is_file()
    assert (adapter / "last" / ADAPTER).is_file()
    assert not adapter.with_name("state").exists(), "a finished run leaves no state"


def test_losses_are_means_over_tokens_of_answers_and_tracked(
    steady: Stage, options: ModelOptions, prompt: PromptOptions, tmp_path: Path
) -> None:
    # Answers of unlike length, so that a mean of means would be another number.
    examples = read_examples(steady.call["train"])[:3]
    texts = ("Anna Berg [1].", "It was made in 1995, and it was directed by Anna Berg [1].", "No.")
    examples = [replace(e, output=text) for e, text in zip(examples, texts, strict=True)]
    file = tmp_path / "unlike.json"
    write_examples(file, examples)
    logged: list[dict[str, float]] = []
    tracker = SimpleNamespace(log=lambda step, figures: logged.append({"step": step, **figures}))
    changed = {"train": file, "dev": file, "tracker": tracker}
    out = steady.run(tmp_path, max_steps=1, evaluations=1, batch_size=3, **changed)
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

    start, first, evaluation = read_jsonl(out / "metrics.jsonl")
    assert start == {"step": 0, "eval_loss": pytest.approx(loss(base), abs=1e-5)}
    assert first["loss"] == pytest.approx(loss(base), abs=1e-5)
    trained = PeftModel.from_pretrained(base, out).eval()
    assert evaluation["eval_loss"] == pytest.approx(loss(trained), abs=1e-5)
    assert logged == [start, first, evaluation]


def test_all_weights_can_be_trained_and_gone_on_from(
    supervised: Stage, options: ModelOptions, tmp_path: Path
) -> None:
    changed = {"max_steps": 2, "model": options.model_copy(update={"adapter": None})}
    out = supervised.run(tmp_path / "one", **changed)
    trained = load_for_inference(changed["model"], out).state_dict()
    moved = [n for n, v in load_base(options).state_dict().items() if (v != trained[n]).any()]
    assert any("mlp" in name for name in moved)
    assert any("embed" in name for name in moved)
    again = supervised.run(tmp_path / "two", start=out, learning_rate=1e-9, **changed)
    assert_close(out / "last" / "model.safetensors", again / "model.safetensors", atol=1e-6)


def test_rows_without_answers(
    supervised: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.json"
    examples = read_examples(supervised.call["dev"])
    write_examples(empty, [replace(example, output=None) for example in examples])
    with pytest.raises(InputError, match=r"empty\.json: expected rows with an answer"):
        supervised.run(tmp_path, train=empty)
    assert not (tmp_path / "state").exists()
    supervised.run(tmp_path, dev=empty, max_steps=2)
    assert "empty.json has no answers; every tenth one of" in capsys.readouterr().err


def test_of_sampled_answers_every_tenth_is_held_out(
    supervised: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[list[float]] = []

    def fit(_: Any, *parts: list[Item]) -> dict[str, Any]:
        fitted.extend([item.weight for item in part] for part in parts)
        return {}

    monkeypatch.setattr(sft.Trainer, "fit", fit)
    examples = read_examples(supervised.call["train"])
    written = [replace(e, output="a" * (i + 1)) for i, e in enumerate(examples)]
    file = tmp_path / "sampled.json"
    write_examples(file, written)
    supervised.run(tmp_path, train=file, dev=None)
    tokenizer = load_tokenizer(supervised.call["model"])
    weights = [len(tokenizer(f" {e.output}")["input_ids"]) + 1 for e in written]
    assert fitted == [[w for i, w in enumerate(weights) if i not in (0, 10)], weights[::10]]
    write_examples(file, written[:1])
    with pytest.raises(InputError, match=r"sampled\.json: expected .* another to hold out, got 1"):
        supervised.run(tmp_path, train=file, dev=None)


@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_start_that_no_step_betters_is_kept_unchanged(
    is_fresh: bool,
    supervised: Stage,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    coming = iter([1.0, 2.0, 1.0, 1.5])
    means = sft.Trainer._means

    def faked(own: sft.Trainer, items: Any) -> dict[str, float]:
        return means(own, items) if torch.is_grad_enabled() else {"loss": next(coming)}

    monkeypatch.setattr(sft.Trainer, "_means", faked)
    out = supervised.run(tmp_path, start=None if is_fresh else adapter)
    assert "sft: no step has a lower dev loss than the start, which is kept" in (
        capsys.readouterr().err
    )
    for name, value in load_file(out / ADAPTER).items():
        if not is_fresh:
            assert torch.equal(value, load_file(adapter / ADAPTER)[name])
        elif "lora_B" in name:
            assert not value.any()
    losses = [r["eval_loss"] for r in read_jsonl(out / "metrics.jsonl") if "eval_loss" in r]
    assert losses == [1.0, 2.0, 1.0, 1.5]
