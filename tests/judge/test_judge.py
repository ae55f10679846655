from collections.abc import Sequence

import pytest

from citepipe.data.example import Document, Example, QAPair
from citepipe.judge.judge import Judgement, judge
from citepipe.options import JudgeOptions
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Pair


class Words:
    """Entailed is a hypothesis whose words are all in the premise; counts how it is asked."""

    name = "words"

    def __init__(self) -> None:
        self.rounds: list[list[Pair]] = []

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        self.rounds.append(list(pairs))
        return [set(h.strip(".").split()) <= set(p.split()) for p, h in pairs]


DOCS = (Document("a", "x"), Document("b", "y"), Document("c", "x y"))


def example(dataset: str = "asqa", **gold: object) -> Example:
    return Example("1", dataset, "x", DOCS, **gold)  # type: ignore[arg-type]


def judged(answer: str, options: JudgeOptions | None = None) -> list[tuple[bool, list[bool]]]:
    judgement = judge([example()], [answer], Words(), load_splitter(), options or JudgeOptions())[0]
    return [(s.supported, [c.right for c in s.citations]) for s in judgement.statements]


@pytest.mark.parametrize(
    ("answer", "supported", "right"),
    [
        ("x [1].", True, [True]),
        ("y [1].", False, [False]),
        ("y.", False, []),
        ("x y [1][2].", True, [True, True]),  # both needed
        ("x y [1][3].", True, [False, True]),  # the third alone says it
        ("x [1][3].", True, [True, True]),  # each alone
        ("x [2][1].", True, [False, True]),
        ("y z [1][2].", False, [False, False]),
        ("x y [1][1][2].", True, [False, False, True]),  # a doubled one is not needed
        ("x y [0].", True, [True]),
        ("x [1][9].", False, []),
        ("x y [1][3][1][2].", True, [False, True, False]),  # three of four count
    ],
)
def test_alce_rules(answer: str, supported: bool, right: list[bool]):
    assert judged(answer) == [(supported, right)]


def test_sane_rules():
    sane = JudgeOptions.sane()
    assert judged("x y [1][1][2].", sane) == [(True, [True, False, True])]
    assert judged("x y [0].", sane) == [(False, [False])]
    assert judged("x [1][9].", sane) == [(False, [False, False])]


def test_a_repetition_counts_for_alce_only():
    assert judged("x [1]. x [3].") == [(True, [True]), (True, [True])]
    sane = JudgeOptions.sane()
    assert judged("x [1]. x [3].", sane) == [(True, [True]), (False, [False])]


def test_a_citation_behind_the_stop_supports_the_next_sentence():
    assert judged("x. [1] y [2].") == [(False, []), (True, [False, True])]


def test_an_empty_answer_has_no_statements_and_an_empty_list_has_one():
    splitter = load_splitter()
    empty, listed = judge(
        [example(), example("qampari")], ["", ""], Words(), splitter, JudgeOptions()
    )
    assert empty == Judgement((), ())
    assert [s.supported for s in listed.statements] == [False]


def test_pairs_are_asked_in_three_rounds_without_repetition():
    verifier = Words()
    answers = ["x y [1][3]. x y [1][2][3].", "x [1].", "x [1]."]
    judge([example()] * 3, answers, verifier, load_splitter(), JudgeOptions())
    joint, singles, rest = ([p.premise for p in asked] for asked in verifier.rounds)
    a, b, c = (doc.passage for doc in DOCS)
    assert joint == [f"{a}\n{c}", f"{a}\n{b}\n{c}", a]
    assert singles == [a, c, b]
    # The third document alone is known from the round before, and so are the first and the third.
    assert rest == [f"{b}\n{c}"]


def test_asqa_hits_by_normalised_substring():
    pairs = (QAPair("", ("The X!", "q")), QAPair("", ("z",)), QAPair("", ("The",)))
    gold = example(qa_pairs=pairs)

    def hits(options: JudgeOptions) -> list[bool]:
        found = judge([gold], ["An x [1]."], Words(), load_splitter(), options)
        return [g.hit for g in found[0].gold]

    assert hits(JudgeOptions()) == [True, False, True]
    assert hits(JudgeOptions.sane()) == [True, False, False]


def test_qampari_hits_by_exact_item():
    gold = example("qampari", answers=(("Paris", "City of Light"), ("Rome",), ("",)))
    found = judge([gold], ["the paris [1], Rome Italy,"], Words(), load_splitter(), JudgeOptions())
    assert [g.hit for g in found[0].gold] == [True, False, False]


def test_claims_are_entailed_by_the_answer_without_citations():
    gold = example("eli5", claims=("x", "y"))
    verifier = Words()
    found = judge([gold], ["x [2]. z [1]"], verifier, load_splitter(), JudgeOptions())
    assert [g.hit for g in found[0].gold] == [False, False]
    assert Pair("x. z", "y") in verifier.rounds[0]


def test_a_verifier_may_want_the_question_first():
    class Asking(Words):
        question_first = True

    verifier = Asking()
    gold = example("eli5", claims=("y",))
    judge([gold], ["w [1]."], verifier, load_splitter(), JudgeOptions())
    assert verifier.rounds[0] == [Pair("Title: a\nx", "x w."), Pair("w.", "x y")]
