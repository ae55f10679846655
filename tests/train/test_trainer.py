"""What SFT and DPO share: passes, steps, checkpoints, several processes; on a tiny model."""

from __future__ import annotations

import math
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from citepipe.data.files import read_jsonl
from citepipe.errors import InputError
from citepipe.models import save
from citepipe.train import checkpoint, sft, trainer
from citepipe.train.batch import Row
from citepipe.train.trainer import Item, Trainer, batch_of_step
from tests.train.conftest import assert_close, run

ROWS = [Row([5, 6, 7], [8, 9]), Row([10], [11]), Row([12, 13], [14, 15, 16])]
ADAPTER = "adapter_model.safetensors"


def test_every_item_comes_once_in_a_pass_whose_last_step_takes_what_is_left() -> None:
    items = [Item((row,), weight) for weight, row in enumerate([*ROWS, *ROWS[:2]])]
    steps = [batch_of_step(items, batch_size=2, step=step, seed=0) for step in range(7)]
    assert [len(step) for step in steps] == [2, 2, 1, 2, 2, 1, 2]
    first, second = ([item.weight for s in part for item in s] for part in (steps[:3], steps[3:6]))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4]
    assert first != second


def _without_dropout(call: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The call without dropout, with some options changed."""
    adapter = call["model"].adapter.model_copy(update={"dropout": 0.0})
    model = call["model"].model_copy(update={"adapter": adapter})
    return call | {"model": model, "options": call["options"].model_copy(update=changed)}


def _run(call: dict[str, Any], folder: Path, **changed: Any) -> Path:
    run(sft, call | changed | {"out": folder / "out", "state": folder / "state"})
    return folder / "out"


def test_a_step_that_runs_out_of_memory_is_computed_again_with_half_the_tokens(
    supervised: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Two passes of at most 300 tokens a step: the second of step 1 fails, after one that counts.
    call = _without_dropout(supervised, tokens_per_pass=300)
    undisturbed = _run(call, tmp_path / "undisturbed")
    forward, passes = Trainer._forward, iter(range(10_000))

    def full(own: Trainer, items: Any) -> torch.Tensor:
        if next(passes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(own, items)

    monkeypatch.setattr(Trainer, "_forward", full)
    disturbed = _run(call, tmp_path / "disturbed")
    said = "sft, step 1: memory ran out, goes on with 150 tokens a pass"
    assert capsys.readouterr().err.count(said) == 1
    assert_close(undisturbed / ADAPTER, disturbed / ADAPTER)


def _die(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int = 1) -> None:
    """Cut the run off in a call of `owner.name`, the first if not said otherwise."""
    original, calls = getattr(owner, name), iter(range(1, 10_000))

    def dying(*args: Any, **more: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **more)

    monkeypatch.setattr(owner, name, dying)


@pytest.fixture(scope="module")
def whole(supervised: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nothing happens to leaves."""
    return _run(supervised, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        pytest.param(Trainer, "learn", 2, id="before a first checkpoint"),
        pytest.param(Trainer, "learn", 4, id="in a step"),
        pytest.param(checkpoint.Checkpoints, "keep_best", 2, id="before the best is kept"),
        pytest.param(save, "publish", 3, id="in a checkpoint"),
        pytest.param(trainer, "write_jsonl", 1, id="while publishing"),
        pytest.param(trainer, "discard", 1, id="after publishing"),
    ],
)
def test_a_run_that_was_cut_off_ends_with_the_same_weights(
    owner: Any,
    name: str,
    number: int,
    supervised: dict[str, Any],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        _die(patch, owner, name, number)
        with pytest.raises(KeyboardInterrupt):
            _run(supervised, tmp_path)
    assert (tmp_path / "out").exists() == (name == "discard")
    cut_off = _run(supervised, tmp_path)
    for file in (ADAPTER, f"last/{ADAPTER}", "metrics.jsonl"):
        assert (whole / file).read_bytes() == (cut_off / file).read_bytes(), file
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("changed", "cut", "kept"),
    [
        ({}, 6, {"step-00000004", "best-00000004"}),
        ({"evaluations": 1}, 4, {"step-00000002"}),
        ({"save_every": 100, "save_minutes": 1e-9}, 4, {"step-00000003", "best-00000002"}),
    ],
    ids=["the newest state and the best weights", "before a first dev loss", "by the minute"],
)
def test_a_checkpoint_is_gone_on_from(
    changed: dict[str, Any],
    cut: int,
    kept: set[str],
    supervised: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = supervised["options"].model_copy(update=changed)
    for number, said in ((cut, ""), (1, "going on after step"), (1, "starting clean")):
        fingerprint = "b" if said == "starting clean" else "a"
        with monkeypatch.context() as patch:
            _die(patch, Trainer, "learn", number)
            with pytest.raises(KeyboardInterrupt):
                _run(supervised, tmp_path, options=options, fingerprint=fingerprint)
        assert said in capsys.readouterr().err
        found = {path.name for path in (tmp_path / "state").iterdir()} - {"fingerprint.json"}
        assert found == (set() if fingerprint == "b" else kept)


def _faked_dev_losses(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    means, coming = Trainer._means, iter(losses)

    def faked(own: Trainer, items: Any) -> dict[str, float]:
        return means(own, items) if torch.is_grad_enabled() else {"loss": next(coming)}

    monkeypatch.setattr(Trainer, "_means", faked)


def test_the_weights_with_the_lowest_dev_loss_are_published_and_the_last_kept(
    supervised: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _faked_dev_losses(monkeypatch, 1.0, 3.0, 1.0, 2.0)
    two, three = (
        supervised["options"].model_copy(
            update={"schedule": "constant", "max_steps": steps, "evaluations": evaluations}
        )
        for steps, evaluations in ((2, 1), (3, 3))
    )
    shorter = _run(supervised, tmp_path / "two", options=two)
    out = _run(supervised, tmp_path / "three", options=three)
    assert (out / ADAPTER).read_bytes() == (shorter / "last" / ADAPTER).read_bytes()
    assert (out / "last" / ADAPTER).read_bytes() != (out / ADAPTER).read_bytes()
    found = [r["eval_loss"] for r in read_jsonl(out / "metrics.jsonl") if "eval_loss" in r]
    assert found == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_step_and_the_last_state_stays(
    value: float, supervised: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([1.0] * 4 + [value])
    losses = lambda log_probs, _: {"loss": -log_probs.sum() * next(steps)}  # noqa: E731
    monkeypatch.setattr(sft, "losses", losses)
    options = supervised["options"].model_copy(
        update={"evaluations": 1, "tokens_per_pass": 100_000}
    )
    with pytest.raises(
        InputError, match=r"sft, step 5: loss is not finite; a lower sft\.learning_rate"
    ):
        _run(supervised, tmp_path, options=options)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "state" / "step-00000004").is_dir()


def _process(rank: int, port: int, call: dict[str, Any], folder: Path) -> None:
    """One of two processes as a launcher starts them."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    _run(call, folder)


def test_two_processes_of_many_passes_train_the_weights_of_one(
    supervised: dict[str, Any], tmp_path: Path
) -> None:
    # Three answers a step, each in a pass of its own: two of one process and one of the other.
    alone = _run(_without_dropout(supervised, batch_size=3), tmp_path / "alone")
    call = _without_dropout(supervised, batch_size=3, tokens_per_pass=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_process, args=(rank, port, call, tmp_path / "together"))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        process.kill()
        assert process.exitcode == 0
    found = tmp_path / "together" / "out"
    for file in (ADAPTER, f"last/{ADAPTER}"):
        assert_close(alone / file, found / file)
    expected, figures = (read_jsonl(out / "metrics.jsonl") for out in (alone, found))
    for one, other in zip(expected, figures, strict=True):
        assert other == pytest.approx(one, abs=1e-4)
