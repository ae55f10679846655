"""The processes of a training run, one per device: who does what, and putting it together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import nn

_Item = TypeVar("_Item")


class Processes:
    """Processes that run the same program on parts of the same work; a thin layer over accelerate.

    Attributes:
        rank: the number of this one.
        count: how many there are.
        is_main: this is the one that writes files and lines.
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
