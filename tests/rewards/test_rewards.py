import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citepipe.data.example import Document, Example, QAPair
from citepipe.data.files import read_answers
from citepipe.generate.text import Detokenizer
from citepipe.options import RewardOptions
from citepipe.rewards import Reward, Rewarder, place, reward_file, standing, total
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier
from tests.generate.tiny_tokenizers import KINDS, make_tokenizer
from tests.text.odd_texts import ODD, TEXTS

DOCS = (
    Document("Silver River", "Silver River was directed by Anna Berg."),
    Document("Golden Door", "Golden Door was directed by Otto Lind."),
)
GOLD = (QAPair("", ("Anna",)), QAPair("", ("Eve",)))
ASQA = Example("1", "asqa", "Who directed what?", DOCS, qa_pairs=GOLD)
FILMS = tuple((name,) for name in ("Silver River", "B", "C", "D", "E", "F", "G"))
LIST = Example("2", "qampari", "Which films were directed by Anna Berg?", DOCS, answers=FILMS)


class Counting:
    """Decides on every pair as if by chance, and always the same; keeps what it received."""

    name = identity = "counting"

    def __init__(self) -> None:
        self.received: list[Pair] = []

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        self.received += pairs
        return [zlib.crc32(repr(pair).encode()) % 2 == 0 for pair in pairs]


def rewards(example: Example, answer: str, **options: float) -> list[Reward]:
    return Rewarder("lexical", RewardOptions(**options)).spans([example], [answer])[0]


def test_rewards_of_sentences_stand_on_the_raw_answer():
    answer = " Silver River was directed by Anna Berg [1][2]. Nobody knows.\nIt is more"
    assert rewards(ASQA, answer) == [
        Reward("citation_recall", answer.index("]."[1]), 0.2),
        Reward("citation_precision", answer.index("[1]") + 2, 0.2),
        Reward("citation_precision", answer.index("[2]") + 2, -0.2),
        Reward("citation_recall", answer.index("\n") - 1, -0.2),
        Reward("citation_recall", len(answer), -0.2),
        Reward("correctness", len(answer), 0.2),
        Reward("correctness", len(answer), -0.2),
    ]


def test_a_statement_closes_with_the_citations_behind_its_stop_that_count():
    answer = f"Silver River was directed by Anna Berg. [1] Nobody knows.{' [2]' * 4}"
    assert [(r.component, r.char) for r in rewards(ASQA, answer, correctness=0)] == [
        ("citation_recall", answer.index("]")),
        ("citation_precision", answer.index("]")),
        # Three of four count, the fourth earns nothing.
        ("citation_recall", len(answer) - 5),
        *(("citation_precision", len(answer) - 5 - back) for back in (8, 4, 0)),
    ]


def test_rewards_of_items_stand_on_their_commas():
    answer = " Silver River [1], Golden Door [2]."
    found = rewards(LIST, answer)
    assert found[0] == Reward("citation_recall", answer.index(","), 0.2)
    assert found[2] == Reward("citation_recall", answer.index("."), -0.2)
    # One hit, and misses only up to five expected answers although seven exist.
    hit, miss = (Reward("correctness", len(answer), value) for value in (0.2, -0.2))
    assert found[4:] == [hit, miss, miss, miss, miss]
    # All hits count.
    assert total(rewards(LIST, "Silver River, B, C, D, E, F"))["correctness"] == pytest.approx(1.2)


def test_a_citation_without_a_statement_earns_nothing():
    """Neither bare titles nor names or a bare citation, as sentences or as items."""
    for answer in (
        "Silver River [1].",
        "Silver River Golden Door [1][2].",
        "Anna Berg [1].",
        "[1]",
    ):
        sums = total(rewards(ASQA, answer))
        assert sums["citation_recall"] == -0.2
        assert sums["citation_precision"] < 0
    sums = total(rewards(LIST, "[1], [1], film [1], Anna Berg [1]"))
    assert sums["citation_recall"] == sums["citation_precision"] == pytest.approx(-0.8)


def test_components_have_sizes_and_an_empty_answer_misses_everything():
    assert rewards(ASQA, "", correctness=1) == [Reward("correctness", 0, -1.0)] * 2
    answer = "Silver River was directed by Anna Berg [1]."
    found = rewards(ASQA, answer, citation_recall=0, citation_precision=0.5)
    assert [(r.component, r.value) for r in found] == [
        ("citation_precision", 0.5),
        ("correctness", 0.2),
        ("correctness", -0.2),
    ]


def test_an_answer_is_rewarded_for_declining_where_no_document_answers():
    refusal = "The documents do not say."

    def values(example: Example, answer: str, **more: float) -> list[tuple[str, int, float]]:
        found = rewards(example, answer, refusal=0.3, **more)
        return [(r.component, r.char, r.value) for r in found]

    # Anna is in the documents.
    wrong, missed = ("refusal", len(refusal), -0.3), ("correctness", len(refusal), -0.2)
    assert values(ASQA, refusal) == [missed, missed, wrong]
    right = ("refusal", len(refusal), 0.3)
    assert values(replace(ASQA, qa_pairs=GOLD[1:]), refusal) == [right]
    unknown = replace(ASQA, qa_pairs=())
    assert values(unknown, refusal) == [("refusal", len(refusal), 0.0)]
    answer = "Anna [1]."
    assert values(ASQA, answer, citation_recall=0, citation_precision=0, correctness=0) == [
        ("refusal", len(answer), 0.3)
    ]
    # Unless it is asked for, it is a claim without citation, so that a policy cannot hide in it.
    claimed = ("citation_recall", len(refusal) - 1, -0.2)
    assert rewards(ASQA, refusal) == [claimed, missed, missed]


def test_the_rewarder_remembers_what_was_decided():
    """Partial answers grow; the verifier receives only what is new in them."""
    verifier = Counting()
    rewarder = Rewarder(verifier, RewardOptions())
    begun, grown = "Silver River is old [1].", "Silver River is old [1]. It is long [2]."
    first = rewarder.reward([ASQA], [begun])
    rewarder.reward([ASQA, ASQA], [begun, grown])
    assert [pair.hypothesis for pair in verifier.received] == [
        "Silver River is old.",
        "It is long.",
    ]
    assert rewarder.pairs == 2
    assert rewarder.reward([ASQA], [begun]) == first


@ODD
@given(TEXTS, st.sampled_from([ASQA, LIST]))
def test_every_reward_stands_on_a_character_of_the_answer_or_its_end(answer: str, example: Example):
    (found,) = Rewarder(Counting(), RewardOptions()).spans([example], [answer])
    assert all(0 <= reward.char <= len(answer) for reward in found)
    count = Counter(reward.component for reward in found)
    statements = example.read(answer, load_splitter()).statements
    assert count["citation_recall"] == len(statements)
    assert count["citation_precision"] == sum(min(len(s.citations), 3) for s in statements)
    ends = {citation.end for s in statements for citation in s.citations}
    placed = {reward.char + 1 for reward in found if reward.component == "citation_precision"}
    assert placed <= ends
    assert sum(total(found).values()) == pytest.approx(sum(r.value for r in found), abs=1e-9)


# -- on tokens

PARTS = (
    "Silver River was directed by Anna Berg",
    "Golden Door is old",
    "Otto Lind",
    "Eve",
    "It is",
)
CITED = st.lists(st.sampled_from([" [1]", "[1]", "[2]", " [7]"]), max_size=3).map("".join)
STATEMENTS = st.lists(st.tuples(st.sampled_from(PARTS), CITED).map("".join), max_size=5)


@ODD
@given(STATEMENTS, st.sampled_from([ASQA, LIST]), st.sampled_from(["", ".", "!", ","]))
def test_stopping_anywhere_returns_what_the_stopped_answer_is_worth(
    statements: list[str], example: Example, close: str
):
    """What tokens before a stop have earned does not depend on whether the answer stops there; the
    end of sequence earns all the rest. The citations of a statement that is not closed yet are the
    exception: they are judged with what the statement says in the end."""
    answer = (", " if example is LIST else ". ").join(statements) + close
    rewarder = Rewarder(Counting(), RewardOptions(correctness=0.3))
    words = [found.span() for found in re.finditer(r" ?(?:\w+|\W)", answer)]
    stops = [0, *(end for _, end in words)]
    found = rewarder.spans([example] * len(stops), [answer[:stop] for stop in stops])
    whole = place(found[-1], [*words, (len(answer), len(answer))])
    for count, (stop, own) in enumerate(zip(stops, found, strict=True)):
        closing = [r.char for r in own if r.component == "citation_recall"]
        closed = max((char + 1 for char in closing if char < stop), default=0)
        tokens = [*words[:count], (stop, stop)]
        placed = place(own, tokens)
        earned = [value for value, (_, end) in zip(placed, tokens, strict=True) if end <= closed]
        assert earned[:count] == pytest.approx(whole[: len(earned[:count])])
        still_open = sum(
            reward.value
            for reward in own
            if reward.component == "citation_precision" and reward.char >= closed
        )
        stopping = sum(r.value for r in own) - sum(earned[:count]) - still_open
        assert placed[-1] == pytest.approx(stopping)
        misses_and_hits = sum(r.value for r in own if r.component == "correctness")
        if closed == stop > 0:
            assert placed[-1] == pytest.approx(misses_and_hits)


# "Par" "is" " [" "1" "]" ".", and the end of sequence.
OFFSETS = [(0, 3), (3, 5), (5, 7), (7, 8), (8, 9), (9, 10), (10, 10)]


def at(char: int, value: float = 1.0) -> Reward:
    return Reward("correctness", char, value)


@pytest.mark.parametrize(
    ("found", "offsets", "expected"),
    [
        # Each on the token that wrote its character.
        ([at(8), at(9, 2.0), at(4, -1.0)], OFFSETS, [0, -1, 0, 0, 1, 2, 0]),
        # Two on one token add up.
        ([at(5), at(6, 0.5)], OFFSETS, [0, 0, 1.5, 0, 0, 0, 0]),
        # The end of the answer is the last token: the end of sequence, or where it was cut off.
        ([at(10)], OFFSETS, [0, 0, 0, 0, 0, 0, 1]),
        ([at(10)], OFFSETS[:-1], [0, 0, 0, 0, 0, 1]),
        # A character that no token wrote counts as of the token before, else of the first.
        ([at(3)], [(0, 2), (4, 6)], [1, 0]),
        ([at(0)], [(2, 4), (4, 6)], [1, 0]),
        # The bytes of one character are written by the last of them.
        ([at(1)], [(0, 1), (1, 1), (1, 1), (1, 2), (2, 3)], [0, 0, 0, 1, 0]),
        # No text, and no tokens.
        ([at(0)], [(0, 0), (0, 0)], [0, 1]),
        ([at(0)], [(0, 0)], [1]),
        ([at(0)], [], []),
    ],
)
def test_where_rewards_are_placed(
    found: list[Reward], offsets: list[tuple[int, int]], expected: list[float]
):
    assert place(found, offsets) == expected
    # The sum on the last token.
    whole = [*[0] * (len(offsets) - 1), sum(expected)][: len(offsets)]
    assert place(found, offsets, "holistic") == whole


def test_where_rewards_stand_is_told_by_token_and_component():
    own = [Reward("a", 1, 0.2), Reward("b", 1, -0.1), Reward("b", 4, 0.1), Reward("b", 4, 0.2)]
    offsets = [(0, 2), (2, 4), (4, 4)]
    assert standing(own, offsets) == [(0, 2, {"a": 0.2, "b": -0.1}), (4, 4, {"b": 0.3})]
    assert standing(own, offsets, "holistic") == [(4, 4, {"a": 0.2, "b": 0.2})]


@ODD
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 70), st.floats(-3, 3)), max_size=20),
)
def test_no_reward_is_lost(lengths: list[int], values: list[tuple[int, float]]):
    ends = list(itertools.accumulate(lengths, initial=0))
    offsets = list(itertools.pairwise(ends))
    found = [at(char, value) for char, value in values]
    fine, holistic = place(found, offsets), place(found, offsets, "holistic")
    assert sum(fine) == pytest.approx(sum(value for _, value in values), abs=1e-9)
    assert sum(holistic) == pytest.approx(sum(fine), abs=1e-9)
    if ends[-1]:
        silent = [value for value, length in zip(fine, lengths, strict=True) if not length]
        assert not any(silent[: -1 if not lengths[-1] else None])


@ODD
@given(st.sampled_from(KINDS), st.data())
def test_each_reward_is_on_the_sampled_token_that_wrote_its_character(
    kind: str, data: st.DataObject
):
    tokenizer = make_tokenizer(kind)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    text, offsets = Detokenizer(tokenizer).text_and_offsets([*ids, tokenizer.eos_token_id])
    for char in range(len(text)):
        (token,) = [i for i, value in enumerate(place([at(char)], offsets)) if value]
        assert offsets[token][0] <= char < offsets[token][1]


# -- of a file


def test_a_file_of_rewards_has_every_verdict_and_every_reward(tmp_path: Path):
    row = {
        "dataset": "asqa",
        "question": "Where?",
        "docs": [{"title": "Oslo", "text": "Oslo is big and lies in Norway."}],
        "qa_pairs": [{"short_answers": ["Rome"]}, {"short_answers": ["Bonn"]}],
        "output": " Oslo lies in Norway [1]. Or Rome.",
    }
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([row]))
    options = RewardOptions(correctness=0.5)
    result = reward_file(read_answers(path, None), load_verifier("lexical"), options)
    own = result["per_example"][0]
    assert [(s["span"], s["cited"], s["supported"]) for s in own["statements"]] == [
        ([1, 25], [1], True),
        ([26, 34], [], False),
    ]
    assert [(c["span"], c["right"]) for c in own["citations"]] == [([21, 24], True)]
    assert own["rewards"][0] == {"component": "citation_recall", "char": 24, "value": 0.2}
    assert [(r["char"], r["value"]) for r in own["rewards"][1:]] == [
        (23, 0.2),
        (33, -0.2),
        (34, 0.5),
        (34, -0.5),
    ]
    assert result["means"] == own["totals"]
    assert own["totals"] == pytest.approx(
        {"citation_recall": 0, "citation_precision": 0.2, "correctness": 0, "total": 0.2}
    )
    assert result["provenance"]["options"]["correctness"] == 0.5
    assert result["provenance"]["identity"] == "lexical 5"
