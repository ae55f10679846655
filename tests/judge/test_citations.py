import pytest

from citepipe.data.example import Document, Example
from citepipe.judge.citations import cited_documents, hypothesis, premise
from citepipe.options import JudgeOptions
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import Statement, split_answer

ALCE = JudgeOptions()
SANE = JudgeOptions.sane()


def statement(text: str, dataset: str = "asqa") -> Statement:
    return split_answer(text, dataset, load_splitter())[0]


@pytest.mark.parametrize(
    ("text", "alce", "sane"),
    [
        ("No citation.", (), ()),
        ("Two [2][1].", (1, 0), (1, 0)),
        ("Last [0].", (-1,), ()),
        ("Beyond [1][6].", (), ()),
        ("A year [2012].", (), ()),
        ("A group [1, 2].", (0,), (0,)),
        ("Doubled [1][1][2].", (0, 0, 1), (0, 1)),
        ("Four [1][2][3][4].", (0, 1, 2), (0, 1, 2)),
        ("The fourth beyond [1][2][3][6].", (), ()),
    ],
)
def test_cited_documents_of_five(text: str, alce: tuple[int, ...], sane: tuple[int, ...]):
    assert cited_documents(statement(text), 5, ALCE).documents == alce
    assert cited_documents(statement(text), 5, SANE).documents == sane


def test_citations_out_of_range_leave_precision_or_are_wrong():
    beyond = statement("Beyond [1][6].")
    assert cited_documents(beyond, 5, ALCE).counted == ()
    assert [document for _, document in cited_documents(beyond, 5, SANE).counted] == [None, None]


def test_a_repetition_is_wrong_by_the_sane_rule():
    counted = cited_documents(statement("Doubled [1][1][2]."), 5, SANE).counted
    assert [document for _, document in counted] == [0, None, 1]


def test_without_documents_nothing_is_cited():
    assert cited_documents(statement("Last [0]."), 0, ALCE).documents == ()


def test_premise_and_hypothesis():
    example = Example(
        "1",
        "qampari",
        "Which cities?",
        (Document("Paris", "A city."), Document("Rome", "Long.", sent="Short.")),
    )
    assert premise(example, (1, 0)) == "Title: Rome\nShort.\nTitle: Paris\nA city."
    assert hypothesis(example, statement("Paris [1], x", "qampari"), False) == "Which cities? Paris"
    asqa = Example("1", "asqa", "Which city?", ())
    assert hypothesis(asqa, statement("It is Paris [1]."), False) == "It is Paris."
    assert hypothesis(asqa, statement("It is Paris [1]."), True) == "Which city? It is Paris."
