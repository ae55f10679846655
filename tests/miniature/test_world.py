import json
import random
import re
from itertools import chain
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples
from citepipe.miniature.language import (
    FILM_FIRST,
    FILM_SECOND,
    FIRST_NAMES,
    LAST_NAMES,
    PRIZE_FIRST,
    PRIZE_SECOND,
    Fact,
)
from citepipe.miniature.oracle import Oracle, load_oracle
from citepipe.miniature.world import (
    Claim,
    Drawn,
    build_world,
    cite,
    facts_of,
    teach,
    write_world,
)
from citepipe.options import FaultOptions, MiniatureOptions, WorldOptions
from citepipe.verify.base import Pair

Questions = dict[str, list[Drawn]]
SMALL = WorldOptions(train=40, dev=10, test=20, expertqa=10)


@pytest.fixture(scope="module")
def world() -> Questions:
    return build_world(SMALL, seed=3)


def test_same_seed_same_world(world: Questions) -> None:
    assert build_world(SMALL, seed=3) == world
    assert build_world(SMALL, seed=4) != world


def test_no_name_occurs_in_two_splits(world: Questions) -> None:
    pairs = ((FIRST_NAMES, LAST_NAMES), (FILM_FIRST, FILM_SECOND), (PRIZE_FIRST, PRIZE_SECOND))
    name = re.compile("|".join(f"(?:{'|'.join(a)}) (?:{'|'.join(b)})" for a, b in pairs))
    names = {
        split: {
            found
            for d in drawn
            for doc in d.example.docs
            for found in name.findall(f"{d.example.question} {doc.passage}")
        }
        for split, drawn in world.items()
    }
    assert len(names["test"]) > 20
    assert not names["train"] & names["dev"]
    assert not names["train"] & (names["test"] | names["expertqa"])
    assert not names["dev"] & (names["test"] | names["expertqa"])


def test_claims_are_entailed_by_the_oracle_from_their_documents_alone(
    world: Questions,
) -> None:
    oracle = Oracle({p: {Fact(*fact) for fact in facts} for p, facts in facts_of(world).items()})
    for drawn in chain.from_iterable(world.values()):
        assert len(drawn.claims) in (2, 3)
        passages = [doc.passage for doc in drawn.example.docs]
        for claim in drawn.claims:
            said = claim.text + "."
            if drawn.example.dataset == "qampari":
                said = f"{drawn.example.question} {claim.text}"
            decisions = oracle.entails([Pair(passage, said) for passage in passages])
            assert decisions == [place == claim.document for place in range(5)]


def test_answers_in_text() -> None:
    claims = (Claim("Silver River", 1, "directed"), Claim("Cold Night", 3, "directed"))
    listed = Drawn(Example("0", "qampari", "Which?", ()), claims, "Anna Berg")
    assert listed.answer() == "Silver River, Cold Night."
    assert listed.answer([[1], []]) == "Silver River [2], Cold Night."
    told = Drawn(Example("0", "eli5", "Who?", ()), claims, "Anna Berg")
    assert told.answer([[], [0, 2]]) == "Silver River. Cold Night [1][3]."


def test_files_hold_what_each_stage_needs(tmp_path: Path) -> None:
    line = write_world(MiniatureOptions(world=SMALL, seed=3), tmp_path)
    assert line.startswith("world: train 120, dev 30, test 60, expertqa 10, passages ")
    train = read_examples(tmp_path / "train.json")
    assert all(example.output is not None and "." in example.output for example in train)
    assert all(example.output is None for example in read_examples(tmp_path / "test.json"))
    oracle = load_oracle(tmp_path / "world.json")
    claimed = [example for example in train if example.dataset == "eli5"]
    assert all(
        all(oracle.entails([Pair("\n".join(d.passage for d in e.docs), c) for c in e.claims]))
        for e in claimed
    )


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


@pytest.mark.parametrize(
    ("dataset", "claim", "citations"),
    [
        # The first other document of the title.
        ("asqa", Claim("x", 3, "won"), {(1,), (1, 3), ()}),
        # A late document misleads, and in ELI5 a city: neither of them, the right one.
        ("asqa", Claim("x", 1, "studied"), {(1,)}),
        ("eli5", Claim("x", 2, "won"), {(2,)}),
        # Another or all documents of the person.
        ("eli5", Claim("x", 4, "won"), {(1,), (1, 3, 4), ()}),
        ("eli5", Claim("x", 1, "studied"), {(3,), (1, 3, 4), ()}),
        # The first document, or the second.
        ("qampari", Claim("x", 3, "won"), {(0,), ()}),
        ("qampari", Claim("x", 0, "won"), {(1,), ()}),
    ],
)
def test_a_misled_teacher_cites(
    dataset: str, claim: Claim, citations: set[tuple[int, ...]]
) -> None:
    assert cited(dataset, claim, ALWAYS) == citations


def test_a_careful_teacher_gives_the_gold_answer() -> None:
    question = drawn("asqa", Claim("A", 1, "won"), Claim("B", 4, "won"))
    assert teach([question], NEVER, seed=0)[0].output == "A [2]. B [5]."


FILM = "Title: Silver River\nSilver River starred Anna Berg in 1972."
OTHER = "Title: Silver River\nSilver River starred Otto Lind in 1990."
PERSON = "Title: Anna Berg\nAnna Berg studied in Oslo in 1941."
FACTS = {
    FILM: [["starred", "Silver River", "Anna Berg", year] for year in ("", "1972")],
    OTHER: [["starred", "Silver River", "Otto Lind", year] for year in ("", "1990")],
    PERSON: [["studied", "Anna Berg", "Oslo", year] for year in ("", "1962")],
}


@pytest.fixture
def oracle(tmp_path: Path) -> Oracle:
    path = tmp_path / "world.json"
    path.write_text(json.dumps(FACTS))
    return load_oracle(path)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "entailed"),
    [
        (FILM, "Silver River starred Anna Berg in 1972.", True),
        (FILM, "Anna Berg starred in Silver River in 1972.", True),
        (OTHER, "Silver River starred Anna Berg in 1972.", False),
        (FILM, "Silver River.", False),
        (FILM, "Silver River starred Anna Berg and", False),
        (FILM, "Anna Berg starred Silver River.", False),
        (PERSON, "Anna Berg studied in 1962.", False),
        (PERSON, "Anna Berg studied in Oslo and starred in Silver River.", False),
        (f"{PERSON}\n{FILM}", "Anna Berg studied in Oslo and starred in Silver River.", True),
        # The facts file is what counts, not the words of the passage.
        (PERSON, "Anna Berg studied in Oslo in 1962.", True),
        (FILM, "Which films had Anna Berg starred in? Silver River", True),
        (FILM, "Which films had Otto Lind directed? Silver River", False),
        (OTHER, "Which films had Otto Lind starred in? Silver River", True),
        ("Title: Silver River\nNobody knows.", "Anna Berg starred in Silver River.", False),
    ],
)
def test_passages(oracle: Oracle, premise: str, hypothesis: str, entailed: bool) -> None:
    assert oracle.entails([Pair(premise, hypothesis)]) == [entailed]


def test_claims_in_an_answer(oracle: Oracle) -> None:
    answer = "Silver River starred Anna Berg in 1972. Otto Lind lived in Rome."
    claims = ["Anna Berg starred in Silver River.", "Otto Lind lived in Rome.", "Otto Lind lived."]
    assert oracle.entails([Pair(answer, claim) for claim in claims]) == [True, True, False]


def test_identity_follows_the_facts() -> None:
    assert Oracle({FILM: set()}).identity != Oracle({OTHER: set()}).identity
    assert Oracle({FILM: set()}).identity == Oracle({FILM: frozenset()}).identity
