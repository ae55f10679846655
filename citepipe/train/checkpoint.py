"""A training run: where it stands, its unfinished state on disk, and the directory it leaves.

What is on disk is safetensors and JSON, whole or not there at all.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from citepipe.data.files import read_json, write_json, write_jsonl
from citepipe.errors import InputError
from citepipe.models.card import kept_step, write_card
from citepipe.models.save import building
from citepipe.options import TrainingOptions, resolved
from citepipe.progress import say
from citepipe.runstate import STOP, claim, discard
from citepipe.train.job import Job, Processes


@dataclass(slots=True)
class Snapshot:
    """Where a run stands, weights and optimizer apart.

    Random draws need no state: each has a seed of its own, made from the run's and its place.
    """

    step: int = 0
    """Steps done; in reinforcement learning, rollouts."""
    updates: int = 0
    """Optimizer steps done in reinforcement learning."""
    kl_coef: float = 0.0
    """The present weight of the KL penalty."""
    best_step: int | None = None
    """The step after which the best model was evaluated; None before the first evaluation."""
    best_score: float = float("-inf")
    """Its mean reward on dev, or minus its dev loss."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """What was reported so far, an entry per step or evaluation."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Some answers of each evaluation with their rewards, in reinforcement learning."""


@dataclass
class Run:
    """Reports, saves, restores and publishes a run; takes hold of its job's state folder.

    All processes call the same methods, and the main one writes.
    """

    label: str
    """Of the stage or method, for messages."""
    job: Job
    options: TrainingOptions
    processes: Processes
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    save_model: Callable[[Path], None]
    """Writes the present weights into a directory."""
    at: Snapshot = field(default_factory=Snapshot)

    def __post_init__(self) -> None:
        if self.processes.is_main:
            claim(self.job.state, self.job.fingerprint, self.label)
        self.processes.wait()
        self._saved = time.monotonic()
        STOP.saves = True

    def report(self, figures: Mapping[str, float]) -> None:
        """Log the figures of this step, and keep them for `metrics.jsonl`."""
        self.at.metrics.append({"step": self.at.step, **figures})
        self.job.tracker.log(self.at.step, figures)

    def keep_best(self, score: float) -> None:
        """Keep the present model if it scores higher than all before.

        The one before stays until the next snapshot.
        """
        if score <= self.at.best_score:
            return
        self.at.best_score, self.at.best_step = score, self.at.step
        if self.processes.is_main:
            with building(self._best) as partial:
                self.save_model(partial)

    def save_if_due(self) -> None:
        """Save after every `save_every` steps, and when `save_minutes` have passed.

        Raises:
            InputError: this process, or another of the run, was asked to stop; it has saved.
        """
        stops = any(self.processes.gather([STOP.asked]))
        late = time.monotonic() - self._saved > 60 * self.options.save_minutes
        due = stops or late or self.at.step % self.options.save_every == 0
        if self.processes.is_main and due:
            self.save()
            self._saved = time.monotonic()
        if stops:
            self.processes.wait()
            raise InputError(
                f"stopped after step {self.at.step}, which is saved; the same command goes on from "
                "there"
            )

    def save(self) -> None:
        """Write a snapshot with weights and optimizer, then remove what it makes superfluous."""
        final = self.job.state / f"step-{self.at.step:08d}"
        tensors = {f"parameter/{n}": p.detach().contiguous() for n, p in self.parameters.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{index}/{key}"] = value.contiguous()
        with building(final) as partial:
            save_file(tensors, partial / "tensors.safetensors")
            write_json(partial / "snapshot.json", asdict(self.at))
        for path in [*self.job.state.glob("step-*"), *self.job.state.glob("best-*")]:
            if path not in (final, self._best):
                shutil.rmtree(path)

    def restore(self, steps: int) -> None:
        """Go on from the newest snapshot, if there is a whole one; `steps` are those of the run."""
        newest = max(self.job.state.glob("step-*"), default=None)
        if newest is None:
            return
        fresh = self.at
        try:
            self.at = Snapshot(**read_json(newest / "snapshot.json"))
            tensors = load_file(newest / "tensors.safetensors")
            weights = {name: tensors.pop(f"parameter/{name}") for name in self.parameters}
            if self.at.best_step is not None and not self._best.is_dir():
                raise ValueError("its best model is missing")
        except (InputError, SafetensorError, KeyError, TypeError, ValueError, OSError):
            say(f"{newest}: this snapshot is damaged; starting from the beginning")
            shutil.rmtree(newest, ignore_errors=True)
            self.at = fresh
            return
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        say(f"{self.label}: going on after step {self.at.step} of {steps}")

    def publish(self, tokenizer: Any) -> None:
        """Leave the best model with its tokenizer, `metrics.jsonl`, perhaps `samples.jsonl`, and
        the last in `last/`.

        `citepipe.json` says what else it takes to use it: base and prompt; and the kept step. A
        card says the same to people, with that step's figures.
        """
        if self.processes.is_main:
            with building(self.job.out) as partial:
                shutil.copytree(self._best, partial, dirs_exist_ok=True)
                (partial / "last").mkdir()
                self.save_model(partial / "last")
                tokenizer.save_pretrained(partial)
                write_jsonl(partial / "metrics.jsonl", self.at.metrics)
                if self.at.samples:
                    write_jsonl(partial / "samples.jsonl", self.at.samples)
                used = {"model": resolved(self.job.model), "prompt": resolved(self.job.prompt)}
                write_json(partial / "citepipe.json", {"step": self.at.best_step, **used})
                model, start = self.job.model, self.job.start and str(self.job.start)
                made = {"base": model.base, "revision": model.revision, **kept_step(partial)}
                made |= {"trained": self.label, "from": start, "seed": self.job.seed}
                write_card(partial, str(self.job.out), model.base, made, None, {})
            discard(self.job.state)
        self.processes.wait()

    @property
    def _best(self) -> Path:
        return self.job.state / f"best-{self.at.best_step or 0:08d}"
