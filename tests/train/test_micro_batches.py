"""What fits into one pass."""

from __future__ import annotations

import pytest
import torch

from citepipe.errors import InputError
from citepipe.train.micro_batches import TokenBudget, micro_batches, with_back_off

CPU = torch.device("cpu")


def test_rows_of_like_length_share_a_pass() -> None:
    # 9 alone; 5 with 5 (10 padded); 4 with 3 (8), and the 2 would make 12.
    assert micro_batches([5, 2, 9, 4, 5, 3], 10) == [[2], [0, 4], [3, 5], [1]]


def test_a_row_over_the_budget_is_a_pass_of_its_own() -> None:
    assert micro_batches([7, 1], 4) == [[0], [1]]
    assert micro_batches([], 4) == []


def test_memory_that_runs_out_once_is_told_of_and_made_do_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    budget = TokenBudget(100, on_gpu=False, stage="rl")
    tried = []

    def work() -> str:
        tried.append(budget.tokens)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert with_back_off(budget, "step 3", CPU, work) == "done"
    assert tried == [100, 50]
    said = capsys.readouterr().err
    assert said == (
        "rl, step 3: memory ran out, goes on with 50 tokens a pass "
        "(to keep it: rl.tokens_per_pass)\n"
    )


def test_memory_that_runs_out_again_ends_the_run() -> None:
    budget = TokenBudget(100, on_gpu=False, stage="sft")

    def work() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(InputError, match=r"^sft, step 1: memory ran out again with 50 tokens"):
        with_back_off(budget, "step 1", CPU, work)


def test_other_errors_are_left_alone() -> None:
    budget = TokenBudget(None, on_gpu=False, stage="sft")

    def work() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        with_back_off(budget, "step 1", CPU, work)
