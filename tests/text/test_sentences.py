import pytest
from hypothesis import given

from citepipe.errors import InputError
from citepipe.text.sentences import load_splitter
from tests.text.odd_texts import ODD, TEXTS

SPLIT = load_splitter("punkt-rules")


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in SPLIT(text)]


@pytest.mark.parametrize(
    "text",
    [
        "He moved to the U.S. in 1990.",
        "It cost 3.5 million, i.e. more than Mr. Smith had.",
        "The books of J. K. Rowling sold well.",
        "Washington D.C. is the capital.",
        "It was founded in Jan. 1990 by Acme Inc. and sold.",
        "Is it, e.g. Paris [1]?",
    ],
)
def test_stops_that_end_no_sentence(text: str):
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("It is in the U.S. The city is old.", "It is in the U.S."),
        ("Take vitamin C. The dose is small.", "Take vitamin C."),
        ("It grew by 3.5. Then it fell.", "It grew by 3.5."),
        ("Paris [1][2]. Rome [3].", "Paris [1][2]."),
        ('He said "yes." She left.', 'He said "yes."'),
    ],
)
def test_stops_that_do(text: str, first: str):
    assert sentences(text) == [first, text[len(first) + 1 :]]


def test_unknown_splitter():
    with pytest.raises(InputError, match="punkt-rules"):
        load_splitter("spacy")


@ODD
@given(TEXTS)
def test_spans_are_in_order_and_leave_out_nothing_but_space(text: str):
    outside, end = [], 0
    for start, next_end in SPLIT(text):
        assert end <= start < next_end <= len(text)
        outside.append(text[end:start])
        end = next_end
    assert not "".join([*outside, text[end:]]).strip()


def test_a_long_text_is_split_although_nltk_would_give_up(monkeypatch: pytest.MonkeyPatch):
    """NLTK's limit on the seconds of a search counts the decisions between two of its finds too."""
    monkeypatch.setattr("nltk.redos.DEFAULT_TIMEOUT", 0.1)
    load_splitter.cache_clear()
    assert load_splitter()("U.S. " * 50_000) == [(0, 249_999)]


@pytest.mark.parametrize("piece", ["a.\xa0", "?!", "). ", "a"])
def test_a_text_of_any_length_is_split(piece: str):
    text = piece * 20_000
    spans = SPLIT(text)
    assert (spans[0][0], spans[-1][1]) == (0, len(text.rstrip()))
