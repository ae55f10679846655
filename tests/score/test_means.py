"""Means, intervals and differences against values worked out by hand."""

import numpy as np
import pytest

from citepipe.score.means import Columns, columns, intervals, paired_differences, resampled_means

NOTHING = {"statements": 0, "citations": 0, "gold": 0, "gold_top5": 0, "items": 0}
ONE_EACH = dict.fromkeys(NOTHING, 1)


def scored(*scores: dict[str, float]) -> Columns:
    return columns(scores, [ONE_EACH] * len(scores))


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
    means = columns(scores, counts).means()
    expected = dict(zip(names, (40, 25, (2 * 50 + 8 * 100) / 10, 50, 20, 200 / 7), strict=True))
    assert {name: means[f"{name}_eq_w"] for name in names} == pytest.approx(expected)
    assert means["qampari_f1_eq_w"] == pytest.approx(2 * 50 * 20 / 70)
    top = 2 * 50 * (200 / 7) / (50 + 200 / 7)
    assert means["qampari_f1_top_5_eq_w"] == pytest.approx(top)
    assert columns(scores, [NOTHING] * 2).means()["citation_prec_eq_w"] == 0


def test_the_spread_of_resampled_means_is_the_standard_error():
    means = resampled_means(lengths(*[0.0] * 50, *[100.0] * 50), 4000, seed=0)["length"]
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
    for compute in (intervals, lambda own, *how: paired_differences(own, second, *how)):
        found = [compute(first, 150, 0.95, seed) for seed in (1, 1, 2)]
        assert found[0] == found[1] != found[2]


def test_a_constant_difference_is_certain_in_size_and_as_rare_as_all_swaps_alike():
    found = paired_differences(lengths(1, 2, 3), lengths(1, 2, 3), 99, 0.95, 0)["length"]
    assert found == {"a": 2, "b": 2, "difference": 0, "interval": [0, 0], "p": 1}
    # Of 2^4 ways to swap, the 2 that swap none or all give a difference of 1: p is about 1/8.
    found = paired_differences(lengths(1, 2, 3, 9), lengths(2, 3, 4, 10), 8000, 0.95, 0)["length"]
    assert found["interval"] == [pytest.approx(1)] * 2
    assert found["difference"] == pytest.approx(1)
    assert found["p"] == pytest.approx(1 / 8, abs=0.015)


def test_pairing_sees_what_the_spread_of_each_would_hide():
    rng = np.random.default_rng(0)
    first = rng.normal(50, 30, 200)
    second = lengths(*(first + rng.normal(1, 2, 200)))
    found = paired_differences(lengths(*first), second, 999, 0.95, 0)["length"]
    assert found["interval"][0] > 0
    assert found["p"] == 1 / 1000


def test_f1_is_resampled_as_the_harmonic_mean_of_resampled_means():
    first = scored(*[{"citation_rec": 100.0, "citation_prec": 100.0}] * 2)
    second = scored(*[{"citation_rec": 100.0, "citation_prec": 50.0}] * 2)
    assert intervals(second, 20, 0.9, seed=0)["citation_f1"] == [pytest.approx(200 / 3)] * 2
    found = paired_differences(first, second, 50, 0.95, 0)["citation_f1"]
    assert found["interval"] == [pytest.approx(200 / 3 - 100)] * 2
