"""Answers with their prompts in rows, and rows in passes."""

from __future__ import annotations

import pytest
import torch

from citepipe.errors import InputError
from citepipe.train.batch import Row, TokenBudget, lay_out, passes

CPU = torch.device("cpu")
PROMPTS = [[5, 6], [9]]
ANSWERS = [[[11, 12], [13]], [[14], [15]]]


def test_a_prompt_stands_once_in_front_of_its_answers() -> None:
    batch = lay_out(PROMPTS, ANSWERS, 1, CPU, shared=True)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 11, 12, 13], [9, 14, 15, 1, 1]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2], [0, 1, 1, 0, 0]]
    seen = batch.inputs["attention_mask"][:, 0]
    # The second answer's token sees the prompt and itself, not the first answer.
    assert seen[0, 4].tolist() == [True, True, False, False, True]
    assert seen[0, 3].tolist() == [True, True, True, True, False]
    assert seen[1, 2].tolist() == [True, False, True, False, False]
    assert not seen[1, :3, 3:].any(), "nobody sees padding"
    assert seen[1, 4, 4]
    # The first token of each answer comes after the prompt's last.
    assert batch.before.tolist() == [1, 2, 1, 5, 5]
    assert batch.targets.tolist() == [11, 12, 13, 14, 15]
    assert batch.mask.tolist() == [[1, 1], [1, 0], [1, 0], [1, 0]]
    assert batch.spread(torch.arange(1.0, 6.0)).tolist() == [[1, 2], [3, 0], [4, 0], [5, 0]]


def test_each_answer_has_a_row_with_its_prompt() -> None:
    batch = lay_out(PROMPTS, ANSWERS, 1, CPU)
    assert batch.inputs.keys() == {"input_ids"}
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 11], [5, 6, 1], [9, 1, 1], [9, 1, 1]]
    assert batch.before.tolist() == [1, 2, 4, 6, 9]
    assert batch.targets.tolist() == [11, 12, 13, 14, 15]


def _rows(*questions: tuple[int, list[int]]) -> list[Row]:
    """Questions with a prompt of so many tokens, and answers of these."""
    return [
        Row((5,) * prompt, (7,) * length) for prompt, lengths in questions for length in lengths
    ]


def test_answers_to_a_question_stay_together_as_far_as_the_budget_allows() -> None:
    rows = _rows((10, [5, 5, 5, 5]), (10, [4, 4]))
    first, second = range(4), range(4, 6)
    # Behind one prompt: 30 and 18 tokens, and two rows of 30 are 60.
    assert passes(rows, [first, second], shared=True, budget=60) == [[first, second]]
    assert passes(rows, [first, second], shared=True, budget=59) == [[first], [second]]
    # Two answers behind a prompt are 20 tokens, and 18.
    split = passes(rows, [first, second], shared=True, budget=20)
    assert split == [[range(2)], [range(2, 4)], [second]]
    # With a prompt each: 60 tokens in all, 30 of two.
    assert passes(rows, [first], shared=False, budget=30) == [[range(2)], [range(2, 4)]]


def test_rows_of_like_length_share_a_pass_and_the_longest_come_first() -> None:
    rows = _rows(*[(1, [length]) for length in (4, 1, 8, 3, 4, 2)])
    found = passes(rows, [range(i, i + 1) for i in range(6)], shared=True, budget=10)
    # 9 alone; 5 with 5 (10 padded); 4 with 3 (8), and the 2 would make 12.
    assert [[part[0] for part in each] for each in found] == [[2], [0, 4], [3, 5], [1]]
    # A row over the budget is a pass of its own.
    found = passes(_rows((4, [3]), (1, [1])), [range(1), range(1, 2)], shared=True, budget=4)
    assert found == [[range(1)], [range(1, 2)]]


def test_memory_that_never_suffices_ends_the_run_and_other_errors_are_left_alone() -> None:
    budget, tried = TokenBudget(None, CPU, "sft"), []

    def work() -> None:
        tried.append(budget.tokens)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(InputError, match=r"^sft, step 1: memory ran out with 64 tokens a pass"):
        budget.keep("step 1", work)
    assert tried == [1024, 512, 256, 128, 64]
    with pytest.raises(RuntimeError, match="must match the size"):
        budget.keep("step 1", lambda: torch.zeros(2) + torch.zeros(3))
