"""The processes of a training run, one per device: who does what, and putting it together.

A thin layer over accelerate; with one process everything is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import nn

_Item = TypeVar("_Item")


class Processes:
    """Processes that run the same program on parts of the same work.

    Attributes:
        rank: the number of this one.
        count: how many there are.
        is_main: this is the one that writes and speaks.
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
        whole = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            whole[rank :: self.count] = part  # type: ignore[assignment]
        return whole  # type: ignore[return-value]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum over all processes; none counts as zero."""
        if self.count == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        summed = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
        for gradient, part in zip(
            gradients, summed.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Go on when all processes are here."""
        self._state.wait_for_everyone()
