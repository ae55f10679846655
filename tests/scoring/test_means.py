"""Means, intervals and differences against values worked out by hand."""

from typing import Any

import numpy as np
import pytest

from citepipe.scoring.means import Columns, columns, holm, intervals, paired, resampled_means

NOTHING = {"statements": 0, "citations": 0, "gold": 0, "gold_top5": 0, "items": 0}
ONE_EACH = dict.fromkeys(NOTHING, 1)


def scored(*scores: dict[str, float]) -> Columns:
    return columns(scores, [ONE_EACH] * len(scores), list(map(str, range(len(scores)))))


def difference(
    first: Columns | list[Columns],
    second: Columns | list[Columns],
    resamples: int,
    seed: int = 0,
    metric: str = "length",
) -> dict[str, Any]:
    sides = [[side] if isinstance(side, Columns) else side for side in (first, second)]
    return paired(sides[0], sides[1], resamples, seed)[metric].summary(0.95)


def lengths(*values: float) -> Columns:
    return scored(*({"length": value} for value in values))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # A mean is over the examples that have the metric.
        ([{"length": 4}, {"length": 8}, {"str_hit": 100}], {"length": 6, "str_hit": 100}),
        ([{"citation_rec": 100, "citation_prec": 0}, {"citation_rec": 100}], {"citation_f1": 0}),
        ([{"citation_rec": 0, "citation_prec": 0}], {"citation_f1": 0}),
        # The harmonic mean of the means 100 and 50.
        (
            [{"citation_rec": 100, "citation_prec": 75}, {"citation_prec": 25}],
            {"citation_f1": 200 / 3},
        ),
    ],
)
def test_means(scores: list[dict[str, float]], expected: dict[str, float]):
    means = scored(*scores).means()
    assert {name: means[name] for name in expected} == pytest.approx(expected)


def test_equal_weight_goes_to_statements_citations_items_and_answers():
    # One of one statement and one of four are supported: 2 of 5. Citations: 1 of 1 and 0 of 3.
    # Lists: 1 of 1 and 1 of 3 items; 1 of 2 and 1 of 8 answers, of five expected 1 and 1.
    names = ("citation_rec", "citation_prec", "str_em")
    names += ("qampari_prec", "qampari_rec", "qampari_rec_top5")
    values = [(100.0, 100.0, 50.0, 100.0, 50.0, 50.0), (25.0, 0.0, 100.0, 100 / 3, 12.5, 20.0)]
    scores = [dict(zip(names, own, strict=True)) for own in values]
    counts = [
        {"statements": 1, "citations": 1, "items": 1, "gold": 2, "gold_top5": 2},
        {"statements": 4, "citations": 3, "items": 3, "gold": 8, "gold_top5": 5},
    ]
    means = columns(scores, counts, ["a", "b"]).means()
    expected = dict(zip(names, (40, 25, (2 * 50 + 8 * 100) / 10, 50, 20, 200 / 7), strict=True))
    assert {name: means[f"{name}_eq_w"] for name in names} == pytest.approx(expected)
    assert means["qampari_f1_eq_w"] == pytest.approx(2 * 50 * 20 / 70)
    top = 2 * 50 * (200 / 7) / (50 + 200 / 7)
    assert means["qampari_f1_top_5_eq_w"] == pytest.approx(top)
    assert columns(scores, [NOTHING] * 2, ["a", "b"]).means()["citation_prec_eq_w"] == 0


def test_the_spread_of_resampled_means_is_the_standard_error():
    means = resampled_means([lengths(*[0.0] * 50, *[100.0] * 50)], 4000, seed=0)[0]["length"]
    assert means.mean() == pytest.approx(50, abs=0.5)
    assert means.std() == pytest.approx(5, abs=0.3)
    low, high = intervals(lengths(*[0.0] * 50, *[100.0] * 50), 4000, 0.95, seed=0)["length"]
    assert (low, high) == (pytest.approx(40.2, abs=1), pytest.approx(59.8, abs=1))


def test_scores_without_spread():
    assert intervals(lengths(3, 3, 3), 50, 0.95, seed=0) == {"length": [3, 3]}
    # Draws without the one score that there is do not count.
    assert intervals(scored({"length": 1.0}, {}, {}), 50, 0.95, seed=0) == {"length": [1, 1]}


def test_the_seed_decides():
    first, second = lengths(*range(20)), lengths(*range(19, -1, -1))
    found = [intervals(first, 150, 0.95, seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    compared = [difference(first, second, 150, seed) for seed in (1, 1, 2)]
    assert compared[0] == compared[1] != compared[2]


def test_rows_of_one_question_are_drawn_together():
    scores = [{"length": value} for value in (0.0, 0.0, 90.0)]
    own = columns(scores, [ONE_EACH] * 3, ["a", "b", "a"])
    assert own.means()["length"] == 30
    # Of two questions both, or one of them twice: (0 + 90) / 2, 0, or all three.
    means = resampled_means([own], 1000, seed=0)[0]["length"]
    assert sorted(set(means)) == [0, 30, 45]
    assert (means == 30).mean() == pytest.approx(1 / 2, abs=0.05)
    # Two ways to swap a question's rows at once, or none: with both swapped the difference is as
    # large, so that p is about 1/2.
    found = difference(own, columns([{"length": 0.0}] * 3, [ONE_EACH] * 3, ["a", "b", "a"]), 4000)
    assert (found["difference"], found["p"]) == (-30, 1)


def test_a_constant_difference_is_certain_in_size_and_as_rare_as_all_swaps_alike():
    found = difference(lengths(1, 2, 3), lengths(1, 2, 3), 99)
    assert found == {"a": 2, "b": 2, "difference": 0, "interval": [0, 0], "p": 1}
    # Of 2^4 ways to swap, the 2 that swap none or all give a difference of 1: p is about 1/8.
    found = difference(lengths(1, 2, 3, 9), lengths(2, 3, 4, 10), 8000)
    assert found["interval"] == [pytest.approx(1)] * 2
    assert found["difference"] == pytest.approx(1)
    assert found["p"] == pytest.approx(1 / 8, abs=0.015)


def test_of_several_seeds_the_mean_is_compared():
    # Two seeds against three, each a point better in every question.
    first, second = [lengths(1, 5), lengths(3, 7)], [lengths(2, 6), lengths(4, 8), lengths(3, 7)]
    found = difference(first, second, 4000)
    assert (found["a"], found["b"], found["difference"]) == (4, 5, 1)
    # Of 4 ways to swap, 2 give a difference of 1.
    assert found["p"] == pytest.approx(1 / 2, abs=0.03)
    # Seeds are drawn too. Less than 2.5 % of the draws, 1/27 x 1/4, have a difference of -1, only
    # the worst seed on the one side and the best on the other; with the next it is 1/27.
    assert found["interval"] == [pytest.approx(-2 / 3), pytest.approx(8 / 3)]


def test_pairing_sees_what_the_spread_of_each_would_hide():
    rng = np.random.default_rng(0)
    first = rng.normal(50, 30, 200)
    found = difference(lengths(*first), lengths(*(first + rng.normal(1, 2, 200))), 999)
    assert found["interval"][0] > 0
    assert found["p"] == 1 / 1000


def test_p_values_are_corrected_one_after_the_other():
    # 3 x .01; then the larger of that and 2 x .02; then of that and .03.
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_f1_is_resampled_as_the_harmonic_mean_of_resampled_means():
    first = scored(*[{"citation_rec": 100.0, "citation_prec": 100.0}] * 2)
    second = scored(*[{"citation_rec": 100.0, "citation_prec": 50.0}] * 2)
    assert intervals(second, 20, 0.9, seed=0)["citation_f1"] == [pytest.approx(200 / 3)] * 2
    found = difference(first, second, 50, metric="citation_f1")
    assert found["interval"] == [pytest.approx(200 / 3 - 100)] * 2
