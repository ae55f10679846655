"""Means of scores over examples, their bootstrap intervals, and a paired test of two systems.

Not scipy's `bootstrap` and `permutation_test`: they copy all scores for every resample, which takes
20 times as long as the products of matrices here, and importing them longer than scoring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EQUALLY_WEIGHTED = {
    "str_em_eq_w": ("str_em", "gold"),
    "qampari_prec_eq_w": ("qampari_prec", "items"),
    "qampari_rec_eq_w": ("qampari_rec", "gold"),
    "qampari_rec_top5_eq_w": ("qampari_rec_top5", "gold_top5"),
    "citation_rec_eq_w": ("citation_rec", "statements"),
    "citation_prec_eq_w": ("citation_prec", "citations"),
}
"""Metrics in which every answer, item, statement or citation has the same weight and not every
example: the metric and the count that weighs it (the paper's `evaluation/eval.py`)."""

HARMONIC = {
    "qampari_f1_eq_w": ("qampari_prec_eq_w", "qampari_rec_eq_w"),
    "qampari_f1_top_5_eq_w": ("qampari_prec_eq_w", "qampari_rec_top5_eq_w"),
    "citation_f1": ("citation_prec", "citation_rec"),
}
"""Harmonic means of two means. ALCE itself has no citation F1."""

_RESAMPLES_AT_ONCE = 100


class Columns(NamedTuple):
    """Scores of N examples by M metrics: `weighted`, score times weight (N, M), and `weights`
    (N, M), 0 where an example does not have a metric, else 1 or its count."""

    names: tuple[str, ...]
    weighted: Floats
    weights: Floats

    def means(self) -> dict[str, float]:
        """The weighted means, and the harmonic means of them; 0 where all weights are 0."""
        means = _means(self.names, self.weighted.sum(0), self.weights.sum(0))
        return {name: float(np.nan_to_num(mean)) for name, mean in means.items()}


def columns(
    scores: Sequence[Mapping[str, float]], counts: Sequence[Mapping[str, float]]
) -> Columns:
    """The scores of examples as columns, with equally weighted metrics by the examples' counts."""
    parts = {name: (name, "") for own in scores for name in own}
    parts |= {name: part for name, part in EQUALLY_WEIGHTED.items() if part[0] in parts}
    shape = (len(scores), len(parts))
    values = [[own.get(metric, 0.0) for metric, _ in parts.values()] for own in scores]
    weights = [
        [float(metric in own and (count[unit] if unit else 1)) for metric, unit in parts.values()]
        for own, count in zip(scores, counts, strict=True)
    ]
    weighed = np.array(weights, dtype=np.float64).reshape(shape)
    return Columns(tuple(parts), np.array(values).reshape(shape) * weighed, weighed)


def intervals(
    scores: Columns, resamples: int, confidence: float, seed: int
) -> dict[str, list[float]]:
    """The percentile interval `[low, high]` of each mean: the share `confidence` of the means of
    examples drawn with replacement is inside."""
    drawn = resampled_means(scores, resamples, seed)
    return {name: percentiles(means, confidence) for name, means in drawn.items()}


def paired_differences(
    first: Columns, second: Columns, resamples: int, confidence: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Compare two systems on the same examples, in the same order and with the same metrics.

    Returns:
        By metric the means `a` and `b`, `difference` b - a, its bootstrap `interval` (examples
        drawn in pairs), and `p` of a two-sided randomisation test (Yeh 2000): how often swapping
        each example's two results at random makes a difference as large, the observed arrangement
        included: p is at least 1 / (resamples + 1).
    """
    means, others = first.means(), second.means()
    drawn, other = (resampled_means(scores, resamples, seed) for scores in (first, second))
    n, rng = len(first.weights), np.random.default_rng([seed, 1])
    as_large = dict.fromkeys(means, 0)
    for rows in _batches(resamples):
        swapped = rng.integers(0, 2, size=(rows, n)).astype(np.float64)
        stays = 1 - swapped
        ours, theirs = (
            _means(first.names, *(stays @ a + swapped @ b for a, b in zip(*sides, strict=True)))
            for sides in ((first[1:], second[1:]), (second[1:], first[1:]))
        )
        for name in means:
            difference = np.abs(np.nan_to_num(theirs[name]) - np.nan_to_num(ours[name]))
            # Sums in another order differ in their last bits; equal differences count as large.
            as_large[name] += int((difference >= abs(others[name] - means[name]) - 1e-9).sum())
    return {
        name: {
            "a": mean,
            "b": others[name],
            "difference": others[name] - mean,
            "interval": percentiles(other[name] - drawn[name], confidence),
            "p": (as_large[name] + 1) / (resamples + 1),
        }
        for name, mean in means.items()
    }


def resampled_means(scores: Columns, resamples: int, seed: int) -> dict[str, Floats]:
    """Means over examples that are drawn with replacement, by metric: (resamples,), NaN where the
    drawn ones have no weight. The draws depend on the number of examples and the seed alone."""
    n, rng = len(scores.weights), np.random.default_rng(seed)
    sums = []
    for rows in _batches(resamples):
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        often = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        sums.append((often @ scores.weighted, often @ scores.weights))
    return _means(scores.names, *(np.concatenate(side) for side in zip(*sums, strict=True)))


def _batches(resamples: int) -> Iterator[int]:
    for begin in range(0, resamples, _RESAMPLES_AT_ONCE):
        yield min(_RESAMPLES_AT_ONCE, resamples - begin)


def _means(names: Sequence[str], weighted: Floats, weights: Floats) -> dict[str, Any]:
    """Means by metric from sums of weighted scores and of weights (both (..., M)), with the
    harmonic means that they allow; NaN without weight."""
    with np.errstate(invalid="ignore"):
        means = dict(zip(names, np.moveaxis(weighted / weights, -1, 0), strict=True))
        for name, (first, second) in HARMONIC.items():
            if first in means and second in means:
                a, b = means[first], means[second]
                means[name] = np.where(a + b == 0, 0.0, 2 * a * b / (a + b))
    return means


def percentiles(resampled: Floats, confidence: float) -> list[float]:
    """`[low, high]` with the share `confidence` of resampled means, (resamples,), inside."""
    tail = 50 * (1 - confidence)
    known = resampled[~np.isnan(resampled)]
    low, high = np.percentile(known, [tail, 100 - tail]) if len(known) else (0.0, 0.0)
    return [float(low), float(high)]
