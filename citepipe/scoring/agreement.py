"""How far verifiers agree with people and with each other: on labelled pairs, and in the order in
which they rank systems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from citepipe.data.example import Document
from citepipe.data.files import read_rows
from citepipe.errors import InputError
from citepipe.scoring.compare import Part, Run
from citepipe.scoring.means import columns
from citepipe.text.statements import remove_citations
from citepipe.verify.base import Pair

PREMISE = ("references", "doc", "document", "premise")
CLAIM = ("claim", "sentence", "hypothesis", "statement")
LABEL = ("attribution_label", "label", "supported")
SOURCE = ("src_dataset", "dataset", "kind", "source")
"""How the fields of a pair are called: AttributionBench's (Li et al. 2024) names, LLM-AggreFact's
(Tang et al. 2024), and others."""

_VALUES = {
    **dict.fromkeys(("attributable", "supported", "1", "true", "yes"), True),
    **dict.fromkeys(("not attributable", "not supported", "0", "false", "no"), False),
}


class Labelled(NamedTuple):
    """A pair, whether a person found the claim supported, where it is from, and the question, which
    some verifiers read in front of the claim."""

    premise: str
    claim: str
    label: bool
    source: str
    question: str

    def pair(self, question_first: bool) -> Pair:
        """What a verifier is queried for."""
        lead = f"{self.question} " if question_first and self.question else ""
        return Pair(self.premise, lead + self.claim)


def read_labelled(path: Path) -> list[Labelled]:
    """The labelled pairs of a file (`read_rows`).

    Several references are a line break apart; a `title` stands above its document, as in a prompt.
    Claims lose their citations.

    Raises:
        InputError: a row is broken, or lacks a premise, a claim or a label that is known.
    """
    return [_labelled(where, row) for where, row in read_rows(path).each]


def _labelled(where: str, row: Any) -> Labelled:
    if isinstance(row, InputError):
        raise row
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object, got {type(row).__name__}")

    def field(names: Sequence[str], default: str | None = None) -> tuple[str, Any]:
        for name in names:
            if row.get(name) is not None:
                return name, row[name]
        if default is None:
            others = ", ".join(names[1:])
            raise InputError(f"{where}, field {names[0]}: missing (also read as {others})")
        return names[0], default

    name, premise = field(PREMISE)
    if isinstance(premise, list) and all(isinstance(one, str) for one in premise):
        premise = "\n".join(premise)
    if not isinstance(premise, str):
        raise InputError(f"{where}, field {name}: expected a text or a list of texts")
    if isinstance(row.get("title"), str):
        premise = Document(row["title"], premise).passage
    name, claim = field(CLAIM)
    if not isinstance(claim, str):
        raise InputError(f"{where}, field {name}: expected a text")
    name, label = field(LABEL)
    known = _VALUES.get(str(label).strip().casefold())
    if known is None:
        raise InputError(f"{where}, field {name}: expected {', '.join(_VALUES)}, got {label!r}")
    source, question = (str(field(names, "")[1]) for names in (SOURCE, ("question",)))
    return Labelled(premise, remove_citations(claim).strip(), known, source, question)


def agreement(labels: Sequence[bool], decisions: Sequence[bool]) -> dict[str, Any]:
    """How decisions agree with labels, in percent but for kappa.

    Returns:
        `pairs`; `labelled` and `decided`, the shares that are supported; `accuracy` with `interval`
        (Wilson's, 95 %) and `majority`, what always giving the more frequent label reaches;
        `balanced_accuracy`; Cohen's `kappa`; and `precision`, `recall` and `f1` of the `supported`
        and of the `unsupported`. What is undefined is None.
    """
    n = len(labels)
    same = sum(a == b for a, b in zip(labels, decisions, strict=True))
    classes = {
        name: _class(sum(a == b == value for a, b in zip(labels, decisions, strict=True)), *sizes)
        for name, value in (("supported", True), ("unsupported", False))
        if (sizes := (list(decisions).count(value), list(labels).count(value)))
    }
    recalls = [own["recall"] for own in classes.values() if own["recall"] is not None]
    return {
        "pairs": n,
        "labelled": 100 * sum(labels) / n,
        "decided": 100 * sum(decisions) / n,
        "accuracy": 100 * same / n,
        "interval": [100 * bound for bound in wilson(same, n)],
        "majority": 100 * max(sum(labels), n - sum(labels)) / n,
        "balanced_accuracy": sum(recalls) / 2 if len(recalls) == 2 else None,
        "kappa": kappa(labels, decisions),
        **classes,
    }


def _class(right: int, decided: int, labelled: int) -> dict[str, float | None]:
    """Precision, recall and F1 of a class."""
    return {
        "precision": 100 * right / decided if decided else None,
        "recall": 100 * right / labelled if labelled else None,
        "f1": 200 * right / (decided + labelled) if decided + labelled else None,
    }


def kappa(one: Sequence[bool], other: Sequence[bool]) -> float | None:
    """Cohen's kappa of two raters; None where both always say the same."""
    n = len(one)
    yes, ayes = sum(one) / n, sum(other) / n
    chance = yes * ayes + (1 - yes) * (1 - ayes)
    same = sum(a == b for a, b in zip(one, other, strict=True)) / n
    return (same - chance) / (1 - chance) if chance < 1 else None


def wilson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (hits + z * z / 2) / (n + z * z)
    half = z * math.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return middle - half, middle + half


RANKED_BY = "citation_f1"


def rankings(systems: Mapping[str, Sequence[Mapping[Part, Run]]]) -> list[dict[str, Any]]:
    """Whether verifiers rank systems (`read_systems`) alike.

    Returns:
        Per dataset that at least two systems have under each of two verifiers: its name, `means`,
        the systems' mean citation F1 (of seeds) by verifier, and `between` each two of these: their
        `judges`, Kendall's `tau` over the systems that both scored, and `swapped`, the pairs of
        systems of which the one is ahead of the other by the first verifier and behind it by the
        second. Equal scores are neither.

    Raises:
        InputError: there is no such dataset.
    """
    means: dict[str, dict[str, dict[str, float]]] = {}
    for system, runs in systems.items():
        for part in dict.fromkeys(part for run in runs for part in run):
            scored = [run[part] for run in runs if part in run]
            own = means.setdefault(part[0], {}).setdefault(scored[0].verifier, {})
            own[system] = sum(map(_mean, scored)) / len(scored)
    found = []
    for dataset, by_verifier in means.items():
        between = []
        for one, other in combinations(by_verifier, 2):
            a, b = by_verifier[one], by_verifier[other]
            pairs = list(combinations([system for system in a if system in b], 2))
            if pairs:
                signs = [(a[x] - a[y]) * (b[x] - b[y]) for x, y in pairs]
                tau = (sum(s > 0 for s in signs) - sum(s < 0 for s in signs)) / len(pairs)
                swapped = [pair for pair, sign in zip(pairs, signs, strict=True) if sign < 0]
                between.append({"judges": [one, other], "tau": tau, "swapped": swapped})
        if between:
            found.append({"dataset": dataset, "means": by_verifier, "between": between})
    if not found:
        raise InputError("expected score files of two systems or more, each by two verifiers")
    return found


def _mean(run: Run) -> float:
    rows = run.rows
    parts = [[row[name] for row in rows] for name in ("scores", "counts", "question")]
    return columns(*parts).means().get(RANKED_BY, 0.0)
