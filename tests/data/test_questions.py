"""When two questions are the same, and what else a row's layout can be."""

from __future__ import annotations

import pytest

from citepipe.data.questions import normalized_question


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who is it?", "who is it"),
        ("Who  is\tit", "Who is it"),
        ("Who is “it”?", 'Who is "it"?'),
        ("Cafe\u0301", "CAFÉ"),
        ("ﬁve", "Five"),
        ("STRASSE", "straße"),
        ("１２", "12"),
        ("Who\u200b is it", "Who is it"),
        ("Who\u00a0is it", "Who is it"),
        ("snake_case", "snake case"),
    ],
)
def test_questions_that_are_written_otherwise_are_the_same(one: str, other: str) -> None:
    assert normalized_question(one) == normalized_question(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who is it?", "Who was it?"),
        ("resume", "résumé"),
        ("की", "कि"),
        ("?", "!"),
        ("", "?"),
        ("in 2001", "in 2002"),
    ],
)
def test_other_questions_are_not(one: str, other: str) -> None:
    assert normalized_question(one) != normalized_question(other)


def test_what_is_compared() -> None:
    assert normalized_question("  What's the U.S. GDP (2001)?\n") == "what s the u s gdp 2001"
