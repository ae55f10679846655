import re
from itertools import chain
from pathlib import Path

import pytest

from citepipe.data.example import Example
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
from citepipe.miniature.questions import Claim, Drawn
from citepipe.miniature.world import World, build_world, write_world
from citepipe.options import MiniatureOptions, WorldOptions
from citepipe.verify.base import Pair

SMALL = WorldOptions(train=40, dev=10, test=20, expertqa=10)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(SMALL, seed=3)


def test_sizes_and_datasets(world: World) -> None:
    assert {split: len(drawn) for split, drawn in world.splits.items()} == {
        "train": 120,
        "dev": 30,
        "test": 60,
        "expertqa": 10,
    }
    kinds = [d.example.dataset for d in world.splits["test"]]
    assert {kind: kinds.count(kind) for kind in kinds} == {"asqa": 20, "eli5": 20, "qampari": 20}
    assert all(d.example.dataset == "expertqa" for d in world.splits["expertqa"])


def test_same_seed_same_world(world: World) -> None:
    assert build_world(SMALL, seed=3) == world
    assert build_world(SMALL, seed=4) != world


def test_every_question_has_five_documents_of_which_two_or_three_answer(world: World) -> None:
    for drawn in chain.from_iterable(world.splits.values()):
        assert len(drawn.example.docs) == 5
        assert len({claim.document for claim in drawn.claims}) == len(drawn.claims)
        assert len(drawn.claims) in (2, 3)


def test_no_name_occurs_in_two_splits(world: World) -> None:
    pairs = ((FIRST_NAMES, LAST_NAMES), (FILM_FIRST, FILM_SECOND), (PRIZE_FIRST, PRIZE_SECOND))
    name = re.compile("|".join(f"(?:{'|'.join(a)}) (?:{'|'.join(b)})" for a, b in pairs))
    names = {
        split: {
            found
            for d in drawn
            for doc in d.example.docs
            for found in name.findall(f"{d.example.question} {doc.passage}")
        }
        for split, drawn in world.splits.items()
    }
    assert len(names["test"]) > 20
    assert not names["train"] & names["dev"]
    assert not names["train"] & (names["test"] | names["expertqa"])
    assert not names["dev"] & (names["test"] | names["expertqa"])


def test_gold_answer_is_what_the_oracle_entails_and_only_from_its_document(world: World) -> None:
    oracle = Oracle({p: {Fact(*fact) for fact in facts} for p, facts in world.facts.items()})
    for drawn in chain.from_iterable(world.splits.values()):
        passages = [doc.passage for doc in drawn.example.docs]
        for claim in drawn.claims:
            said = claim.text + "."
            if drawn.example.dataset == "qampari":
                said = f"{drawn.example.question} {claim.text}"
            decisions = oracle.entails([Pair(passage, said) for passage in passages])
            assert decisions == [place == claim.document for place in range(5)]


def test_expertqa_questions_are_like_no_others(world: World) -> None:
    def shape(question: str) -> str:
        return re.sub(r"[A-Z]\w+ [A-Z]\w+", "N", question)

    trained = {shape(d.example.question) for d in world.splits["train"]}
    assert not trained & {shape(d.example.question) for d in world.splits["expertqa"]}


def test_answers_in_text() -> None:
    claims = (Claim("Silver River", 1, "directed"), Claim("Cold Night", 3, "directed"))
    listed = Drawn(Example("0", "qampari", "Which?", ()), claims, "Anna Berg")
    assert listed.answer() == "Silver River, Cold Night."
    assert listed.gold == "Silver River [2], Cold Night [4]."
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
