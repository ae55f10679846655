"""The plain verifier that an experiment reports beside `lexical`."""

from __future__ import annotations

import pytest

from citepipe.verify.base import Pair
from experiments.in_order import InOrder

PREMISE = "Title: Arle\nThe old harbour opened in 1874. Boats lie there today."


@pytest.mark.parametrize(
    ("hypothesis", "entailed"),
    [
        ("The harbour opened in 1874.", True),
        # Four words of eight, in this order; turned round there are only two of them.
        ("Harbour opened in 1874 for ships from Norway.", True),
        ("From Norway ships in 1874 opened harbour for.", False),
        # Half of the words, but in two sentences.
        ("Harbour then there now.", False),
        ("", False),
    ],
)
def test_half_of_the_words_stand_in_order_in_one_sentence(hypothesis: str, entailed: bool) -> None:
    assert InOrder().entails([Pair(PREMISE, hypothesis)]) == [entailed]
