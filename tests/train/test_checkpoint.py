"""Snapshots of a PPO run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from citepipe.train.checkpoint import Snapshot, restore, save


def _training(seed: int) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(seed)
    parameters = {"a.weight": nn.Parameter(torch.randn(2, 2)), "b": nn.Parameter(torch.randn(3))}
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def _steps(
    parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, count: int
) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        sum((p**2).sum() for p in parameters.values()).backward()  # type: ignore[union-attr]
        optimizer.step()


def test_a_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    parameters, optimizer = _training(0)
    _steps(parameters, optimizer, 3)
    best = {"a.weight": torch.ones(2, 2)}
    snapshot = Snapshot(3, 6, 2, 0.5, [{"step": 1, "kl": 0.1}], best)
    save(tmp_path, snapshot, parameters, optimizer)
    _steps(parameters, optimizer, 3)

    others, other_optimizer = _training(1)
    restored = restore(tmp_path, others, other_optimizer)
    assert restored is not None
    assert (restored.step, restored.updates, restored.best_step) == (3, 6, 2)
    assert restored.metrics == [{"step": 1, "kl": 0.1}]
    assert torch.equal(restored.best["a.weight"], torch.ones(2, 2))
    _steps(others, other_optimizer, 3)
    for name, parameter in parameters.items():
        assert torch.equal(parameter, others[name])


def test_the_newest_snapshot_replaces_the_older(tmp_path: Path) -> None:
    parameters, optimizer = _training(0)
    for step in (9, 10):
        save(tmp_path, Snapshot(step=step), parameters, optimizer)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010"]


def test_a_damaged_snapshot_is_as_none(tmp_path: Path) -> None:
    parameters, optimizer = _training(0)
    save(tmp_path, Snapshot(step=3), parameters, optimizer)
    tensors = tmp_path / "step-00000003" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:50])
    assert restore(tmp_path, parameters, optimizer) is None
    assert not list(tmp_path.iterdir())


def test_a_snapshot_that_was_cut_off_is_not_there(tmp_path: Path) -> None:
    parameters, optimizer = _training(0)
    (tmp_path / ".step-00000004.partial").mkdir()
    assert restore(tmp_path, parameters, optimizer) is None
