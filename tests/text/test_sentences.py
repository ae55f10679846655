import pytest

from citepipe.errors import InputError
from citepipe.text.sentences import load_splitter


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in load_splitter("punkt-rules")(text)]


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


def test_nothing_has_no_sentences():
    assert sentences("") == sentences("  ") == []


def test_unknown_splitter():
    with pytest.raises(InputError, match="punkt-rules"):
        load_splitter("spacy")
