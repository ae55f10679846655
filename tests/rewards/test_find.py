import zlib
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citepipe.data.example import Document, Example, QAPair
from citepipe.options import RewardOptions
from citepipe.rewards.answers import Rewarder, reward_answers
from citepipe.rewards.find import Reward, total
from citepipe.text.normalize import clean_output
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import split_answer
from citepipe.verify.base import Pair
from citepipe.verify.lexical import LexicalVerifier
from tests.text.odd_texts import ODD, TEXTS

DOCS = (
    Document("Silver River", "Silver River was directed by Anna Berg."),
    Document("Golden Door", "Golden Door was directed by Otto Lind."),
)
ASQA = Example(
    "1", "asqa", "Who directed what?", DOCS, qa_pairs=(QAPair("", ("Anna",)), QAPair("", ("Eve",)))
)
LIST = Example(
    "2",
    "qampari",
    "Which films were directed by Anna Berg?",
    DOCS,
    answers=tuple((name,) for name in ("Silver River", "B", "C", "D", "E", "F", "G")),
)


class Hash:
    """Decides on every pair as if by chance, and always the same."""

    name = identity = "hash"
    question_first = False

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        return [zlib.crc32(repr(pair).encode()) % 2 == 0 for pair in pairs]


def rewards(example: Example, answer: str, **options: float) -> list[Reward]:
    return reward_answers(
        [example], [answer], LexicalVerifier(), load_splitter(), RewardOptions(**options)
    )[0]


def test_rewards_of_sentences_stand_on_the_raw_answer():
    answer = " Silver River was directed by Anna Berg [1][2]. Nobody knows.\nmore"
    assert rewards(ASQA, answer) == [
        Reward("citation_recall", answer.index("]."[1]), 0.2),
        Reward("citation_precision", answer.index("[1]") + 2, 0.2),
        Reward("citation_precision", answer.index("[2]") + 2, -0.2),
        Reward("citation_recall", answer.index("\n") - 1, -0.2),
        Reward("correctness", answer.index("\n") - 1, 0.2),
        Reward("correctness", answer.index("\n") - 1, -0.2),
    ]


def test_rewards_of_items_stand_on_their_commas():
    answer = " Silver River [1], Golden Door [2]."
    found = rewards(LIST, answer)
    assert found[0] == Reward("citation_recall", answer.index(","), 0.2)
    assert found[2] == Reward("citation_recall", answer.rindex("]"), -0.2)
    # One hit, and misses only up to five expected answers although seven exist.
    correctness = [r.value for r in found if r.component == "correctness"]
    assert correctness == [0.2, -0.2, -0.2, -0.2, -0.2]
    assert all(r.char == len(answer) - 1 for r in found if r.component == "correctness")


def test_all_hits_of_a_list_count():
    found = rewards(LIST, "Silver River, B, C, D, E, F")
    assert [r.value for r in found if r.component == "correctness"] == [0.2] * 6


@pytest.mark.parametrize(
    "answer", ["Silver River [1].", "Silver River Golden Door [1][2].", "Anna Berg [1].", " [1]"]
)
def test_a_bare_title_with_a_citation_earns_nothing(answer: str):
    sums = total(rewards(ASQA, answer))
    assert sums["citation_recall"] < 0
    assert sums["citation_precision"] < 0


def test_a_citation_without_an_item_earns_nothing():
    sums = total(rewards(LIST, "[1], [1], film [1], Anna Berg [1]"))
    assert sums["citation_recall"] == pytest.approx(-0.8)
    assert sums["citation_precision"] == pytest.approx(-0.8)


def test_components_have_sizes_and_can_be_switched_off():
    found = rewards(
        ASQA, "Silver River was directed by Anna Berg [1].", citation_recall=0, correctness=1
    )
    assert [(r.component, r.value) for r in found] == [
        ("citation_precision", 0.2),
        ("correctness", 1.0),
        ("correctness", -1.0),
    ]


def test_an_empty_answer_misses_everything():
    assert rewards(ASQA, "") == [Reward("correctness", 0, -0.2)] * 2


def test_rewarder_sums_what_it_finds():
    rewarder = Rewarder("lexical", RewardOptions(), None)
    answer = "Silver River was directed by Anna Berg [1]."
    assert rewarder.spans([ASQA], [answer])[0] == rewards(ASQA, answer)
    sums = rewarder.reward([ASQA, ASQA], [answer, ""])
    assert sums[0] == {"citation_recall": 0.2, "citation_precision": 0.2, "correctness": 0.0}
    assert sums[1] == {"citation_recall": 0.0, "citation_precision": 0.0, "correctness": -0.4}


@ODD
@given(TEXTS, st.sampled_from([ASQA, LIST]))
def test_every_reward_stands_on_a_character_of_the_answer(answer: str, example: Example):
    splitter = load_splitter()
    (found,) = reward_answers([example], [answer], Hash(), splitter, RewardOptions())
    assert all(0 <= reward.char < max(len(answer), 1) for reward in found)
    count = Counter(reward.component for reward in found)
    statements = split_answer(clean_output(answer), example.dataset, splitter)
    assert count["citation_recall"] == len(statements)
    assert count["citation_precision"] == sum(min(len(s.citations), 3) for s in statements)
    for reward in found:
        if reward.component == "citation_precision":
            assert answer[reward.char] == "]" or answer[reward.char].isdecimal()
    assert sum(total(found).values()) == pytest.approx(sum(r.value for r in found), abs=1e-9)
