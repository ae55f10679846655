"""Bootstrap intervals over examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_RESAMPLES_AT_ONCE = 100


def resampled_means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of columns over examples drawn with replacement, the same draws for all columns.

    Args:
        values: (N examples, M metrics); NaN where an example does not have a metric.
        resamples: R, how often N examples are drawn.
        seed: of the draws.

    Returns:
        (R, M); NaN where no drawn example has the metric.
    """
    n = len(values)
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)
    rng = np.random.default_rng(seed)
    means = []
    for begin in range(0, resamples, _RESAMPLES_AT_ONCE):
        rows = min(_RESAMPLES_AT_ONCE, resamples - begin)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=rows)
        with np.errstate(invalid="ignore"):
            means.append((counts @ filled) / (counts @ present))
    return np.concatenate(means)


def intervals(
    scores: Sequence[Mapping[str, float]], resamples: int, confidence: float, seed: int
) -> dict[str, list[float]]:
    """The percentile interval `[low, high]` of the mean of each metric, and of `citation_f1`.

    Args:
        scores: per example its metrics; one may be absent from some.
        resamples: how often the examples are drawn with replacement.
        confidence: the share of resampled means inside the interval.
        seed: of the draws.
    """
    names = list(dict.fromkeys(name for own in scores for name in own))
    values = np.array([[own.get(name, np.nan) for name in names] for own in scores])
    means = resampled_means(values.reshape(len(scores), len(names)), resamples, seed)
    columns = dict(zip(names, means.T, strict=True))
    if "citation_rec" in columns:
        recall, precision = columns["citation_rec"], columns["citation_prec"]
        both = recall + precision
        # Where both are 0 so is their harmonic mean.
        columns["citation_f1"] = 2 * recall * precision / np.where(both > 0, both, 1.0)
    tail = 50 * (1 - confidence)
    return {
        name: [float(bound) for bound in np.nanpercentile(column, [tail, 100 - tail])]
        for name, column in columns.items()
    }
