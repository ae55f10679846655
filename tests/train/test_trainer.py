"""What SFT and DPO share: passes, steps, the best weights, several processes; on a tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from citepipe.data.files import read_jsonl
from citepipe.errors import InputError
from citepipe.models.load import load_tokenizer
from citepipe.train import sft
from citepipe.train.batch import Row
from citepipe.train.job import Job
from citepipe.train.trainer import Item, Trainer, batch_of_step
from tests.train.conftest import ADAPTER, Stage, assert_close


def test_every_item_comes_once_in_a_pass_whose_last_step_takes_what_is_left() -> None:
    items = [Item((Row([5], [6]),), weight) for weight in range(5)]
    steps = [batch_of_step(items, batch_size=2, step=step, seed=0) for step in range(7)]
    assert [len(step) for step in steps] == [2, 2, 1, 2, 2, 1, 2]
    first, second = ([item.weight for s in part for item in s] for part in (steps[:3], steps[3:6]))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4]
    assert first != second


def test_a_step_that_runs_out_of_memory_is_computed_again_with_half_the_tokens(
    steady: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Two passes of at most 300 tokens a step: the second of step 1 fails, after one that counts.
    undisturbed = steady.run(tmp_path / "undisturbed", tokens_per_pass=300)
    forward, passes = Trainer._forward, iter(range(10_000))

    def full(own: Trainer, items: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and next(passes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(own, items)

    monkeypatch.setattr(Trainer, "_forward", full)
    disturbed = steady.run(tmp_path / "disturbed", tokens_per_pass=300)
    said = (
        "sft, step 1: memory ran out, goes on with 150 tokens a pass "
        "(to keep it: sft.tokens_per_pass)\n"
    )
    assert capsys.readouterr().err.count(said) == 1
    assert_close(undisturbed / ADAPTER, disturbed / ADAPTER)


def test_the_weights_with_the_lowest_dev_loss_are_published_and_the_last_kept(
    supervised: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    means, coming = Trainer._means, iter([4.0, 1.0, 4.0, 3.0, 1.0, 2.0])

    def faked(own: Trainer, items: Any) -> dict[str, float]:
        return means(own, items) if torch.is_grad_enabled() else {"loss": next(coming)}

    monkeypatch.setattr(Trainer, "_means", faked)
    two, three = (
        supervised.run(tmp_path / name, schedule="constant", max_steps=steps, evaluations=evaluated)
        for name, steps, evaluated in (("two", 2, 1), ("three", 3, 3))
    )
    assert (three / ADAPTER).read_bytes() == (two / "last" / ADAPTER).read_bytes()
    assert (three / "last" / ADAPTER).read_bytes() != (three / ADAPTER).read_bytes()
    found = [r["eval_loss"] for r in read_jsonl(three / "metrics.jsonl") if "eval_loss" in r]
    assert found == [4.0, 3.0, 1.0, 2.0]


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_state_stays(
    supervised: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([1.0] * 5 + [math.nan])
    losses = lambda log_probs, _: {"loss": -log_probs.sum() * next(steps)}  # noqa: E731
    monkeypatch.setattr(sft, "losses", losses)
    line = r"sft, step 5: loss is not finite; a lower sft\.learning_rate"
    with pytest.raises(InputError, match=line):
        supervised.run(tmp_path, evaluations=1, tokens_per_pass=100_000)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "state" / "step-00000004").is_dir()


@pytest.mark.parametrize("is_adapter", [True, False])
def test_what_is_trained_is_kept_in_32_bits_and_computed_in_16(
    is_adapter: bool, steady: Stage, tmp_path: Path
) -> None:
    changed = {"dtype": "bfloat16"} | ({} if is_adapter else {"adapter": None})
    model = steady.call["model"].model_copy(update=changed)
    names = ("prompt", "start", "fingerprint", "seed", "threads")
    given = {name: steady.call[name] for name in names}
    job = Job(model=model, out=tmp_path / "out", state=tmp_path / "state", **given)
    trainer = Trainer("sft", job, steady.call["options"], sft.losses, load_tokenizer(model))
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
    found: list[torch.dtype] = []
    for name, module in trainer.model.named_modules():
        if name.endswith("q_proj.lora_A.default" if is_adapter else "q_proj"):
            module.register_forward_hook(lambda _, __, output: found.append(output.dtype))
    trainer.learn([Item((Row((5, 6), (7, 8)),), 2)], 1)
    assert set(found) == {torch.bfloat16}
    assert {p.grad.dtype for p in trainer.parameters.values() if p.grad is not None} == {
        torch.float32
    }
