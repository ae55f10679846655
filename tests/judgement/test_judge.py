from collections.abc import Sequence

import pytest

from citepipe.data.example import Document, Example, QAPair
from citepipe.judgement import (
    CitationVerdict,
    Judgement,
    StatementVerdict,
    answerable,
    cited_documents,
    hypothesis,
    judge,
    premise,
    verdict_records,
)
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import Answer, Rules, Statement, read_answer
from citepipe.verify.base import Pair

ALCE: Rules = "alce"
SANE: Rules = "sane"


def read(text: str, rules: Rules = ALCE, dataset: str = "asqa") -> Answer:
    return read_answer(text, dataset, load_splitter(), rules)


class Words:
    """Entailed is a hypothesis whose words are all in the premise; keeps the pairs of each call."""

    name = "words"

    def __init__(self) -> None:
        self.rounds: list[list[Pair]] = []

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        self.rounds.append(list(pairs))
        return [set(h.strip(".").split()) <= set(p.split()) for p, h in pairs]


DOCS = (Document("a", "x"), Document("b", "y"), Document("c", "x y"))


def example(dataset: str = "asqa", **gold: object) -> Example:
    return Example("1", dataset, "x", DOCS, **gold)  # type: ignore[arg-type]


Verdicts = list[tuple[bool, list[bool]]]


def judged(answer: str, rules: Rules = ALCE) -> Verdicts:
    judgement = judge([example()], [read(answer, rules)], Words())[0]
    return [(s.supported, [c.right for c in s.citations]) for s in judgement.statements]


@pytest.mark.parametrize(
    ("answer", "alce", "sane"),
    [
        ("x [1].", [(True, [True])], "the same"),
        ("y [1].", [(False, [False])], "the same"),
        ("y.", [(False, [])], "the same"),
        # Both are needed; the third alone says it; each alone does.
        ("x y [1][2].", [(True, [True, True])], "the same"),
        ("x y [1][3].", [(True, [False, True])], "the same"),
        ("x [1][3].", [(True, [True, True])], "the same"),
        ("x [2][1].", [(True, [False, True])], "the same"),
        ("y z [1][2].", [(False, [False, False])], "the same"),
        # A doubled one is not needed; the second time is wrong.
        ("x y [1][1][2].", [(True, [False, False, True])], [(True, [True, False, True])]),
        # The last document; out of range.
        ("x y [0].", [(True, [True])], [(False, [False])]),
        ("x [1][9].", [(False, [])], [(False, [False, False])]),
        ("x [1][2][3][2012].", [(False, [])], [(False, [False, False, False])]),
        # Three of four count.
        ("x y [1][3][1][2].", [(True, [False, True, False])], "the same"),
        # Stated twice.
        ("x [1]. x [3].", [(True, [True]), (True, [True])], [(True, [True]), (False, [False])]),
    ],
)
def test_verdicts(answer: str, alce: Verdicts, sane: Verdicts | str):
    assert judged(answer) == alce
    assert judged(answer, SANE) == (alce if sane == "the same" else sane)


@pytest.mark.parametrize(
    ("answer", "statements", "citations"),
    [
        ("x y [1][3].", ["supported"], ["needless", "supports"]),
        ("y [1].", ["not supported"], ["not supported"]),
        ("y.", ["cites nothing"], []),
        ("x [1][9].", ["out of range"], ["not supported", "out of range"]),
        ("x [1]. x [3].", ["supported", "repeated"], ["supports", "repeated"]),
        ("x y [1][1][2].", ["supported"], ["supports", "repeated", "supports"]),
    ],
)
def test_every_verdict_has_a_reason(answer: str, statements: list[str], citations: list[str]):
    [found] = judge([example()], [read(answer, SANE)], Words())
    records = verdict_records(found)
    assert [record["reason"] for record in records["statements"]] == statements
    assert [record["reason"] for record in records["citations"]] == citations


def test_support_elsewhere_is_looked_for_on_request():
    verifier = Words()
    answer = read("y [1]. w [1]. x [9]. x [1].", SANE)
    [found] = judge([example()], [answer], verifier, elsewhere=True)
    elsewhere = "supported elsewhere"
    assert [(own.reason, own.elsewhere, own.supported) for own in found.statements] == [
        (elsewhere, (2, 3), False),
        ("not supported", (), False),
        (elsewhere, (1, 3), False),
        ("repeated", (), False),
    ]
    # What is supported is not looked for, and nothing is queried twice.
    assert len(verifier.rounds) == 2


def test_a_sentence_that_declines_is_no_claim_by_the_sane_rules():
    text = "The documents do not say [1]. x [1]. The documents do not say."

    def found(text: str, rules: Rules) -> Judgement:
        return judge([example()], [read(text, rules)], Words(), refusals=True)[0]

    sane, alce = found(text, SANE), found(text, ALCE)
    reasons = ["refusal", "supported", "refusal"]
    assert [own.reason for own in sane.statements] == reasons
    assert (sane.citation_rec, sane.citation_prec, sane.refused) == (100, 100, False)
    # ALCE's numbers stay.
    assert [own.reason for own in alce.statements] == ["not supported", *reasons[1:]]
    assert (alce.citation_rec, alce.citation_prec) == (100 / 3, 50)
    assert found("The documents do not say.", SANE).refused
    unasked = judge([example()], [read(text, SANE)], Words())[0]
    assert (unasked.citation_rec, unasked.refused) == (100 / 3, False)


def test_which_questions_the_documents_answer():
    pairs = (QAPair("", ("q",)), QAPair("", ("The X!", "z")))
    examples = [
        example(qa_pairs=pairs),
        example(qa_pairs=pairs[:1]),
        example("qampari", answers=(("q",), ("Y",))),
        example("eli5", claims=("q", "x y")),
        example("eli5", claims=("q",)),
        example("own"),
        # The gold answer declines.
        example("own", answer="The documents do not say.", claims=("x",)),
    ]
    verifier = Words()
    assert answerable(examples, verifier) == [True, False, True, True, False, None, False]
    [queried] = verifier.rounds
    assert queried[0] == Pair("\n".join(doc.passage for doc in DOCS), "q")


def test_an_empty_answer_has_no_statements_and_an_empty_list_has_one():
    answers = [read(""), read("", dataset="qampari")]
    empty, listed = judge([example(), example("qampari")], answers, Words())
    assert empty == Judgement((), ())
    assert [s.supported for s in listed.statements] == [False]


def test_pairs_are_queried_in_three_rounds_without_repetition():
    verifier = Words()
    answers = list(map(read, ["x y [1][3]. x y [1][2][3].", "x [1].", "x [1]."]))
    known: dict[Pair, bool] = {}
    judged_first = judge([example()] * 3, answers, verifier, known=known)
    joint, singles, rest = ([p.premise for p in queried] for queried in verifier.rounds)
    a, b, c = (doc.passage for doc in DOCS)
    assert joint == [f"{a}\n{c}", f"{a}\n{b}\n{c}", a]
    assert singles == [a, c, b]
    # The third document alone is known from the round before, and so are the first and the third.
    assert rest == [f"{b}\n{c}"]
    again = judge([example()] * 3, answers, verifier, known=known)
    assert again == judged_first
    assert len(verifier.rounds) == 3


class Graded(Words):
    """Supported in part is what has some of its words in the premise."""

    graded = True

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        self.rounds.append(list(pairs))
        return [
            True if words <= set(p.split()) else None if words & set(p.split()) else False
            for p, h in pairs
            for words in [set(h.strip(".").split())]
        ]


def test_graded_verdicts_and_how_far_the_first_citation_supports():
    verifier = Graded()
    # In full by both, by the first in part; in part; by no word; nothing cited; out of range; in
    # part by what is cited and in full by the third.
    text = "x y [1][2].\nx z [1].\nq q [2][1].\nw w.\n\nv v [9].\ny x [2]."
    [found] = judge([example()], [read(text, SANE)], verifier, elsewhere=True, first=True)
    assert found.first == (0.5, 0.5, 0, None, 0, 0.5)
    reasons = ["supported", "partly supported", "not supported", "cites nothing", "out of range"]
    assert [own.reason for own in found.statements] == [*reasons, "supported elsewhere"]
    assert [own.reason for own in found.statements[1].citations] == ["partly supported"]
    assert [own.supported for own in found.statements] == [True] + [False] * 5
    # The first documents by themselves are queried with those of the second round.
    assert len(verifier.rounds[1]) == 3


def test_asqa_hits_by_normalised_substring():
    pairs = (QAPair("", ("The X!", "q")), QAPair("", ("z",)), QAPair("", ("The",)))
    gold = example(qa_pairs=pairs)

    def hits(rules: Rules) -> list[bool]:
        found = judge([gold], [read("An x [1].", rules)], Words())
        return list(found[0].gold)

    assert hits(ALCE) == [True, False, True]
    assert hits(SANE) == [True, False, False]


def test_qampari_hits_by_exact_item():
    gold = example("qampari", answers=(("Paris", "City of Light"), ("Rome",), ("",)))
    answer = read("the paris [1], Rome Italy,", dataset="qampari")
    found = judge([gold], [answer], Words())
    assert list(found[0].gold) == [True, False, False]


def test_claims_are_entailed_by_the_answer_without_citations():
    gold = example("eli5", claims=("x", "y"))
    verifier = Words()
    found = judge([gold], [read("x [2]. z [1]")], verifier)
    assert list(found[0].gold) == [False, False]
    assert Pair("x. z", "y") in verifier.rounds[0]


def test_a_verifier_may_want_the_question_first():
    class Asking(Words):
        question_first = True

    verifier = Asking()
    gold = example("eli5", claims=("y",))
    judge([gold], [read("w [1].")], verifier)
    assert verifier.rounds[0] == [Pair("Title: a\nx", "x w."), Pair("w.", "x y")]


def statement(text: str, dataset: str = "asqa") -> Statement:
    return read(text, dataset=dataset).statements[0]


def test_the_last_of_no_documents_is_out_of_range():
    assert cited_documents(statement("Last [0]."), 0, ALCE).documents == ()


def test_premise_and_hypothesis():
    docs = (Document("Paris", "A city."), Document("Rome", "Long.", sent="Short."))
    listed = Example("1", "qampari", "Which cities?", docs)
    assert premise(listed, (1, 0)) == "Title: Rome\nShort.\nTitle: Paris\nA city."
    assert hypothesis(listed, statement("Paris [1], x", "qampari"), False) == "Which cities? Paris"
    asqa = Example("1", "asqa", "Which city?", ())
    assert hypothesis(asqa, statement("It is Paris [1]."), False) == "It is Paris."
    assert hypothesis(asqa, statement("It is Paris [1]."), True) == "Which city? It is Paris."


def test_verdicts_have_their_places_in_the_raw_answer():
    raw = "  Oslo<|im_end|> is big [1][2]. Yes. \nMore [3]."
    first, second = read(raw).statements
    right, wrong = map(CitationVerdict, first.citations, (True, False))
    verdicts = (StatementVerdict(first, True, (right, wrong)), StatementVerdict(second, False, ()))
    records = verdict_records(Judgement(verdicts, (True,)))
    assert [
        (raw[slice(*r["span"])], r["text"], r["cited"], r["supported"])
        for r in records["statements"]
    ] == [
        ("Oslo<|im_end|> is big [1][2].", "Oslo is big [1][2].", [1, 2], True),
        ("Yes.", "Yes.", [], False),
    ]
    assert [
        (raw[slice(*r["span"])], r["id"], r["statement"], r["right"]) for r in records["citations"]
    ] == [("[1]", 1, 0, True), ("[2]", 2, 0, False)]
    assert records["gold"] == [{"index": 0, "hit": True}]


def test_an_empty_item_has_an_empty_span():
    item = read("", dataset="qampari").statements[0]
    records = verdict_records(Judgement((StatementVerdict(item, False, ()),), ()))
    assert records["statements"][0]["span"] == [0, 0]
