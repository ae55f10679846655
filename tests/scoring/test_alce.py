"""ALCE's metrics of one answer, against values worked out by hand."""

from dataclasses import replace

import pytest

from citepipe.data.example import Document, Example, QAPair
from citepipe.judgement import CitationVerdict, Judgement, StatementVerdict
from citepipe.scoring.alce import METRICS, judged_scores, text_scores, unit_counts
from citepipe.text.citations import Citation
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import Answer, Rules, Statement

ASQA = Example(
    "1", "asqa", "q", (), long_answers=("a b c d", "x y"), qa_pairs=(QAPair("", ("a",)),)
)
ELI5 = Example("1", "eli5", "q", (), claims=("a", "b"))
# Seven answers with two aliases each.
QAMPARI = Example("1", "qampari", "q", (), answer="b", answers=tuple((c, c * 2) for c in "bcdefgh"))
DOCS = (Document("It closed", "A mill closed in 1931."), Document("", "old", sent="It was 1931."))
NOTHING_RIGHT = dict.fromkeys(
    (
        "num_preds",
        "qampari_prec",
        "qampari_f1",
        "qampari_f1_top5",
        "qampari_rec",
        "qampari_rec_top5",
    ),
    0,
)


def verdict(supported: bool, *right: bool) -> StatementVerdict:
    citation = Citation(0, 3, 1)
    return StatementVerdict(
        Statement(0, 1, "s", "s", (citation,) * len(right), 0),
        supported,
        tuple(CitationVerdict(citation, r) for r in right),
    )


def read(example: Example, answer: str, rules: Rules = "alce") -> Answer:
    return example.read(answer, load_splitter(), rules)


def gold(*hits: bool) -> Judgement:
    return Judgement((), hits)


@pytest.mark.parametrize(
    ("example", "answer", "judgement", "expected"),
    [
        (
            ASQA,
            "s",
            Judgement((verdict(True, True, False), verdict(False, False), verdict(False)), ()),
            {"citation_rec": 100 / 3, "citation_prec": 100 / 3},
        ),
        (ASQA, "s", Judgement((verdict(False),), ()), {"citation_rec": 0, "citation_prec": 0}),
        # An answer without statements is left out of the citation scores.
        (ASQA, "", Judgement((), ()), {}),
        (ASQA, "", gold(True, True, False), {"str_em": 200 / 3, "str_hit": 0}),
        (ASQA, "", gold(True), {"str_em": 100, "str_hit": 100}),
        (ELI5, "", gold(True, False), {"claims_nli": 50}),
        # The list has three of seven answers in four items, one of which is wrong.
        (
            QAMPARI,
            "b, CC [1], d, x, ,",
            gold(True, True, True, False, False, False, False),
            {
                "num_preds": 4,
                "qampari_prec": 75,
                "qampari_rec": 300 / 7,
                "qampari_rec_top5": 60,
                "qampari_f1": 2 * 75 * (300 / 7) / (75 + 300 / 7),
                "qampari_f1_top5": 2 * 75 * 60 / 135,
            },
        ),
        (QAMPARI, "", gold(False), NOTHING_RIGHT),
    ],
)
def test_scores_that_follow_from_a_judgement(
    example: Example, answer: str, judgement: Judgement, expected: dict[str, float]
):
    assert judged_scores(example, read(example, answer), judgement) == pytest.approx(expected)
    if not (judgement.statements or judgement.gold):
        # By the sane rules an answer without statements scores 0.
        none = {"citation_rec": 0, "citation_prec": 0}
        assert judged_scores(example, read(example, answer, "sane"), judgement) == none


@pytest.mark.parametrize(
    ("example", "answer", "metrics", "expected"),
    [
        # Without its citation, three of four words in common with the better of two references.
        (ASQA, "a b [1] c e", METRICS, {"length": 4, "rougeLsum": 75, "copied": 0}),
        (ASQA, "a b", ["length"], {"length": 2}),
        (ASQA, "a b", [], {}),
        # No ROUGE of lists and without references.
        (QAMPARI, "b", METRICS, {"length": 1}),
        (replace(ELI5, docs=DOCS), "[1][2]", METRICS, {"length": 0}),
        # Of four statements, whatever they cite, one has other words and one goes on in the next
        # document; a word is not the beginning of another.
        (
            replace(ELI5, docs=DOCS),
            "The mill, closed [2]. It closed [1]. In 1931. It was 19.",
            ("copied",),
            {"copied": 50},
        ),
    ],
)
def test_scores_of_the_text(
    example: Example, answer: str, metrics: list[str], expected: dict[str, float]
):
    found = text_scores([example], [read(example, answer)], load_splitter(), metrics)
    assert found == [pytest.approx(expected)]


def test_what_an_answer_has_of_each_thing():
    judgement = Judgement((verdict(True, True), verdict(True, True, False)), gold(*[True] * 7).gold)
    counts = {"statements": 2, "citations": 3, "gold": 7, "gold_top5": 5, "items": 2}
    assert unit_counts(QAMPARI, read(QAMPARI, "b [1], c [2][3]"), judgement) == counts
