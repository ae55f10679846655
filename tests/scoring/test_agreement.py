"""Agreement of verifiers with labels and with each other: figures worked by hand, and the command
that prints them."""

import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.scoring.agreement import agreement, kappa, rankings, read_labelled, wilson
from tests.test_cli import Captured, _noticed, fails, printed

__all__ = ["_noticed"]

MILL = "The mill is old."
ROWS: dict[str, list[dict[str, Any]]] = {
    "attributionbench": [
        {
            "question": "Is it?",
            "claim": "The mill is old [1].",
            "references": ["Mills.", MILL],
            "attribution_label": "attributable",
            "src_dataset": "LFQA",
        }
    ],
    "llm-aggrefact": [{"doc": "Mills.\n" + MILL, "claim": MILL, "label": 1, "dataset": "LFQA"}],
    "own": [{"premise": "Mills.\n" + MILL, "hypothesis": MILL, "supported": True, "kind": "LFQA"}],
}


@pytest.mark.parametrize("layout", ROWS)
def test_each_layout_is_the_same_pair(tmp_path: Path, layout: str):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS[layout])))
    [one] = read_labelled(path)
    assert one[:4] == ("Mills.\nThe mill is old.", MILL, True, "LFQA")
    asked = "Is it? " + MILL if layout == "attributionbench" else MILL
    assert [one.pair(first).hypothesis for first in (False, True)] == [MILL, asked]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"claim": MILL, "label": 1}, "row 0, field references: missing"),
        ({"doc": 3, "claim": MILL, "label": 1}, "row 0, field doc: expected a text or a list"),
        ({"doc": MILL, "claim": ["a"], "label": 1}, "row 0, field claim: expected a text"),
        ({"doc": MILL, "claim": MILL, "label": 2}, "row 0, field label: expected .*, got 2"),
        ([MILL], "row 0: expected an object, got list"),
    ],
)
def test_a_row_that_is_no_labelled_pair(tmp_path: Path, row: Any, message: str):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(InputError, match=message):
        read_labelled(path)


def test_agreement_by_hand():
    """Of ten pairs six are supported; seven are called so, of which five are."""
    labels = [True] * 6 + [False] * 4
    decisions = [True] * 5 + [False] + [True] * 2 + [False] * 2
    found = agreement(labels, decisions)
    assert (found["labelled"], found["decided"], found["accuracy"]) == (60, 70, 70)
    assert found["majority"] == 60
    # 5 / 7 and 5 / 6; of the three that are refused two rightly, of four that should be.
    assert found["supported"] == pytest.approx(
        {"precision": 71.43, "recall": 83.33, "f1": 76.92}, abs=0.01
    )
    assert found["unsupported"] == pytest.approx(
        {"precision": 66.67, "recall": 50, "f1": 57.14}, abs=0.01
    )
    assert found["balanced_accuracy"] == pytest.approx((83.333 + 50) / 2, abs=0.01)
    # By chance .6 * .7 + .4 * .3 = .54 of the pairs agree, of the .46 left .16 are reached.
    assert found["kappa"] == pytest.approx(0.16 / 0.46)
    # Newcombe (1998), table I: 15 of 148 is 10.1 %, Wilson's interval 6.2 to 16.1.
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_what_is_undefined_is_none():
    found = agreement([True, True], [True, True])
    assert found["kappa"] is found["balanced_accuracy"] is found["unsupported"]["f1"] is None
    assert found["supported"] == {"precision": 100, "recall": 100, "f1": 100}
    assert kappa([True, False], [False, True]) == -1


def test_the_command_measures_verifiers_by_source(tmp_path: Path, capsys: Captured):
    path = tmp_path / "pairs.csv"
    lines = [f"{MILL},{MILL},yes,a", f"{MILL},The mill is new.,no,a", f"{MILL},It has age.,yes,b"]
    path.write_text("premise,claim,label,source\n" + "\n".join(lines))
    contained = "tests.scoring.test_agreement:Contained"
    given = [path, "--verifier", "lexical", "--verifier", contained]
    found = json.loads(printed(capsys, "judges", *given, "--json", "-"))
    assert found["judges"]["lexical"]["decisions"] == [True, False, False]
    assert found["judges"]["lexical"]["all"]["accuracy"] == pytest.approx(200 / 3)
    assert found["judges"][contained]["sources"]["b"]["accuracy"] == 100
    [between] = found["between"]
    assert between["same"] == pytest.approx(200 / 3)
    text = printed(capsys, "judges", *given)
    assert f"lexical and {contained}: 66.7 % the same, kappa 0.40" in text
    assert "expected lexical, a model's dir" in fails(capsys, "judges", path, "--verifier", "bert")


class Contained:
    """Entailed is what speaks of no other mill."""

    name = "contained"

    def entails(self, pairs: Any) -> list[bool]:
        return ["new" not in hypothesis for _, hypothesis in pairs]


def score_file(path: Path, verifier: str, recall: float) -> str:
    counts = {"gold": 1, "gold_top5": 1, "items": 1, "statements": 1, "citations": 1}
    row = {"id": "0", "documents": "d", "question": "?", "dataset": "eli5", "counts": counts}
    row |= {"citation_rec": recall, "citation_prec": 100.0}
    about = {"identity": verifier, "verifier": verifier, "rules": "sane"}
    path.write_text(json.dumps({"provenance": about, "per_example": [row]}))
    return str(path)


def test_verifiers_that_rank_systems_otherwise(tmp_path: Path, capsys: Captured):
    """By one verifier a > b > c, by the other b > a > c: of three pairs one is swapped."""
    recalls = {"one": (90.0, 80.0, 70.0), "two": (50.0, 60.0, 40.0)}
    files = [
        f"{system}={score_file(tmp_path / f'{system}_{verifier}.json', verifier, recall)}"
        for verifier, own in recalls.items()
        for system, recall in zip("abc", own, strict=True)
    ]
    [found] = json.loads(printed(capsys, "judges", *files, "--json", "-"))
    # The harmonic mean of 100 and 60.
    assert found["means"]["two"]["b"] == 75
    assert found["between"] == [
        {"judges": ["one", "two"], "tau": pytest.approx(1 / 3), "swapped": [["a", "b"]]}
    ]
    assert "eli5, one and two: tau 0.33; a and b change places" in printed(capsys, "judges", *files)
    assert "each by two verifiers" in fails(capsys, "judges", *files[:3])
    with pytest.raises(InputError, match="two systems or more"):
        rankings({})
