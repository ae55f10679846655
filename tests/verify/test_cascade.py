"""Verifiers in a row: who decides what, and where thresholds come from."""

import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.verify.base import Pair
from citepipe.verify.cascade import Cascade, Level, band, calibrated
from citepipe.verify.load import load_verifier
from tests.test_cli import Captured, _noticed, fails, printed

__all__ = ["_noticed"]


class Sure:
    """Support is the number that a pair's hypothesis says; bounds leave some undecided."""

    def __init__(self, low: float = 0.5, high: float = 0.5) -> None:
        self.name, self.bounds = "sure", (low, high)
        self.received: list[str] = []

    def supports(self, pairs: Any) -> Any:
        yield [(pair, float(pair.hypothesis)) for pair in pairs]

    def verdicts(self, pairs: Any) -> list[bool | None]:
        low, high = self.bounds
        self.received += [pair.hypothesis for pair in pairs]
        numbers = [float(pair.hypothesis) for pair in pairs]
        return [None if low < x <= high else x > high for x in numbers]

    def entails(self, pairs: Any) -> list[bool]:
        return list(map(bool, self.verdicts(pairs)))


def pairs_of(*numbers: float) -> list[Pair]:
    return [Pair("", str(number)) for number in numbers]


def test_each_level_decides_what_it_is_sure_of():
    """0.9 is accepted by the first; of the rest 0.8 and 0.1 by the second; 0.6 and 0.3 are left."""
    first, second, third = Sure(0.85, 0.85), Sure(0.2, 0.7), Sure()
    cascade = Cascade([Level(first, False), Level(second, True), Level(third, False)])
    pairs = pairs_of(0.9, 0.8, 0.6, 0.3, 0.1, 0.3)
    decided = [(True, 0), (True, 1), (True, 2), (False, 2), (False, 1), (False, 2)]
    assert cascade.decided(pairs) == decided
    assert second.received == ["0.8", "0.6", "0.3", "0.1"]
    assert third.received == ["0.6", "0.3"]
    accounts = [level.account() for level in cascade.levels]
    assert all(account.pop("seconds") >= 0 for account in accounts)
    assert [list(account.values()) for account in accounts] == [
        ["sure", 5, 1, 0],
        ["sure", 4, 1, 1],
        ["sure", 2, 1, 1],
    ]
    assert cascade.entails(pairs_of(0.9)) == [True]


def test_what_the_last_level_supports_in_part_stays_so():
    """What another level leaves in the middle goes on, whether it has a band or not."""

    class Grades(Sure):
        graded = True

    for has_band in (True, False):
        first = Level(Sure(0.2, 0.7), has_band)
        cascade = Cascade([first, Level(Grades(0.35, 0.65), False)])
        assert cascade.graded
        # The last is not entailed: by a band of the first, or by the second.
        assert cascade.verdicts(pairs_of(0.8, 0.66, 0.6, 0.3, 0.1)) == [
            *(True, True, None, False, False)
        ]
        assert cascade.entails(pairs_of(0.6)) == [False]


def test_a_band_is_as_narrow_as_the_error_allows():
    """Of n pairs without an error at most a tenth are wrong if 0.9^n is at most 0.05: from 29 on;
    with one error 0.9^n + n * 0.1 * 0.9^(n-1): from 46 on. Of 11 at most half are with two, as
    1 + 11 + 55 is at most a twentieth of 2^11; 1 + 10 + 45 is more than that of 2^10."""
    low, high = [n / 100 for n in range(29)], [0.5 + n / 100 for n in range(29)]
    labels = [False] * 29 + [True] * 29
    assert band(low + high, labels, 0.1) == pytest.approx((0.39, 0.39))
    assert band(low[1:] + high, labels[1:], 0.1) == pytest.approx((0.0, 0.39))
    assert band(low + high[1:], labels[:-1], 0.1) == pytest.approx((0.395, 1.0))
    several = [0.5 + n / 100 for n in range(46)]
    assert band(several, [True] * 45 + [False], 0.1) == pytest.approx((0.0, 0.25))
    assert band(several[1:], [True] * 44 + [False], 0.1) == (0.0, 1.0)
    # Equal supports are on one side.
    assert band([0.5] * 60, [True] * 59 + [False], 0.1) == (0.0, 0.25)
    assert band([0.5] * 2, [True, False], 0.1) == (0.0, 1.0)
    assert band([0.5] * 11, [True] * 9 + [False] * 2, 0.5) == (0.0, 0.25)
    assert band([0.5] * 10, [True] * 8 + [False] * 2, 0.5) == (0.0, 1.0)


def test_levels_are_calibrated_on_what_is_left_for_them(capsys: Captured):
    cascade = Cascade([Level(Sure(0.75, 0.75), False), Level(Sure(), False)])
    low, high = (n / 100 for n in range(29)), (0.5 + n / 100 for n in range(29))
    pairs = pairs_of(*low, *high, 0.3, 0.4)
    labels = [False] * 29 + [True] * 29 + [True, False]
    spec = calibrated(cascade, ["a/b?dtype=4bit&threshold=0.5", "c/d"], pairs, labels, 0.1)
    assert spec == "a/b?dtype=4bit&threshold=0.2900-0.4500>c/d"
    said = "above 0.4500 0 of 29 pairs are unsupported, up to 0.2900 0 of 29 supported: on either"
    assert said in capsys.readouterr().err


def test_a_cascade_is_a_spec_and_the_command_accounts_for_its_levels(
    tmp_path: Path, capsys: Captured
):
    spec = "lexical>tests.scoring.test_agreement:Contained"
    verifier: Any = load_verifier(spec)
    assert verifier.name == "lexical>contained"
    assert verifier.identity == f"{verifier.levels[0].verifier.identity} > contained"
    path = tmp_path / "pairs.jsonl"
    premise = "The mill is old."
    claims = [(premise, 1), ("It has age.", 1), ("The mill is new.", 0), ("It is small.", 0)]
    rows = [{"doc": premise, "claim": claim, "label": label} for claim, label in claims]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = json.loads(printed(capsys, "judges", path, "--verifier", spec, "--json", "-"))
    judge = found["judges"][spec]
    assert judge["decisions"] == [True, True, False, True]
    first, second = judge["levels"]
    assert (first["pairs"], first["accepted"], first["wrongly accepted"]) == (4, 1, 0)
    assert (second["pairs"], second["accepted"], second["wrongly accepted"]) == (3, 2, 1)
    assert "verifier contained, pairs 3, accepted 2, refused 1, seconds" in printed(
        capsys, "judges", path, "--verifier", spec
    )
    assert "expected a cascade" in fails(capsys, "judges", path, "--calibrate", "0.1")
    with pytest.raises(InputError, match="verifier '': expected"):
        load_verifier("lexical>")
