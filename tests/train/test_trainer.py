"""What SFT and DPO share: passes, steps, checkpoints, several processes; on a tiny model."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from citepipe.data.files import read_jsonl
from citepipe.errors import InputError
from citepipe.models.load import load_base
from citepipe.models.save import system_errors
from citepipe.options import ModelOptions, PromptOptions, SFTOptions
from citepipe.train import sft, trainer
from citepipe.train.batch import Row, padding_free, separate_rows
from citepipe.train.log_probs import TokenHead
from citepipe.train.trainer import Order, answer_log_probs

CPU = torch.device("cpu")
ROWS = [Row.of([5, 6, 7], [8, 9]), Row.of([10], [11]), Row.of([12, 13], [14, 15, 16])]
OPTIONS = SFTOptions(
    max_steps=6, batch_size=5, learning_rate=1e-2, evaluations=3, save_every=2, max_grad_norm=1.0
)
ADAPTER = "adapter_model.safetensors"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_with_and_without_padding_log_probabilities_are_those_of_plain_separate_passes(
    options: ModelOptions, attention: str
) -> None:
    model = load_base(options.model_copy(update={"attention": attention}))
    expected, gradients = [], []
    for row in ROWS:
        scores = model(row.token_ids[None]).logits[0].log_softmax(dim=-1)
        count = len(row.token_ids)
        expected += [scores[t - 1, row.token_ids[t]] for t in range(count - row.answer, count)]
    weight = model.model.layers[0].self_attn.q_proj.weight
    gradients.append(torch.autograd.grad(torch.stack(expected).sum(), weight)[0])
    for batch in (separate_rows(ROWS, 1, CPU), padding_free(ROWS, CPU)):
        found = answer_log_probs(TokenHead(model), batch)
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)
        gradients.append(torch.autograd.grad(found.sum(), weight)[0])
    assert gradients[0].abs().max() > 0.1
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], atol=1e-5, rtol=1e-4)


def test_every_item_comes_once_in_a_pass_whose_last_step_takes_what_is_left() -> None:
    steps = list(Order(count=5, batch_size=2, steps=7, seed=0))
    assert [len(step) for step in steps] == [2, 2, 1, 2, 2, 1, 2]
    first, second = ([i for step in part for i in step] for part in (steps[:3], steps[3:6]))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4]
    assert first != second


@pytest.fixture(scope="module")
def call(options: ModelOptions, prompt: PromptOptions, files: dict[str, Path]) -> dict[str, Any]:
    return {
        "train": files["train"],
        "dev": files["dev"],
        "model": options,
        "prompt": prompt,
        "options": OPTIONS,
        "start": None,
        "fingerprint": "a",
        "seed": 0,
        "threads": 1,
    }


def _without_dropout(model: ModelOptions) -> ModelOptions:
    assert model.adapter is not None
    return model.model_copy(update={"adapter": model.adapter.model_copy(update={"dropout": 0.0})})


def _run(call: dict[str, Any], folder: Path, **changed: Any) -> Path:
    sft.run(**{**call, **changed}, out=folder / "out", state=folder / "state")
    return folder / "out"


def _die(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Cut the run off in a call of `owner.name` for which `when` holds."""
    original = getattr(owner, name)

    def dying(*args: Any, **more: Any) -> Any:
        if when(*args):
            raise KeyboardInterrupt
        return original(*args, **more)

    monkeypatch.setattr(owner, name, dying)


def test_the_budget_of_tokens_changes_rounding_only(call: dict[str, Any], tmp_path: Path) -> None:
    model = _without_dropout(call["model"])
    weights = []
    for tokens in (10_000, 1):
        options = OPTIONS.model_copy(update={"tokens_per_pass": tokens})
        out = _run(call, tmp_path / str(tokens), model=model, options=options)
        weights.append(load_file(out / ADAPTER))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=1e-4)


def _run_out_of_memory(monkeypatch: pytest.MonkeyPatch, at: set[int]) -> None:
    """Let the passes with these numbers fail as a full GPU does."""
    original, passes = trainer.answer_log_probs, iter(range(10_000))

    def full(*args: Any) -> Any:
        if next(passes) in at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*args)

    monkeypatch.setattr(trainer, "answer_log_probs", full)


def test_a_step_that_runs_out_of_memory_is_done_again_with_half_the_tokens(
    call: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Two passes of at most 300 tokens a step: the second of step 1 fails, after one that counts.
    call = call | {
        "model": _without_dropout(call["model"]),
        "options": OPTIONS.model_copy(update={"tokens_per_pass": 300}),
    }
    undisturbed = _run(call, tmp_path / "undisturbed")
    _run_out_of_memory(monkeypatch, {1})
    disturbed = _run(call, tmp_path / "disturbed")
    said = "sft, step 1: memory ran out, goes on with 150 tokens a pass"
    assert capsys.readouterr().err.count(said) == 1
    expected, found = load_file(undisturbed / ADAPTER), load_file(disturbed / ADAPTER)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_memory_that_runs_out_twice_ends_the_run(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_out_of_memory(monkeypatch, {0, 1})
    with pytest.raises(InputError, match=r"sft, step 1: memory ran out again .*tokens_per_pass"):
        _run(call, tmp_path)
    assert not (tmp_path / "out").exists()


def _in_step(step: int) -> Callable[..., bool]:
    return lambda own, *_: own.state.global_step + 1 == step


CUTS = {
    "before a first checkpoint": ("training_step", _in_step(2)),
    "in a step": ("training_step", _in_step(4)),
    "before the dev loss": ("evaluate", _in_step(5)),
    "in a checkpoint": ("_save_rng_state", _in_step(5)),
    "at the end": ("rates", lambda own: own.state.global_step == 6),
}


@pytest.fixture(scope="module")
def whole(call: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nothing happens to leaves."""
    return _run(call, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("cut", CUTS)
def test_a_run_that_was_cut_off_ends_with_the_same_weights(
    cut: str,
    call: dict[str, Any],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, when = CUTS[cut]
    with monkeypatch.context() as patch:
        _die(patch, trainer.AnswerTrainer, name, when)
        with pytest.raises(KeyboardInterrupt):
            _run(call, tmp_path / "cut")
    assert not (tmp_path / "cut" / "out").exists()
    cut_off = _run(call, tmp_path / "cut")
    for name in (ADAPTER, f"last/{ADAPTER}", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (cut_off / name).read_bytes(), name
    assert not (tmp_path / "cut" / "state").exists()


def test_a_checkpoint_is_gone_on_from(
    call: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        _die(patch, trainer.AnswerTrainer, "training_step", _in_step(6))
        with pytest.raises(KeyboardInterrupt):
            _run(call, tmp_path)
    # The state of step 4 and its best weights; what came before is removed.
    kept = {path.name for path in (tmp_path / "state").iterdir()}
    assert kept == {"checkpoint-4", "best-4", "fingerprint.json", ".saving"}
    _die(monkeypatch, trainer.AnswerTrainer, "training_step", lambda *_: True)
    with pytest.raises(KeyboardInterrupt):
        _run(call, tmp_path)
    assert "sft: going on after step 4 of 6" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        _run(call, tmp_path, fingerprint="b")
    assert "sft: starting clean" in capsys.readouterr().err
    assert not list((tmp_path / "state").glob("checkpoint-*"))


def test_the_state_is_saved_when_minutes_have_passed(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OPTIONS.model_copy(update={"save_every": 100, "save_minutes": 1e-9})
    _die(monkeypatch, trainer.AnswerTrainer, "training_step", _in_step(4))
    with pytest.raises(KeyboardInterrupt):
        _run(call, tmp_path, options=options)
    assert (tmp_path / "state" / "checkpoint-3").is_dir()


def test_the_weights_with_the_lowest_dev_loss_are_published_and_the_last_kept(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = OPTIONS.model_copy(update={"schedule": "constant", "max_steps": 3, "evaluations": 3})
    shorter = _run(call, tmp_path / "two", options=constant.model_copy(update={"max_steps": 2}))
    means, losses = trainer.AnswerTrainer._means, iter([3.0, 1.0, 2.0])

    def faked(own: Any, sums: Any, items: Any) -> dict[str, float]:
        return {"loss": next(losses)} if items is own.dev_items else means(own, sums, items)

    monkeypatch.setattr(trainer.AnswerTrainer, "_means", faked)
    out = _run(call, tmp_path / "three", options=constant)
    assert (out / ADAPTER).read_bytes() == (shorter / "last" / ADAPTER).read_bytes()
    assert (out / "last" / ADAPTER).read_bytes() != (out / ADAPTER).read_bytes()
    found = [r["eval_loss"] for r in read_jsonl(out / "metrics.jsonl") if "eval_loss" in r]
    assert found == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_step_and_the_last_state_stays(
    value: float, call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exploding(own: Any, log_probs: torch.Tensor, *_: Any) -> dict[str, torch.Tensor]:
        factor = value if own.state.global_step == 4 else 1.0
        return {"loss": -log_probs.sum() * factor}

    monkeypatch.setattr(sft.SFTTrainer, "losses", exploding)
    options = OPTIONS.model_copy(update={"evaluations": 1})
    with pytest.raises(
        InputError, match=r"sft, step 5: the loss is not finite; a lower sft\.learning_rate"
    ):
        _run(call, tmp_path, options=options)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "state" / "checkpoint-4").is_dir()


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    said = "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"
    with pytest.raises(RuntimeError, match="enforce fail"), system_errors(tmp_path):
        raise RuntimeError(said)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".trial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught, system_errors(tmp_path):
        raise RuntimeError(said)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path)


def _process(rank: int, port: int, calls: list[dict[str, Any]], folder: Path) -> None:
    """One of two processes as a launcher starts them; trains with every one of the calls."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    write = trainer.AnswerTrainer._write_model

    def checked(own: Any, directory: Path) -> None:
        sharded = any(isinstance(parameter, DTensor) for parameter in own.model.parameters())
        assert sharded == own.options.fsdp
        write(own, directory)

    trainer.AnswerTrainer._write_model = checked  # type: ignore[method-assign]
    for number, call in enumerate(calls):
        _run(call, folder / str(number))


def test_two_processes_train_the_weights_of_one_replicated_or_sharded(
    call: dict[str, Any], tmp_path: Path
) -> None:
    # Three answers a step, each in a pass of its own: two of one process and one of the other.
    options = OPTIONS.model_copy(update={"batch_size": 3, "tokens_per_pass": 1})
    adapter = call | {"model": _without_dropout(call["model"]), "options": options}
    slower = options.model_copy(update={"learning_rate": 1e-3})
    model = call["model"].model_copy(update={"adapter": None})
    full = call | {"model": model, "options": slower}
    sharded = full | {"options": slower.model_copy(update={"fsdp": True})}
    alone = [_run(adapter, tmp_path / "adapter"), _run(full, tmp_path / "full")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_process, args=(rank, port, [adapter, sharded], tmp_path))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        process.kill()
        assert process.exitcode == 0
    for number, (expected, name) in enumerate(
        zip(alone, [ADAPTER, "model.safetensors"], strict=True)
    ):
        found = tmp_path / str(number) / "out"
        for folder in (".", "last"):
            ours, theirs = load_file(expected / folder / name), load_file(found / folder / name)
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                torch.testing.assert_close(theirs[key], value, atol=1e-5, rtol=1e-4)
        steps = [len(read_jsonl(out / "metrics.jsonl")) for out in (expected, found)]
        assert steps[0] == steps[1]
    assert json.loads((tmp_path / "1" / "out" / "config.json").read_text())["architectures"] == [
        "LlamaForCausalLM"
    ]


def test_what_is_no_whole_checkpoint_is_passed_over(call: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "odd" / "state"
    for name in ("checkpoint-3", "checkpoint-x"):
        (state / name).mkdir(parents=True)
    (state / "fingerprint.json").write_text('"a"')
    expected, found = _run(call, tmp_path / "plain"), _run(call, tmp_path / "odd")
    assert (found / ADAPTER).read_bytes() == (expected / ADAPTER).read_bytes()


def test_a_broken_fingerprint_starts_clean(
    call: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "fingerprint.json").write_text("{")
    _run(call, tmp_path)
    assert "sft: starting clean" in capsys.readouterr().err
