import itertools
from collections.abc import Callable

import pytest
from hypothesis import given

from citepipe.text.sentences import load_splitter
from citepipe.text.statements import (
    Citation,
    find_citations,
    keep_years,
    list_items,
    remove_citations,
    renumber_citations,
    separate_groups,
    split_answer,
    with_citations,
)
from tests.text.odd_texts import DATASETS, ODD, TEXTS

SPLIT = load_splitter()


def test_sentences_carry_their_citations():
    first, second = split_answer("Paris is old [1][2]. Rome is older [12].", "asqa", SPLIT)
    assert (first.start, first.end, first.last) == (0, 20, 19)
    assert first.claim == "Paris is old."
    assert first.citations == (Citation(13, 16, 1), Citation(16, 19, 2))
    assert second.citations == (Citation(35, 39, 12),)


def test_only_the_first_number_of_a_group_is_a_citation():
    found = find_citations(f"a [1, 2] b [2012] [{'9' * 5000}] c [12")
    assert found[0] == Citation(2, 4, 1)
    assert [min(c.number, 10**17) for c in found] == [1, 2012, 10**17, 12]


def test_items_end_at_their_comma():
    answer = "Paris [1],  Rome [2], Oslo."
    one, two, three = split_answer(answer, "qampari", SPLIT)
    assert (one.text, one.start, one.end, one.last) == ("Paris [1]", 0, 9, 9)
    assert (two.text, two.start, two.last) == ("Rome [2]", 12, 20)
    assert (three.text, three.last) == ("Oslo", 26)
    assert two.citations == (Citation(17, 20, 2),)


def test_a_list_loses_its_end_and_keeps_empty_items():
    assert list_items("a, , b,.") == ["a", "", "b"]
    assert list_items("") == [""]
    assert split_answer("a, b,", "qampari", SPLIT)[1].last == 4


@pytest.mark.parametrize(
    ("answer", "dataset", "last"),
    [
        ("Paris. Rome", "asqa", [5, 11]),
        ("Paris. Rome [1]", "asqa", [5, 15]),
        ('He said "Paris."', "asqa", [15]),
        ("a, b", "qampari", [1, 4]),
        ("a, b ...", "qampari", [1, 5]),
        ("", "qampari", [0]),
    ],
)
def test_what_no_stop_or_comma_closes_the_end_of_the_answer_closes(
    answer: str, dataset: str, last: list[int]
):
    assert [statement.last for statement in split_answer(answer, dataset, SPLIT)] == last


@ODD
@given(TEXTS, DATASETS)
def test_spans_lie_inside_the_answer_and_inside_each_other(answer: str, dataset: str):
    end = 0
    for statement in split_answer(answer, dataset, SPLIT):
        assert end <= statement.start <= statement.end <= len(answer)
        assert answer[statement.start : statement.end] == statement.text
        assert 0 <= statement.last <= len(answer)
        end = statement.end
        for citation in statement.citations:
            assert statement.start <= citation.start < citation.end <= statement.end


@ODD
@given(TEXTS, DATASETS)
def test_every_bracket_with_digits_is_found_once(answer: str, dataset: str):
    expected = []
    for start, (bracket, digit) in enumerate(itertools.pairwise(answer)):
        if bracket == "[" and digit.isdecimal():
            digits = "".join(itertools.takewhile(str.isdecimal, answer[start + 1 :]))
            end = start + 1 + len(digits)
            expected.append(Citation(start, end + (answer[end : end + 1] == "]"), int(digits)))
    statements = split_answer(answer, dataset, SPLIT)
    assert [citation for s in statements for citation in s.citations] == expected
    assert list(find_citations(answer)) == expected


@ODD
@given(TEXTS)
def test_items_are_what_stands_between_commas(answer: str):
    items = list_items(answer)
    assert items == [statement.text for statement in split_answer(answer, "qampari", SPLIT)]
    assert not any("," in item or item != item.strip() for item in items)
    assert answer.count(",") >= len(items) - 1


@pytest.mark.parametrize(
    ("rewrite", "text", "expected"),
    [
        # One space in front goes too.
        (remove_citations, "Paris [1][2]. Rome  [3].", "Paris. Rome ."),
        # As in ALCE.
        (remove_citations, "a [1, 2] b] | c [x] in [2012 it", "a, 2 b c [x in it"),
        (separate_groups, "a [1, 2]; b [1,2 ;13 ].", "a [1][2]; b [1][2][13]."),
        (separate_groups, "[1] [a, 2] [1,] [2012] [1, 2", "[1] [a, 2] [1,] [2012] [1, 2"),
        (keep_years, "in [2012], [12] [20123]", "in (2012), [12] [20123]"),
    ],
)
def test_citations_are_rewritten(rewrite: Callable[[str], str], text: str, expected: str):
    assert rewrite(text) == expected


def test_citations_are_renumbered_or_taken_out():
    moved = {1: 2, 12: None}
    text = "a [1], b [12] c[12][1] [1, 2] [1"
    assert renumber_citations(text, lambda n: moved[n]) == "a [2], b c[2] [1, 2] [1"


@ODD
@given(TEXTS)
def test_groups_and_years_change_nothing_but_citations(text: str):
    apart = separate_groups(keep_years(text))
    marks = str.maketrans("", "", "[](),; ")
    assert apart.translate(marks) == text.translate(marks)
    assert separate_groups(apart) == apart


@pytest.mark.parametrize(
    ("sentence", "cited"),
    [
        ("It is so.", "It is so [1][3]."),
        ("Is it?", "Is it [1][3]?"),
        ("No stop", "No stop [1][3]."),
        ("Wait...", "Wait [1][3]..."),
        ('He said "no."', 'He said "no [1][3]."'),
        ('He said "no".', 'He said "no" [1][3].'),
        ("(It is so.) ", "(It is so [1][3].)"),
        ("It is so (really)", "It is so (really) [1][3]."),
        ("In the U.S.", "In the U.S [1][3]."),
    ],
)
def test_citations_stand_in_front_of_the_stop(sentence: str, cited: str):
    assert with_citations(sentence, (0, 2)) == cited
