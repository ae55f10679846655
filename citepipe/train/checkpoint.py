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
from citepipe.models.save import partial_directory, publish, system_errors
from citepipe.progress import say


@dataclass(slots=True)
class Snapshot:
    """Where a run stands, weights and optimizer apart.

    Random draws need no state: each has a seed of its own, made from the run's and its place.

    Attributes:
        step: rollouts done.
        updates: optimizer steps done.
        kl_coef: the present weight of the KL penalty.
        best_step: the rollout after which the best policy was evaluated; None before the first.
        best_reward: its mean reward on dev.
        metrics: what was reported so far, an entry per rollout or evaluation.
    """

    step: int = 0
    updates: int = 0
    kl_coef: float = 0.0
    best_step: int | None = None
    best_reward: float = float("-inf")
    metrics: list[dict[str, Any]] = field(default_factory=list)


class Checkpoints:
    """Saves and restores a run, and keeps its best policy.

    Args:
        state: the run's folder.
        parameters: what is trained, by name.
        optimizer: of these parameters.
    """

    def __init__(
        self,
        state: Path,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._state, self._parameters, self._optimizer = state, parameters, optimizer

    def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot with weights and optimizer, then remove what it makes superfluous."""
        final = self._state / f"step-{snapshot.step:08d}"
        partial = partial_directory(final)
        tensors = {f"parameter/{n}": p.detach().contiguous() for n, p in self._parameters.items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value.detach().contiguous()
        with system_errors(partial):
            save_file(tensors, partial / "tensors.safetensors")
        write_json(partial / "snapshot.json", asdict(snapshot))
        publish(partial, final)
        for path in self._state.glob("step-*"):
            if path != final:
                shutil.rmtree(path)
        for path in self._state.glob("best-*"):
            if path != self._best(snapshot.best_step):
                shutil.rmtree(path)

    def restore(self) -> Snapshot | None:
        """Load the newest snapshot into weights and optimizer; None if there is no whole one."""
        newest = max(self._state.glob("step-*"), default=None)
        if newest is None:
            return None
        try:
            snapshot = Snapshot(**read_json(newest / "snapshot.json"))
            tensors = load_file(newest / "tensors.safetensors")
            self._check(snapshot, tensors)
        except (InputError, SafetensorError, TypeError, ValueError, OSError):
            say(f"{newest}: this snapshot is damaged; starting from the beginning")
            shutil.rmtree(newest, ignore_errors=True)
            return None
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[f"parameter/{name}"])
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                key, _, parameter_name = rest.partition("/")
                parameter = self._parameters[parameter_name]
                # AdamW keeps its step counter on the CPU.
                device = torch.device("cpu") if key == "step" else parameter.device
                self._optimizer.state[parameter][key] = value.to(device)
        return snapshot

    def _check(self, snapshot: Snapshot, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raise ValueError unless a snapshot has all that is restored from it."""
        if not self._best(snapshot.best_step).is_dir():
            raise ValueError("its best policy is missing")
        shapes = {
            name.removeprefix("parameter/"): tensor.shape
            for name, tensor in tensors.items()
            if name.startswith("parameter/")
        }
        if shapes != {name: parameter.shape for name, parameter in self._parameters.items()}:
            raise ValueError("its weights are others")

    def keep_best(self, step: int, save: Callable[[Path], None]) -> None:
        """Keep the policy after a step as the best; the one before stays until the next snapshot.

        Args:
            step: rollouts done.
            save: writes the policy into a directory.
        """
        partial = partial_directory(self._best(step))
        with system_errors(partial):
            save(partial)
        publish(partial, self._best(step))

    def copy_best(self, step: int | None, directory: Path) -> None:
        """Copy the best policy's files into a directory."""
        shutil.copytree(self._best(step), directory, dirs_exist_ok=True)

    def _best(self, step: int | None) -> Path:
        return self._state / f"best-{step:08d}"
