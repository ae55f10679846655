import numpy as np
import pytest

from citepipe.score.intervals import intervals, resampled_means


def test_equal_scores_have_no_spread():
    found = intervals([{"length": 3.0}] * 5, resamples=50, confidence=0.95, seed=0)
    assert found == {"length": [3.0, 3.0]}


def test_the_spread_of_resampled_means_is_the_standard_error():
    values = np.array([[0.0]] * 50 + [[100.0]] * 50)
    means = resampled_means(values, 4000, seed=0)
    assert means.shape == (4000, 1)
    assert means.mean() == pytest.approx(50, abs=0.5)
    assert means.std() == pytest.approx(5, abs=0.3)


def test_a_missing_score_is_passed_over():
    means = resampled_means(np.array([[1.0], [np.nan], [np.nan]]), 100, seed=0)
    assert set(means[~np.isnan(means)]) == {1.0}


def test_the_interval_of_f1_is_of_the_resampled_means():
    scores = [{"citation_rec": 100.0, "citation_prec": 50.0}] * 3
    low, high = intervals(scores, 20, 0.9, seed=0)["citation_f1"]
    assert low == high == pytest.approx(200 / 3)
    zero = [{"citation_rec": 0.0, "citation_prec": 0.0}]
    assert intervals(zero, 20, 0.9, seed=0)["citation_f1"] == [0.0, 0.0]


def test_the_seed_decides():
    scores = [{"length": float(i)} for i in range(20)]
    assert intervals(scores, 100, 0.95, 1) == intervals(scores, 100, 0.95, 1)
    assert intervals(scores, 100, 0.95, 1) != intervals(scores, 100, 0.95, 2)
