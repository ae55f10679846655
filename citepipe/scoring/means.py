"""Means of scores over examples, their bootstrap intervals, and a paired test of two systems.

Questions are what is drawn and swapped: rows of the same question stay together.

Not scipy's `bootstrap` and `permutation_test`: they copy all scores for every resample, which takes
20 times as long as the products of matrices here, and importing them longer than scoring.
"""

from __future__ import annotations

import math
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
    "refusal_prec": ("refusal_acc", "refused"),
    "refusal_rec": ("refusal_acc", "unanswerable"),
    "answered_prec": ("refusal_acc", "answered"),
    "answered_rec": ("refusal_acc", "answerable"),
}
"""Metrics in which every answer, item, statement or citation has the same weight and not every
example, or some examples have none: the metric and the count that weighs it (`*_eq_w`: the paper's
`evaluation/eval.py`)."""

HARMONIC = {
    "qampari_f1_eq_w": ("qampari_prec_eq_w", "qampari_rec_eq_w"),
    "qampari_f1_top_5_eq_w": ("qampari_prec_eq_w", "qampari_rec_top5_eq_w"),
    "citation_f1": ("citation_prec", "citation_rec"),
    "refusal_f1": ("refusal_prec", "refusal_rec"),
    "answered_f1": ("answered_prec", "answered_rec"),
}
"""Harmonic means of two means. ALCE itself has no citation F1."""

GROUNDED = ("refusal_f1", "answered_f1")
"""What `grounded_f1` is the mean of (F1_GR of Song et al. 2024, arXiv 2409.11242)."""

# Numbers that are drawn at once; more no longer fit the processor's caches.
_AT_ONCE = 100_000


class Columns(NamedTuple):
    """Scores of N questions by M metrics: `weighted`, score times weight (N, M), and `weights`
    (N, M), sums over the question's examples: 0 for one without the metric, else 1 or its count."""

    names: tuple[str, ...]
    weighted: Floats
    weights: Floats

    @property
    def sides(self) -> Floats:
        """Both beside each other (N, 2M)."""
        return np.hstack([self.weighted, self.weights])

    def means(self) -> dict[str, float]:
        """The weighted means, and the harmonic means of them; 0 where all weights are 0."""
        means = _means(self.names, self.sides.sum(0))
        return {name: float(np.nan_to_num(mean)) for name, mean in means.items()}


def columns(
    scores: Sequence[Mapping[str, float]],
    counts: Sequence[Mapping[str, float]],
    questions: Sequence[str],
) -> Columns:
    """The scores of examples as columns, with equally weighted metrics by the examples' counts, and
    the examples of one question as one row, in the order of first examples."""
    parts = {name: (name, "") for own in scores for name in own}
    parts |= {name: part for name, part in EQUALLY_WEIGHTED.items() if part[0] in parts}
    places = {question: place for place, question in enumerate(dict.fromkeys(questions))}
    values, weights = np.zeros((2, len(places), len(parts)))
    for own, count, question in zip(scores, counts, questions, strict=True):
        for column, (metric, unit) in enumerate(parts.values()):
            if metric in own:
                weight = count[unit] if unit else 1
                values[places[question], column] += own[metric] * weight
                weights[places[question], column] += weight
    return Columns(tuple(parts), values, weights)


def intervals(
    scores: Columns, resamples: int, confidence: float, seed: int
) -> dict[str, list[float]]:
    """The percentile interval `[low, high]` of each mean: the share `confidence` of the means of
    questions drawn with replacement is inside."""
    [drawn] = resampled_means([scores], resamples, seed)
    return {name: percentiles(means, confidence) for name, means in drawn.items()}


class Difference(NamedTuple):
    """Means `a` and `b` of two systems, and by resample the difference b - a of questions drawn
    with replacement, and of systems that swapped their results on some questions."""

    a: float
    b: float
    drawn: Floats
    swapped: Floats

    def summary(self, confidence: float) -> dict[str, Any]:
        """`a`, `b`, `difference`, its percentile `interval`, and `p` of the two-sided randomisation
        test (Yeh 2000): how often swapping at random makes a difference as large, the observed
        arrangement included: at least 1 / (resamples + 1)."""
        observed = abs(self.b - self.a)
        # Sums in another order differ in their last bits; equal differences count as large.
        as_large = int((np.abs(self.swapped) >= observed - 1e-9).sum())
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.b - self.a,
            "interval": percentiles(self.drawn, confidence),
            "p": (as_large + 1) / (len(self.swapped) + 1),
        }


def paired(
    first: Sequence[Columns], second: Sequence[Columns], resamples: int, seed: int
) -> dict[str, Difference]:
    """The differences of two systems by metric, each the mean over its seeds' scores of the same
    questions, in the same order and with the same metrics. Seeds are drawn anew like questions; a
    question is swapped with all seeds at once."""
    drawn = resampled_means([*first, *second], resamples, seed)
    sides = [
        _over_seeds(first, drawn[: len(first)], seed),
        _over_seeds(second, drawn[len(first) :], seed),
    ]
    n, rng = len(first[0].weights), np.random.default_rng([seed, 1])
    # As many pairs of seeds as both numbers of seeds go into.
    pairs = [
        (first[i % len(first)].sides, second[i % len(second)].sides)
        for i in range(math.lcm(len(first), len(second)))
    ]
    # What each question adds to the sums of the first system by being swapped, and takes from the
    # second's.
    moved = np.hstack([other - one for one, other in pairs])
    sums = np.concatenate(
        [
            rng.integers(0, 2, size=(rows, n)).astype(np.float64) @ moved
            for rows in _batches(n, resamples)
        ]
    )
    swapped: dict[str, Any] = dict.fromkeys(sides[0][0], 0.0)
    for (one, other), added in zip(pairs, np.split(sums, len(pairs), axis=1), strict=True):
        for sign, found in ((-1, one.sum(0) + added), (1, other.sum(0) - added)):
            for name, mean in _means(first[0].names, found).items():
                swapped[name] = swapped[name] + sign * np.nan_to_num(mean) / len(pairs)
    (means, ours), (others, theirs) = sides
    return {
        name: Difference(means[name], others[name], theirs[name] - ours[name], swapped[name])
        for name in means
    }


def _over_seeds(
    runs: Sequence[Columns], drawn: Sequence[Mapping[str, Floats]], seed: int
) -> tuple[dict[str, float], dict[str, Floats]]:
    """The means over seeds, and over drawn seeds of drawn questions, by metric."""
    means = [run.means() for run in runs]
    return (
        {name: sum(own[name] for own in means) / len(runs) for name in means[0]},
        {name: drawn_seeds([own[name] for own in drawn], seed) for name in means[0]},
    )


def drawn_seeds(by_seed: Sequence[Floats], seed: int) -> Floats:
    """The means over seeds that are drawn with replacement, alike for all systems with as many, of
    the resamples (resamples,) of each seed."""
    n, resamples = len(by_seed), len(by_seed[0])
    seeds = np.random.default_rng([seed, 4, n]).integers(0, n, (n, resamples))
    return np.asarray(np.take_along_axis(np.stack(by_seed), seeds, axis=0).mean(axis=0))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the given order."""
    order = np.argsort(p, kind="stable")
    steps = np.minimum(np.array(p)[order] * np.arange(len(p), 0, -1), 1)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(steps)
    return [float(value) for value in corrected]


def resampled_means(runs: Sequence[Columns], resamples: int, seed: int) -> list[dict[str, Floats]]:
    """Of runs over the same questions the means over questions that are drawn with replacement, for
    all runs the same, by metric: (resamples,), NaN where the drawn ones have no weight. The draws
    depend on the number of questions and the seed alone."""
    n, rng, sums = len(runs[0].weights), np.random.default_rng(seed), []
    values = np.hstack([run.sides for run in runs])
    for rows in _batches(n, resamples):
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        often = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums.append(often.astype(np.float64) @ values)
    ends = np.cumsum([2 * len(run.names) for run in runs])[:-1]
    parts = np.split(np.concatenate(sums), ends, axis=1)
    return [_means(run.names, part) for run, part in zip(runs, parts, strict=True)]


def _batches(n: int, resamples: int) -> Iterator[int]:
    """Resamples of `n` numbers each, so many at a time."""
    step = max(_AT_ONCE // n, 1)
    return (min(step, resamples - begin) for begin in range(0, resamples, step))


def _means(names: Sequence[str], sums: Floats) -> dict[str, Any]:
    """Means by metric from sums of weighted scores and behind them of weights (..., 2M), with the
    harmonic means that they allow; NaN without weight."""
    weighted, weights = np.split(sums, 2, axis=-1)
    with np.errstate(invalid="ignore"):
        means = dict(zip(names, np.moveaxis(weighted / weights, -1, 0), strict=True))
        for name, (first, second) in HARMONIC.items():
            if first in means and second in means:
                a, b = means[first], means[second]
                means[name] = np.where(a + b == 0, 0.0, 2 * a * b / (a + b))
        if GROUNDED[0] in means:
            means["grounded_f1"] = sum(np.nan_to_num(means[name]) for name in GROUNDED) / 2
    return means


def percentiles(resampled: Floats, confidence: float) -> list[float]:
    """`[low, high]` with the share `confidence` of resampled means, (resamples,), inside."""
    tail = 50 * (1 - confidence)
    known = resampled[~np.isnan(resampled)]
    low, high = np.percentile(known, [tail, 100 - tail]) if len(known) else (0.0, 0.0)
    return [float(low), float(high)]
