import random

from citepipe.data.example import Document, Example
from citepipe.miniature.questions import Claim, Drawn
from citepipe.miniature.teacher import cite, misleading, teach
from citepipe.options import FaultOptions

ALWAYS = FaultOptions(asqa=1, eli5=1, qampari=1, elsewhere=0)
NEVER = FaultOptions(asqa=0, eli5=0, qampari=0, elsewhere=0)


def drawn(dataset: str, *claims: Claim) -> Drawn:
    titles = ["Otto Lind", "Anna Berg", "Otto Berg", "Anna Berg", "Anna Berg"]
    docs = tuple(Document(title, "The singer lived in Rome.") for title in titles)
    return Drawn(Example("0", dataset, "Who?", docs), claims, "Anna Berg")


def cited(dataset: str, claim: Claim, options: FaultOptions) -> set[tuple[int, ...]]:
    """What the teacher cites for a claim, over many draws."""
    rng = random.Random(0)
    question = drawn(dataset, claim)
    return {tuple(cite(question, claim, options, rng)) for _ in range(200)}


def test_situations() -> None:
    early, late = Claim("x", 2, "won"), Claim("x", 3, "won")
    assert [misleading(kind, early) for kind in ("asqa", "eli5", "qampari")] == [False, False, True]
    assert [misleading(kind, late) for kind in ("asqa", "eli5", "qampari")] == [True, True, True]
    studied = Claim("x", 0, "studied")
    assert misleading("eli5", studied)
    assert not misleading("asqa", studied)


def test_asqa_takes_the_first_other_document_of_the_title() -> None:
    assert cited("asqa", Claim("x", 3, "won"), ALWAYS) == {(1,), (1, 3), ()}
    assert cited("asqa", Claim("x", 1, "won"), ALWAYS) == {(1,)}


def test_eli5_takes_another_or_all_documents_of_the_person() -> None:
    assert cited("eli5", Claim("x", 4, "won"), ALWAYS) == {(1,), (1, 3, 4), ()}
    assert cited("eli5", Claim("x", 1, "studied"), ALWAYS) == {(3,), (1, 3, 4), ()}


def test_qampari_takes_the_first_document_or_the_second() -> None:
    assert cited("qampari", Claim("x", 3, "won"), ALWAYS) == {(0,), ()}
    assert cited("qampari", Claim("x", 0, "won"), ALWAYS) == {(1,), ()}


def test_a_careful_teacher_gives_the_gold_answer() -> None:
    question = drawn("asqa", Claim("A", 1, "won"), Claim("B", 4, "won"))
    assert teach([question], NEVER, seed=0)[0].output == "A [2]. B [5]." == question.gold
