"""The state of an unfinished PPO run on disk: safetensors and JSON, whole or not there at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.models.load import partial_directory
from citepipe.progress import say


@dataclass(slots=True)
class Snapshot:
    """Where a run stands.

    Attributes:
        step: rollouts done.
        updates: optimizer steps done.
        best_step: the rollout after which the best policy was evaluated; None before the first.
        best_reward: its mean reward on dev.
        metrics: what was reported so far, an entry per rollout or evaluation.
        best: the best policy's parameters by name, on the CPU.
    """

    step: int = 0
    updates: int = 0
    best_step: int | None = None
    best_reward: float = float("-inf")
    metrics: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)


def save(
    state: Path,
    snapshot: Snapshot,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a snapshot with parameters and optimizer state, then remove the one before."""
    final = state / f"step-{snapshot.step:08d}"
    partial = partial_directory(final)
    tensors = {f"parameter/{n}": p.detach().contiguous() for n, p in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value.detach().contiguous()
    tensors |= {f"best/{name}": value for name, value in snapshot.best.items()}
    save_file(tensors, partial / "tensors.safetensors")
    write_json(
        partial / "snapshot.json",
        {
            "step": snapshot.step,
            "updates": snapshot.updates,
            "best_step": snapshot.best_step,
            "best_reward": snapshot.best_reward,
            "metrics": snapshot.metrics,
        },
    )
    older = list(state.glob("step-*"))
    partial.rename(final)
    for path in older:
        shutil.rmtree(path)


def restore(
    state: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Snapshot | None:
    """Load the newest snapshot into parameters and optimizer; None if there is no whole one."""
    newest = max(state.glob("step-*"), default=None)
    if newest is None:
        return None
    try:
        snapshot = Snapshot(**read_json(newest / "snapshot.json"))
        tensors = load_file(newest / "tensors.safetensors")
    except (InputError, SafetensorError, TypeError, OSError):
        say(f"{newest}: this snapshot is damaged; starting from the beginning")
        shutil.rmtree(newest)
        return None
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter/{name}"])
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "best":
            snapshot.best[rest] = value
        elif kind == "optimizer":
            key, _, parameter_name = rest.partition("/")
            parameter = parameters[parameter_name]
            # AdamW keeps its step counter on the CPU.
            device = torch.device("cpu") if key == "step" else parameter.device
            optimizer.state[parameter][key] = value.to(device)
    return snapshot
