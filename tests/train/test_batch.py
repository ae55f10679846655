"""The two layouts of answers with their prompts."""

from __future__ import annotations

import torch

from citepipe.train.batch import Row, padding_free, separate_rows, shared_prompts

CPU = torch.device("cpu")
PROMPTS = [[5, 6], [9]]
ANSWERS = [[[11, 12], [13]], [[14], [15]]]


def test_a_prompt_stands_once_in_front_of_its_answers() -> None:
    batch = shared_prompts(PROMPTS, ANSWERS, 1, CPU)
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


ROWS = [Row.of([5, 6, 7], [8, 9]), Row.of([10], [11]), Row.of([12, 13], [14, 15, 16])]


def test_rows_are_padded_behind_and_end_before_their_last_token() -> None:
    batch = separate_rows(ROWS, 1, CPU)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8], [10, 1, 1, 1], [12, 13, 14, 15]]
    assert batch.before.tolist() == [2, 3, 4, 9, 10, 11]
    assert batch.targets.tolist() == [8, 9, 11, 14, 15, 16]
    assert batch.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]


def test_rows_without_padding_are_one_with_positions_that_begin_anew() -> None:
    batch = padding_free(ROWS, CPU)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 10, 12, 13, 14, 15]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 0, 0, 1, 2, 3]]
    assert batch.before.tolist() == [2, 3, 4, 6, 7, 8]
    assert batch.targets.tolist() == [8, 9, 11, 14, 15, 16]


def test_values_go_back_to_their_answers() -> None:
    spread = separate_rows(ROWS, 1, CPU).spread(torch.arange(1.0, 7.0))
    assert spread.tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
