import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from citepipe.data.files import read_answers
from citepipe.options import RewardOptions
from citepipe.rewards.files import reward_file
from citepipe.verify.base import Pair


class Oslo:
    """Entails what speaks of Oslo."""

    name = "oslo"

    def __init__(self) -> None:
        self.provenance = {"kind": "test"}

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        return ["Oslo" in hypothesis for _, hypothesis in pairs]


ANSWER = " It is Oslo [1][9]. Or Rome."


def rewarded(tmp_path: Path, **sizes: float) -> dict[str, object]:
    row = {
        "dataset": "asqa",
        "question": "Where?",
        "docs": [{"title": "Oslo", "text": "Oslo is big."}],
        "qa_pairs": [{"short_answers": ["Rome"]}, {"short_answers": ["Bonn"]}],
        "output": ANSWER.replace("[9]", ""),
    }
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([row]))
    file = read_answers(path, None)
    return reward_file(file, Oslo(), RewardOptions(**sizes))


def test_every_verdict_and_every_reward_has_its_place(tmp_path: Path):
    own = rewarded(tmp_path)["per_example"][0]
    assert [(s["span"], s["cited"], s["supported"]) for s in own["statements"]] == [
        ([1, 16], [1], True),
        ([17, 25], [], False),
    ]
    assert [(c["span"], c["right"]) for c in own["citations"]] == [([12, 15], True)]
    assert [tuple(reward.values()) for reward in own["rewards"]] == [
        ("citation_recall", 15, 0.2),
        ("citation_precision", 14, 0.2),
        ("citation_recall", 24, -0.2),
        ("correctness", 24, 0.2),
        ("correctness", 24, -0.2),
    ]
    assert own["totals"]["total"] == pytest.approx(0.2)


def test_components_are_weighed_and_switched_off_by_name(tmp_path: Path):
    result = rewarded(tmp_path, citation_recall=0, correctness=0.5)
    components = {reward["component"] for reward in result["per_example"][0]["rewards"]}
    assert components == {"citation_precision", "correctness"}
    assert result["means"] == {
        "citation_recall": 0,
        "citation_precision": 0.2,
        "correctness": 0,
        "total": 0.2,
    }
    assert result["provenance"]["options"]["correctness"] == 0.5
    assert result["provenance"]["kind"] == "test"
