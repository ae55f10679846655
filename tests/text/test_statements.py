from hypothesis import given, settings
from hypothesis import strategies as st

from citepipe.text.sentences import load_splitter
from citepipe.text.statements import Citation, find_citations, list_items, split_answer

SPLIT = load_splitter()
PIECES = st.sampled_from(
    [
        "[1]",
        "[2]",
        "[10",
        "[0]",
        "[1, 2]",
        "]",
        "[",
        " ",
        ". ",
        ".",
        ",",
        ", ",
        "Paris",
        "U.S.",
        "é",
        "\u0661",
    ]
)


def test_sentences_carry_their_citations():
    first, second = split_answer("Paris is old [1][2]. Rome is older [12].", "asqa", SPLIT)
    assert (first.start, first.end, first.last) == (0, 20, 19)
    assert first.claim == "Paris is old."
    assert first.citations == (Citation(13, 16, 1), Citation(16, 19, 2))
    assert [c.number for c in second.citations] == [12]
    assert second.citations[0].start == 35


def test_a_citation_behind_the_stop_begins_the_next_sentence():
    first, second = split_answer("It is in Paris. [1] It is big.", "eli5", SPLIT)
    assert (first.text, second.text) == ("It is in Paris.", "[1] It is big.")


def test_only_the_first_number_of_a_group_is_a_citation():
    assert [c.number for c in find_citations("a [1, 2] b [2012] c [12")] == [1, 2012, 12]
    assert find_citations("x [1, 2]")[0] == Citation(2, 4, 1)


def test_a_number_of_any_length_is_read():
    assert find_citations(f"[{'9' * 5000}]")[0].number > 10**17


def test_items_end_at_their_comma():
    answer = "Paris [1],  Rome [2], Oslo."
    one, two, three = split_answer(answer, "qampari", SPLIT)
    assert (one.text, one.start, one.end, one.last) == ("Paris [1]", 0, 9, 9)
    assert (two.text, two.start, two.last) == ("Rome [2]", 12, 20)
    assert (three.text, three.last) == ("Oslo", 25)
    assert two.citations == (Citation(17, 20, 2),)


def test_a_list_loses_its_end_and_keeps_empty_items():
    assert list_items("a, , b,.") == ["a", "", "b"]
    assert list_items("") == [""]
    assert split_answer("a, b,", "qampari", SPLIT)[1].last == 4


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=30).map("".join), st.sampled_from(["asqa", "qampari"]))
def test_spans_lie_inside_the_answer_and_inside_each_other(answer: str, dataset: str):
    end = 0
    for statement in split_answer(answer, dataset, SPLIT):
        assert end <= statement.start <= statement.end <= len(answer)
        assert answer[statement.start : statement.end] == statement.text
        assert 0 <= statement.last < max(len(answer), 1)
        end = statement.end
        for citation in statement.citations:
            assert statement.start <= citation.start < citation.end <= statement.end
            assert answer[citation.start] == "["
