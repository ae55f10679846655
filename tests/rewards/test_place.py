import pytest
from hypothesis import given
from hypothesis import strategies as st

from citepipe.rewards.find import Reward
from citepipe.rewards.place import place

# "Par" "is" " [" "1" "]" ".", and the end of sequence.
OFFSETS = [(0, 3), (3, 5), (5, 7), (7, 8), (8, 9), (9, 10), (10, 10)]


def at(char: int, value: float = 1.0) -> Reward:
    return Reward("correctness", char, value)


def test_a_reward_goes_to_the_token_that_wrote_its_character():
    assert place([at(8), at(9, 2.0), at(4, -1.0)], OFFSETS) == [0, -1, 0, 0, 1, 2, 0]


def test_rewards_on_one_token_add_up():
    assert place([at(5), at(6, 0.5)], OFFSETS) == [0, 0, 1.5, 0, 0, 0, 0]


def test_holistic_is_the_sum_on_the_last_token():
    assert place([at(0), at(9, -3.0)], OFFSETS, "holistic") == [0, 0, 0, 0, 0, 0, -2]


def test_a_character_that_nobody_wrote_counts_as_of_the_token_before():
    assert place([at(99)], OFFSETS) == [0, 0, 0, 0, 0, 1, 0]
    assert place([at(3)], [(0, 2), (4, 6)]) == [1, 0]
    assert place([at(0)], [(2, 4), (4, 6)]) == [1, 0]


def test_the_bytes_of_one_character_are_written_by_the_last():
    assert place([at(1)], [(0, 1), (1, 1), (1, 1), (1, 2), (2, 3)]) == [0, 0, 0, 1, 0]


def test_no_text_and_no_tokens():
    assert place([at(0)], [(0, 0)]) == [1]
    assert place([at(0)], []) == []


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 70), st.integers(-3, 3)), max_size=20),
)
def test_no_reward_is_lost(lengths: list[int], rewards: list[tuple[int, int]]):
    offsets, end = [], 0
    for length in lengths:
        offsets.append((end, end + length))
        end += length
    found = [at(char, float(value)) for char, value in rewards]
    total = sum(reward.value for reward in found)
    assert sum(place(found, offsets)) == pytest.approx(total)
    assert sum(place(found, offsets, "holistic")) == pytest.approx(total)
