"""Runs that are cut off anywhere end as runs that nothing happens to, bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from citepipe import runstate
from citepipe.data.files import write_json
from citepipe.errors import InputError
from citepipe.judgement import Judgement
from citepipe.models import save
from citepipe.options import RewardOptions
from citepipe.rewards import Reward, Rewarder
from citepipe.train import checkpoint, rl
from citepipe.train.checkpoint import Run
from citepipe.train.job import Processes
from citepipe.train.rl import Learner
from citepipe.train.trainer import Trainer
from tests.train.conftest import ADAPTER, Stage, cut_off


class LetterRewarder(Rewarder):
    """Rewards every vowel where it stands: answers of a tiny model differ in that at least."""

    def __init__(self, *_: Any) -> None:
        super().__init__("lexical", RewardOptions())

    def spans(self, _: Any, answers: list[str]) -> list[list[Reward]]:
        return [
            [Reward("correctness", i, 0.1) for i, letter in enumerate(answer) if letter in "aeiou"]
            for answer in answers
        ]

    def judged(self, examples: Any, answers: list[str]) -> list[tuple[Judgement, list[Reward]]]:
        return [(Judgement((), ()), rewards) for rewards in self.spans(examples, answers)]


@pytest.fixture(scope="module")
def undisturbed(supervised: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return supervised.run(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param((Trainer, "learn", 2), id="before a first checkpoint"),
        pytest.param((Trainer, "learn", 4), id="in a step"),
        pytest.param((Run, "keep_best", 2), id="before the best is kept"),
        pytest.param((save, "publish", 3), id="in a checkpoint"),
        pytest.param((checkpoint, "write_jsonl", 1), id="while publishing"),
        pytest.param((checkpoint, "discard", 1), id="after publishing"),
    ],
)
def test_fine_tuning(call: Any, supervised: Stage, undisturbed: Path, tmp_path: Path) -> None:
    with cut_off(*call):
        supervised.run(tmp_path)
    assert (tmp_path / "out").exists() == ("discard" in call)
    cut = supervised.run(tmp_path)
    for file in (ADAPTER, f"last/{ADAPTER}", "metrics.jsonl"):
        assert (undisturbed / file).read_bytes() == (cut / file).read_bytes(), file
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("method", "trained", "changed"),
    [
        ("dpo", "adapter", {}),
        ("ppo", "adapter", {}),
        ("ppo", "whole", {"kl_target": 0.01}),
        ("grpo", "adapter", {}),
        ("rloo", "adapter", {"placement": "holistic"}),
    ],
)
def test_preferences_and_rewards(
    method: str,
    trained: str,
    changed: dict[str, Any],
    preferring: Stage,
    reinforced: dict[str, Stage],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rl, "Rewarder", LetterRewarder)
    stage, owner, name = (reinforced | {"dpo": preferring})[method], Learner, "collect"
    if method == "dpo":
        owner, name = Trainer, "learn"  # type: ignore[assignment]
    weights = ADAPTER
    if trained == "whole":
        weights = "model.safetensors"
        model = stage.call["model"].model_copy(update={"adapter": None})
        changed = changed | {"model": model, "start": whole}
    expected = stage.run(tmp_path / "undisturbed", **changed)
    with cut_off(owner, name, 3):
        stage.run(tmp_path, **changed)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "state" / "step-00000002").is_dir()
    found = stage.run(tmp_path, **changed)
    samples = ["samples.jsonl"] * (method != "dpo")
    for file in (weights, f"last/{weights}", "metrics.jsonl", *samples):
        assert (expected / file).read_bytes() == (found / file).read_bytes()
    start = load_file((whole if trained == "whole" else stage.call["start"]) / weights)
    last = load_file(found / "last" / weights)
    assert any((start[key] != last[key]).any() for key in start), "it learnt"


@pytest.mark.parametrize(
    ("changed", "cut", "kept"),
    [
        ({}, 6, {"step-00000004", "best-00000004"}),
        ({"evaluations": 1}, 4, {"step-00000002", "best-00000000"}),
        ({"save_every": 100, "save_minutes": 1e-9}, 4, {"step-00000003", "best-00000002"}),
    ],
    ids=["the newest state and the best weights", "before a second dev loss", "by the minute"],
)
def test_a_state_is_gone_on_from_by_the_same_configuration_only(
    changed: Any, cut: int, kept: Any, supervised: Stage, tmp_path: Path, capsys: Any
) -> None:
    for number, said in ((cut, ""), (1, "going on after step"), (1, "starting clean")):
        fingerprint = "b" if said == "starting clean" else "a"
        with cut_off(Trainer, "learn", number):
            supervised.run(tmp_path, fingerprint=fingerprint, **changed)
        assert said in capsys.readouterr().err
        found = {path.name for path in (tmp_path / "state").iterdir()} - {"fingerprint.json"}
        assert found == ({"best-00000000"} if fingerprint == "b" else kept)


@pytest.mark.parametrize("damage", ["cut off", "older fields", "no best model"])
def test_a_damaged_snapshot_is_as_none_and_changes_nothing(tmp_path: Path, damage: str) -> None:
    job: Any = SimpleNamespace(state=tmp_path, fingerprint="a")
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    saving: Any = lambda folder: None  # noqa: E731
    options: Any = None
    run = Run("sft", job, options, Processes(), {"weight": weight}, optimizer, saving)
    run.keep_best(0.5)
    run.at.step = 3
    run.save()
    step = tmp_path / "step-00000003"
    if damage == "cut off":
        (step / "tensors.safetensors").write_bytes(b"\x50")
    if damage == "older fields":
        write_json(step / "snapshot.json", {"best_reward": 0.5})
    if damage == "no best model":
        (tmp_path / "best-00000000").rmdir()
    (tmp_path / ".step-00000004.partial").mkdir()
    with torch.no_grad():
        weight.add_(1)
    run = Run("sft", job, options, Processes(), {"weight": weight}, optimizer, saving)
    run.restore(6)
    assert (run.at.step, run.at.best_step, weight.tolist()) == (0, None, [2, 2])
    assert not step.exists()


def test_ten_short_runs_end_as_one_long_run(
    supervised: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runstate.STOP, "saves", False)
    steps = {"max_steps": 11, "save_every": 100}
    learn = Trainer.learn
    once = supervised.run(tmp_path / "once", **steps)
    before = signal.signal(signal.SIGTERM, runstate.STOP)
    try:
        for step in range(1, 11):
            monkeypatch.setattr(runstate.STOP, "asked", False)
            with monkeypatch.context() as patch:
                # As a scheduler does, in the middle of a step; twice, as `timeout` does.
                patch.setattr(Trainer, "learn", lambda *own: (terminate(), learn(*own))[1])
                with pytest.raises(InputError, match=f"stopped after step {step}, which is saved"):
                    supervised.run(tmp_path, **steps)
        monkeypatch.setattr(runstate.STOP, "asked", False)
        often = supervised.run(tmp_path, **steps)
    finally:
        signal.signal(signal.SIGTERM, before)
    for file in (ADAPTER, f"last/{ADAPTER}", "metrics.jsonl"):
        assert (once / file).read_bytes() == (often / file).read_bytes(), file


def terminate() -> None:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)


def test_what_is_journalled_ends_at_once() -> None:
    stop = runstate.Stop()
    with pytest.raises(SystemExit, match="the same command goes on"):
        stop()
    stop()
