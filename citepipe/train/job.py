"""A training job: of what model, from where, to where; and the processes that do it together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import nn

from citepipe.options import ModelOptions, PromptOptions
from citepipe.tracking import Tracker

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every training stage receives."""

    model: ModelOptions
    prompt: PromptOptions
    start: Path | None
    """The adapter or model that training starts from; None for a new adapter, or the base."""
    out: Path
    """The directory of the trained model."""
    state: Path
    """The folder of what a run that was cut off goes on from."""
    fingerprint: str
    """Of everything the result depends on; a state with another one is discarded."""
    seed: int
    threads: int
    """CPU threads."""
    tracker: Tracker = field(default_factory=Tracker)


class Processes:
    """The processes of a run, one per device: this one's rank, and how many; by accelerate.

    The main one writes files and lines.
    """

    def __init__(self) -> None:
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.rank: int = self._state.process_index
        self.count: int = self._state.num_processes
        self.is_main = self.rank == 0

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """This process' part of a list that all of them have."""
        return list(items[self.rank :: self.count])

    def gather(self, own: Sequence[_Item]) -> list[_Item]:
        """The whole list of results, in order, from every process' results for its `share`."""
        if self.count == 1:
            return list(own)
        parts: list[list[_Item]] = gather_object([list(own)])
        return [parts[i % self.count][i // self.count] for i in range(sum(map(len, parts)))]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum over all processes; none counts as zero."""
        if self.count > 1:
            for parameter in parameters:
                gradient = parameter.grad
                gradient = torch.zeros_like(parameter) if gradient is None else gradient
                parameter.grad = reduce(gradient, "sum")

    def wait(self) -> None:
        """Return when all processes are here."""
        self._state.wait_for_everyone()
