"""The state of an unfinished run on disk: safetensors and JSON, whole or not there at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.models.save import building
from citepipe.progress import say


@dataclass(slots=True)
class Snapshot:
    """Where a run stands, weights and optimizer apart.

    Random draws need no state: each has a seed of its own, made from the run's and its place.
    """

    step: int = 0
    """Rollouts done."""
    updates: int = 0
    """Optimizer steps done."""
    kl_coef: float = 0.0
    """The present weight of the KL penalty."""
    best_step: int | None = None
    """The rollout after which the best policy was evaluated; None before the first."""
    best_reward: float = float("-inf")
    """Its mean reward on dev."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """What was reported so far, an entry per rollout or evaluation."""


@dataclass(frozen=True)
class Checkpoints:
    """Saves and restores a run in a folder, and keeps its best policy there."""

    state: Path
    parameters: Mapping[str, nn.Parameter]
    """What is trained, by name."""
    optimizer: torch.optim.Optimizer
    """Of these parameters."""

    def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot with weights and optimizer, then remove what it makes superfluous."""
        final = self.state / f"step-{snapshot.step:08d}"
        tensors = {f"parameter/{n}": p.detach().contiguous() for n, p in self.parameters.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{index}/{key}"] = value.contiguous()
        with building(final) as partial:
            save_file(tensors, partial / "tensors.safetensors")
            write_json(partial / "snapshot.json", asdict(snapshot))
        kept = final, self._best(snapshot.best_step)
        for path in [*self.state.glob("step-*"), *self.state.glob("best-*")]:
            if path not in kept:
                shutil.rmtree(path)

    def restore(self) -> Snapshot | None:
        """Load the newest snapshot into weights and optimizer; None if there is no whole one."""
        newest = max(self.state.glob("step-*"), default=None)
        if newest is None:
            return None
        try:
            snapshot = Snapshot(**read_json(newest / "snapshot.json"))
            tensors = load_file(newest / "tensors.safetensors")
            weights = {name: tensors.pop(f"parameter/{name}") for name in self.parameters}
            if any(weights[name].shape != own.shape for name, own in self.parameters.items()):
                raise ValueError("its weights are others")
            if snapshot.best_step is not None and not self._best(snapshot.best_step).is_dir():
                raise ValueError("its best policy is missing")
        except (InputError, SafetensorError, KeyError, TypeError, ValueError, OSError):
            say(f"{newest}: this snapshot is damaged; starting from the beginning")
            shutil.rmtree(newest, ignore_errors=True)
            return None
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        return snapshot

    def keep_best(self, step: int, save: Callable[[Path], None]) -> None:
        """Let `save` write the best policy; the one before stays until the next snapshot."""
        with building(self._best(step)) as partial:
            save(partial)

    def copy_best(self, step: int | None, directory: Path) -> None:
        """Copy the best policy's files into a directory."""
        shutil.copytree(self._best(step), directory, dirs_exist_ok=True)

    def _best(self, step: int | None) -> Path:
        return self.state / f"best-{step or 0:08d}"
