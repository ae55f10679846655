"""Whether citation scores that are corrected by people's labels have the coverage that they state.

    python benchmarks/labels.py
    python benchmarks/labels.py attributionbench_dev.jsonl

Without a file answers are drawn again and again, with a judge that errs in a given way and a person
who labels some sentences as `citepipe sample-labels` draws them: how often is the truth of the
population within the interval of `citepipe correct`, and how wide is that beside the interval of as
many labels without a judge?

With a file of human judgements (as `citepipe judges` reads them) they are of one share,
that of the attributable claims, with `lexical` as the judge and the rows' labels as the person.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Report, argument_parser

from citepipe.scoring.agreement import read_labelled
from citepipe.scoring.labels import Sentences, estimate, shares
from citepipe.verify.load import load_verifier

RESAMPLES, CONFIDENCE = 1000, 0.95
ANSWERS = 300
METRICS = ("citation_rec", "citation_prec", "citation_f1")


class Judge(NamedTuple):
    """How often it accepts what is supported and what is not; in a third of the answers, the hard
    ones, what it accepts of the latter."""

    accepts_right: float
    accepts_wrong: float
    accepts_hard: float | None = None


JUDGES = {
    "good": Judge(0.92, 0.08),
    "almost perfect": Judge(0.995, 0.005),
    "severe": Judge(0.50, 0.02),
    "lenient": Judge(0.98, 0.60),
    "lenient by answer": Judge(0.95, 0.02, 0.90),
    "tosses a coin": Judge(0.50, 0.50),
}


def drawn(rng: Any, judge: Judge, answers: int) -> tuple[Sentences, Any]:
    """Sentences of answers with the judge's verdicts, and the truth about each (S,).

    An answer has 1 to 5 sentences, of which a share of its own is supported (0.65 in the mean);
    each has one citation, or two, of which in three of ten supported sentences one is needless.
    """
    rate, hard = rng.beta(2.6, 1.4, answers), rng.random(answers) < 1 / 3
    question = np.repeat(np.arange(answers), rng.integers(1, 6, answers))
    truth = (rng.random(len(question)) < rate[question]).astype(float)
    wrong = np.where(hard, judge.accepts_hard or judge.accepts_wrong, judge.accepts_wrong)
    accepting = np.where(truth == 1, judge.accepts_right, wrong[question])
    verdict = (rng.random(len(question)) < accepting).astype(int)
    cited = rng.integers(1, 3, len(question))
    needed = cited - ((cited == 2) & (rng.random(len(question)) < 0.3))
    several = (cited == 2) & (verdict == 1)
    assumed = np.where(cited == 2, 2 * (needed[several] / 2).mean() if several.any() else 2, 1)
    statements, citations = np.bincount(question), np.bincount(question, cited)
    recall = 1 / statements[question]
    known = np.stack([recall, np.where(verdict, needed, assumed) / citations[question]], axis=1)
    real = np.stack([recall, needed / citations[question]], axis=1) * truth[:, None]
    return Sentences(question, verdict, known, truth), real


def labelled(rng: Any, own: Sentences, n: int) -> Sentences:
    """The same, with the labels of `n` sentences drawn by verdict."""
    strata = [found for v in (1, 0) if len(found := np.flatnonzero(own.verdict == v))]
    person = np.full(len(own.person), np.nan)
    for places, k in zip(strata, shares([*map(len, strata)], n), strict=True):
        chosen = rng.choice(places, k, replace=False)
        person[chosen] = own.person[chosen]
    return own._replace(person=person)


def alone(rng: Any, own: Sentences, n: int) -> Sentences:
    """As many labels without a judge: one that accepts everything."""
    return labelled(rng, own._replace(verdict=np.ones_like(own.verdict)), n)


def simulate(report: Report, draws: int, n: int) -> None:
    """Coverage and width by judge."""
    report(f"{draws} draws of {ANSWERS} answers, {n} labels, nominal {CONFIDENCE:.0%}")
    report(f"{'judge':20}{'metric':16}{'truth':>8}{'plain':>8}{'corrected':>11}{'covered':>9}"
           f"{'width':>8}{'labels alone':>14}")  # fmt: skip
    for name, judge in JUDGES.items():
        rng = np.random.default_rng(0)
        _, real = drawn(rng, judge, 400_000)
        recall, precision = 100 * real.sum(axis=0) / 400_000
        truth = [recall, precision, 2 * recall * precision / (recall + precision)]
        figures = []
        for draw in range(draws):
            own, _ = drawn(rng, judge, ANSWERS)
            answers = np.ones(ANSWERS)
            found = estimate(labelled(rng, own, n), answers, RESAMPLES, CONFIDENCE, draw)
            if draw % 10 == 0:
                without = estimate(alone(rng, own, n), answers, RESAMPLES, CONFIDENCE, draw)
            r, p = 100 * (own.weight * own.verdict[:, None]).sum(axis=0) / ANSWERS
            plain = [r, p, 2 * r * p / (r + p)]
            for i, metric in enumerate(METRICS):
                low, high = found[metric]["interval"]
                other = np.ptp(without[metric]["interval"])
                held = low <= truth[i] <= high
                figures.append([plain[i], found[metric]["corrected"], held, high - low, other])
        means = np.array(figures).reshape(draws, len(METRICS), -1).mean(axis=0)
        for i, metric in enumerate(METRICS):
            plain, value, held, width, other = means[i]
            report(f"{name:20}{metric:16}{truth[i]:8.1f}{plain:8.1f}{value:11.1f}"
                   f"{100 * held:8.1f}%{width:8.1f}{other:14.1f}")  # fmt: skip


def on_pairs(report: Report, path: Path, draws: int, n: int) -> None:
    """Of the pairs of a file the share that people accept, from the labels of some."""
    rows = read_labelled(path)
    verdict = np.array(load_verifier("lexical").entails([row.pair(False) for row in rows]), int)
    truth, ones = np.array([row.label for row in rows], float), np.ones(len(rows))
    own = Sentences(np.arange(len(rows)), verdict, np.ones((len(rows), 2)), truth)
    widths, held = [], 0
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        found = [
            estimate(some, ones, RESAMPLES, CONFIDENCE, draw)["citation_rec"]["interval"]
            for some in (labelled(rng, own, n), alone(rng, own, n))
        ]
        held += found[0][0] <= 100 * truth.mean() <= found[0][1]
        widths.append([high - low for low, high in found])
    width, other = np.mean(widths, axis=0)
    report(
        f"{path.name}: {len(rows)} claims, {100 * truth.mean():.1f} % attributable; lexical calls "
        f"{100 * verdict.mean():.1f} % so. {n} labels, {draws} draws: the share is within its "
        f"interval in {held}, which is {width:.1f} wide in the mean, {other:.1f} by labels alone"
    )


def main() -> int:
    parser = argument_parser(__doc__, "labels.txt")
    parser.add_argument("file", type=Path, nargs="?", help="labelled pairs")
    parser.add_argument("--draws", type=int, default=2000, help="of the simulation")
    parser.add_argument("--labels", type=int, default=200, help="per draw")
    arguments = parser.parse_args()
    report = Report(arguments.out, "numpy")
    simulate(report, arguments.draws, arguments.labels)
    if arguments.file is not None:
        on_pairs(report, arguments.file, 100, arguments.labels)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
