"""ALCE's rules, and what both have in common; `test_sane.py` has what a person reads."""

import itertools

import pytest
from hypothesis import given

from citepipe.text.sentences import load_splitter
from citepipe.text.statements import (
    Answer,
    Citation,
    notes_of,
    read_answer,
    remove_citations,
    renumber_citations,
    rules_of,
    with_citations,
)
from tests.text.odd_texts import DATASETS, ODD, TEXTS

SPLIT = load_splitter()


def read(raw: str, dataset: str = "asqa", noting: bool = False) -> Answer:
    return read_answer(raw, dataset, SPLIT, "alce", noting=noting)


def test_sentences_carry_their_citations():
    first, second = read(" Paris is old [1][2]. Rome is older [12].\nMore").statements
    assert (first.start, first.end, first.last) == (1, 21, 20)
    assert first.claim == "Paris is old."
    assert first.citations == (Citation(14, 17, 1), Citation(17, 20, 2))
    assert second.citations == (Citation(36, 40, 12),)


def test_only_the_first_number_of_a_group_is_a_citation():
    found = read(f"a [1, 2] b [2012] [{'9' * 5000}] c [12").statements[0].citations
    assert found[0] == Citation(2, 4, 1)
    assert [min(c.number, 10**17) for c in found] == [1, 2012, 10**17, 12]


def test_items_end_at_their_comma():
    one, two, three = read("Paris [1],  Rome [2], Oslo.", "qampari").statements
    assert (one.text, one.start, one.end, one.last) == ("Paris [1]", 0, 9, 9)
    assert (two.text, two.start, two.last) == ("Rome [2]", 12, 20)
    assert (three.text, three.last) == ("Oslo", 26)
    assert two.citations == (Citation(17, 20, 2),)


def test_a_list_loses_its_end_and_keeps_empty_items():
    for raw, items in (("a, , b,.", ["a", "", "b"]), ("", [""])):
        assert [s.text for s in read(raw, "qampari").statements] == items


def test_the_end_mark_is_not_read_but_counts():
    raw = "  Oslo<|im_end|> is big [1][2]. Yes. \nMore [3]."
    answer = read(raw)
    assert answer.text == "Oslo is big [1][2]. Yes. "
    first, second = answer.statements
    assert raw[first.start : first.end] == "Oslo<|im_end|> is big [1][2]."
    assert (first.text, raw[second.start : second.end]) == ("Oslo is big [1][2].", "Yes.")
    assert [raw[c.start : c.end] for c in first.citations] == ["[1]", "[2]"]
    # Behind the last character stands what ends the answer.
    assert [read(text).statements[0].last for text in ("\na \nb", "a<|im_end|>", "a.")] == [
        2,
        11,
        1,
    ]


@pytest.mark.parametrize("rules", ["alce", "sane"])
@pytest.mark.parametrize(
    ("answer", "dataset", "last"),
    [
        ("Paris. Rome", "asqa", [5, 11]),
        ("Paris. Rome [1]", "asqa", [5, 15]),
        ('He said "Paris."', "asqa", [15]),
        ("a, b", "qampari", [1, 4]),
        ("a, b,", "qampari", [1, 4]),
        ("a, b ...", "qampari", [1, 5]),
        ("", "qampari", [0]),
    ],
)
def test_what_no_stop_or_comma_closes_the_end_of_the_answer_closes(
    answer: str, dataset: str, last: list[int], rules: str
):
    found = read_answer(answer, dataset, SPLIT, rules)  # type: ignore[arg-type]
    assert [statement.last for statement in found.statements] == last


@ODD
@given(TEXTS, DATASETS)
def test_every_bracket_with_digits_is_found_once(raw: str, dataset: str):
    answer = read(raw, dataset)
    expected = []
    for start, (bracket, digit) in enumerate(itertools.pairwise(answer.text)):
        if bracket == "[" and digit.isdecimal():
            digits = "".join(itertools.takewhile(str.isdecimal, answer.text[start + 1 :]))
            expected.append(int(digits))
    assert [c.number for s in answer.statements for c in s.citations] == expected


@ODD
@given(TEXTS)
def test_items_are_what_stands_between_commas(raw: str):
    answer = read(raw, "qampari")
    items = [statement.text for statement in answer.statements]
    assert not any("," in item or item != item.strip() for item in items)
    assert answer.text.count(",") >= len(items) - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # One space in front goes too.
        ("Paris [1][2]. Rome  [3].", "Paris. Rome ."),
        # As in ALCE.
        ("a [1, 2] b] | c [x] in [2012 it", "a, 2 b c [x in it"),
    ],
)
def test_citations_are_removed(text: str, expected: str):
    assert remove_citations(text) == expected


def test_citations_are_renumbered_or_taken_out():
    moved = {1: 2, 12: None, 3: 5}
    text = "a [1], b [12] c[12][1] [1, 3] (Doc 12)."
    assert renumber_citations(text, lambda n: moved[n]) == "a [2], b c[2][2][5]."


def test_alces_three_datasets_are_read_as_it_reads_them():
    datasets = ("asqa", "qampari", "eli5", "expertqa", "own")
    assert [rules_of(name) for name in datasets] == ["alce", "alce", "alce", "sane", "sane"]
    assert rules_of("asqa", "sane") == "sane"


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        ("A dog barks [1].\nIt bites [2].", "1 of 2 answers have several lines, of which alce"),
        ("<think>Hm [2].</think> A dog barks [1].", "thoughts, which alce reads as the answer"),
        ("A dog barks. [1]", "citations behind the stop, which alce reads as statements of their"),
        ("A dog barks [1, 2].", "several documents in one bracket, of which alce reads the first"),
        ("A dog [1] barks (Doc 2).", "citations in a notation that alce does not read"),
        ("In [2012] a dog barked [1].", "a year in brackets, which alce reads as a document's"),
        ("A dog barks [Doc 1].", "no citation that alce reads"),
    ],
)
def test_what_alce_leaves_unread_is_noted(raw: str, note: str):
    plain = read("A dog barks [1].", noting=True)
    assert not plain.notes
    assert any(note in line for line in notes_of([plain, read(raw, noting=True)]))


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
