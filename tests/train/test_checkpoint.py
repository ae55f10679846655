"""Snapshots of a run of reinforcement learning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from citepipe.train.checkpoint import Checkpoints, Snapshot

Parameters = dict[str, nn.Parameter]


def _training(state: Path, seed: int) -> tuple[Parameters, torch.optim.Optimizer, Checkpoints]:
    torch.manual_seed(seed)
    parameters = {"a.weight": nn.Parameter(torch.randn(2, 2)), "b": nn.Parameter(torch.randn(3))}
    groups = [{"params": [own], "peak": 0.1} for own in parameters.values()]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    return parameters, optimizer, Checkpoints(state, parameters, optimizer)


def _steps(parameters: Parameters, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        sum((p**2).sum() for p in parameters.values()).backward()  # type: ignore[union-attr]
        optimizer.step()


def _keep(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.keep_best(step, lambda folder: (folder / "weights").write_text(str(step)) and None)


def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    parameters, optimizer, checkpoints = _training(tmp_path, 0)
    _steps(parameters, optimizer, 3)
    _keep(checkpoints, 2)
    saved = Snapshot(3, 6, 0.25, 2, 0.5, [{"step": 1, "kl": 0.1}])
    checkpoints.save(saved)
    _steps(parameters, optimizer, 3)

    others, other_optimizer, other_checkpoints = _training(tmp_path, 1)
    assert other_checkpoints.restore() == saved
    assert [group["peak"] for group in other_optimizer.param_groups] == [0.1, 0.1]
    _steps(others, other_optimizer, 3)
    for name, parameter in parameters.items():
        assert torch.equal(parameter, others[name])
    (tmp_path / "out").mkdir()
    other_checkpoints.copy_best(2, tmp_path / "out")
    assert (tmp_path / "out" / "weights").read_text() == "2"


def test_the_newest_snapshot_replaces_the_older_and_their_best(tmp_path: Path) -> None:
    _, _, checkpoints = _training(tmp_path, 0)
    for step in (9, 10):
        _keep(checkpoints, step)
        # Between a new best and the snapshot that knows of it, both are there.
        assert (tmp_path / "best-00000009").is_dir()
        checkpoints.save(Snapshot(step=step, best_step=step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best-00000010", "step-00000010"]


@pytest.mark.parametrize("damage", ["cut off", "other weights", "no best policy"])
def test_a_damaged_snapshot_is_as_none_and_changes_nothing(tmp_path: Path, damage: str) -> None:
    parameters, optimizer, checkpoints = _training(tmp_path, 0)
    _keep(checkpoints, 0)
    checkpoints.save(Snapshot(step=3, best_step=0))
    if damage == "cut off":
        tensors = tmp_path / "step-00000003" / "tensors.safetensors"
        tensors.write_bytes(tensors.read_bytes()[:50])
    if damage == "other weights":
        parameters["b"] = nn.Parameter(torch.zeros(4))
    if damage == "no best policy":
        (tmp_path / "best-00000000").rename(tmp_path / "elsewhere")
    with torch.no_grad():
        parameters["a.weight"].add_(1)
    before = parameters["a.weight"].clone()
    assert Checkpoints(tmp_path, parameters, optimizer).restore() is None
    assert torch.equal(parameters["a.weight"], before)
    assert not list(tmp_path.glob("step-*"))


def test_a_snapshot_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    _, _, checkpoints = _training(tmp_path, 0)
    (tmp_path / ".step-00000004.partial").mkdir()
    assert checkpoints.restore() is None
