"""What fits into one forward and backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from citepipe.errors import InputError
from citepipe.models.memory import is_out_of_memory
from citepipe.progress import say

_Result = TypeVar("_Result")

# A GPU's matrix units are busy from some thousands of tokens on. A CPU is fastest while what it
# works on stays in its caches.
GPU_TOKENS_PER_PASS = 4_096
CPU_TOKENS_PER_PASS = 1_024


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows in batches of like length.

    Args:
        lengths: tokens of each row.
        budget: rows times tokens of the longest, of a batch; a row that is longer by itself is a
            batch of its own.

    Returns:
        Indices into `lengths`, the longest rows first, so that what does not fit into memory
        shows at the start.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batches: list[list[int]] = []
    for row in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


class TokenBudget:
    """Tokens of a pass, halved once when memory runs out.

    Args:
        tokens: as configured; None for what suits the device.
        on_gpu: which device.
        stage: the name of the configuration's section, for what is said.
    """

    def __init__(self, tokens: int | None, on_gpu: bool, stage: str) -> None:
        self.tokens = tokens or (GPU_TOKENS_PER_PASS if on_gpu else CPU_TOKENS_PER_PASS)
        self._stage = stage
        self._shrunk = False

    def shrink(self, where: str) -> None:
        """Halve the budget and say so.

        Args:
            where: what ran out of memory, such as `step 12`.

        Raises:
            InputError: it was halved before.
        """
        if self._shrunk:
            raise InputError(
                f"{self._stage}, {where}: memory ran out again with {self.tokens} tokens a pass; "
                f"{self._stage}.tokens_per_pass, model.gradient_checkpointing, "
                "model.quantization or a smaller model may do"
            )
        self.tokens //= 2
        self._shrunk = True
        say(
            f"{self._stage}, {where}: memory ran out, goes on with {self.tokens} tokens a pass "
            f"(to keep it: {self._stage}.tokens_per_pass)"
        )


def with_back_off(
    budget: TokenBudget, where: str, device: torch.device, work: Callable[[], _Result]
) -> _Result:
    """Do work that keeps to a budget, and once again with half of it when memory runs out.

    Args:
        budget: what `work` reads its number of tokens from.
        where: what is being done, such as `step 12`.
        device: whose memory it is.
        work: can be done again from its start.

    Raises:
        InputError: the memory does not suffice for half of the budget either.
    """
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback holds the tensors.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        budget.shrink(where)
