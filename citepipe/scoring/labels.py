"""Scores corrected by people: sentences are drawn for a person to judge, and citation recall,
precision and F1 estimated from the judge's verdicts on all sentences and the person's on these.

This is prediction-powered inference (Angelopoulos et al. 2023, arXiv 2301.09633), stratified by the
judge's verdict: of the sentences that the judge calls supported, and of those that it does not, the
share that people call so is estimated each by itself. With a judge that says yes or no, this is the
estimator that power tuning (arXiv 2311.01453) looks for.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, TypeAdapter

from citepipe.data.example import Document, Example
from citepipe.data.files import decoded, lines_of, read_text
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.judgement import ELSEWHERE, NOT_SUPPORTED, PARTLY
from citepipe.options import ScoreOptions
from citepipe.scoring.means import Columns, columns, intervals, percentiles, resampled_means
from citepipe.scoring.results import EXPECTED, Scored, ScoredAnswers

METRICS = ("citation_rec", "citation_prec")
JUDGED = ("supported", NOT_SUPPORTED, PARTLY, ELSEWHERE)
"""The reasons of verdicts that are the verifier's; all others follow from rules."""

_LEAST = 20
"""Sentences of a stratum that are drawn, if there are as many."""


class Part(NamedTuple):
    """What has scores of its own: the answers of a system to a dataset, under a verifier."""

    verifier: str
    system: str
    dataset: str


class Judged(NamedTuple):
    """An answer, the seed of its system, and its row of a score file."""

    seed: int
    example: Example
    row: Mapping[str, Any]

    def sentences(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The statements on which the verifier decided, by their index."""
        for index, statement in enumerate(self.row["statements"]):
            if statement["reason"] in JUDGED:
                yield index, statement

    def text(self, statement: Mapping[str, Any]) -> str:
        """A statement as it was written."""
        start, end = statement["span"]
        return (self.example.output or "")[start:end]


class Label(BaseModel):
    """What a person says of a statement: the line that `draw` writes, and the report."""

    dataset: str
    id: str
    system: str
    seed: int
    statement: int
    text: str
    verdicts: dict[str, str | None]
    verifier: str | None = None
    label: Literal["agree", "disagree", "unsure", ""]


def read_parts(files: Sequence[Scored], answers: Iterable[Path]) -> dict[Part, list[Judged]]:
    """The answers of score files, all seeds of a system together.

    Raises:
        InputError: a score file is broken, or its answers are not among the files of answers.
    """
    given = ScoredAnswers(answers)
    parts: dict[Part, list[Judged]] = {}
    for file in files:
        try:
            for verifier, own in file.results.items():
                for dataset, result in own.items():
                    found = parts.setdefault(Part(verifier, file.system, dataset), [])
                    for example, row in given.with_rows(file, dataset, result):
                        found.append(Judged(file.seed, example, row))
                        # What is missing is said here.
                        _ = [found[-1].text(one) for _, one in found[-1].sentences()]
                        _ = row["citations"], row["counts"]["statements"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file.path}: {EXPECTED}; broken at {error}") from None
    return parts


def draw(parts: Mapping[Part, Sequence[Judged]], n: int, seed: int) -> list[dict[str, Any]]:
    """Lines for a person to label: `n` sentences, in random order.

    They are drawn from each part's supported and not supported sentences by their number, but at
    least 20 of each (all, if there are fewer; fewer, if there are many parts).

    Raises:
        InputError: the verifier has decided on no sentence.
    """
    strata: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for part, answers in parts.items():
        for answer in answers:
            for index, statement in answer.sentences():
                docs = answer.example.docs
                cited = [c for c in dict.fromkeys(statement["cited"]) if 1 <= c <= len(docs)]
                strata[part, statement["supported"]].append(
                    {
                        "dataset": part.dataset,
                        "id": answer.example.id,
                        "question": answer.example.question,
                        "system": part.system,
                        "seed": answer.seed,
                        "statement": index,
                        "text": answer.text(statement),
                        "cited": statement["cited"],
                        "passages": [_passage(c, docs[c - 1]) for c in cited],
                        "verifier": part.verifier,
                        "verdicts": {part.verifier: statement["reason"]},
                        "label": "",
                        "comment": "",
                    }
                )
    if not strata:
        raise InputError("expected scores with verdicts on citations, there are none")
    rng = random.Random(seed)
    counts = shares([len(own) for own in strata.values()], n)
    chosen = [rng.sample(own, k) for own, k in zip(strata.values(), counts, strict=True)]
    lines = [line for own in chosen for line in own]
    rng.shuffle(lines)
    return lines


def _passage(number: int, doc: Document) -> str:
    title = f" {doc.title}:" if doc.title else ""
    return f"[{number}]{title} {doc.text if doc.sent is None else doc.sent}"


def shares(sizes: Sequence[int], n: int) -> list[int]:
    """`n` shared out by size, with a least number for each, by largest remainders."""
    counts = [min(size, _LEAST, n // len(sizes)) for size in sizes]
    rest = [size - count for size, count in zip(sizes, counts, strict=True)]
    left = min(n, sum(sizes)) - sum(counts)
    exact = [left * own / max(sum(rest), 1) for own in rest]
    order = sorted(range(len(sizes)), key=lambda i: int(exact[i]) - exact[i])
    more = left - sum(map(int, exact))
    return [own + int(exact[i]) + (i in order[:more]) for i, own in enumerate(counts)]


def read_labels(path: Path) -> list[tuple[str, Label]]:
    """The lines of a file of labels, each behind how it is named in errors.

    Raises:
        InputError: it cannot be read, or a line is no label.
    """
    kind = TypeAdapter(Label)
    lines = lines_of(read_text(path), path)
    return [(where, validated(kind, decoded(line, where, True), where)) for where, line in lines]


def correct(
    parts: Mapping[Part, Sequence[Judged]],
    labels: Sequence[tuple[str, Label]],
    options: ScoreOptions,
) -> list[dict[str, Any]]:
    """The scores of each part that has labels, as its verifier and as people see them.

    Returns:
        Per part `verifier`, `system`, `dataset`; `sentences` on which the verifier decided, and
        statements `by_rules`; `supported` and `not_supported`: of the labelled ones that the
        verifier calls so, how many people call supported, and how many there are; `unsure` and
        `unlabelled` lines; `agreement` in percent of all sentences; and by metric its `plain` and
        `corrected` value, each with an interval.

    Raises:
        InputError: a label is of no sentence of the scores, of another text or verdict; or a part
            has no label for one of the verdicts.
    """
    known = {
        (part, answer.seed, answer.example.id, index): (answer, statement)
        for part, answers in parts.items()
        for answer in answers
        for index, statement in enumerate(answer.row["statements"])
    }
    given: dict[Part, dict[tuple[int, str, int], Label]] = defaultdict(dict)
    for where, label in labels:
        verifier = label.verifier or (min(label.verdicts) if len(label.verdicts) == 1 else None)
        if verifier is None:
            raise InputError(f"{where}, field verifier: missing")
        part = Part(verifier, label.system, label.dataset)
        key = label.seed, label.id, label.statement
        if (part, *key) not in known:
            raise InputError(
                f"{where}: the scores have no statement {label.statement} of {label.system}, seed "
                f"{label.seed}, {label.dataset}, id {label.id!r} by {verifier}"
            )
        answer, statement = known[part, *key]
        if answer.text(statement) != label.text:
            raise InputError(
                f"{where}, field text: expected {answer.text(statement)[:60]!r}, as in the answers "
                f"that were scored, got {label.text[:60]!r}"
            )
        verdict = label.verdicts.get(verifier)
        if (verdict in ("supported", "needless")) != statement["supported"]:
            raise InputError(
                f"{where}, field verdicts: expected {statement['reason']!r} of {verifier}, as in "
                f"the scores, got {verdict!r}"
            )
        if key in given[part]:
            raise InputError(f"{where}: the same sentence as in a line before")
        given[part][key] = label
    if not given:
        raise InputError("expected labels, there are none")
    return [part._asdict() | _corrected(part, parts[part], given[part], options) for part in given]


def _corrected(
    part: Part, answers: Sequence[Judged], labels: Mapping[Any, Label], options: ScoreOptions
) -> dict[str, Any]:
    """The figures of one part, from its labels by seed, id and index."""
    scored = [answer for answer in answers if METRICS[0] in answer.row]
    rows = [answer.row for answer in scored]
    questions = [answer.example.question for answer in scored]
    own = _sentences(scored, labels)
    people: dict[str, list[int]] = {}
    agreed = 0.0
    for verdict, name in ((1, "supported"), (0, "not_supported")):
        of_it = own.person[own.verdict == verdict]
        said = of_it[~np.isnan(of_it)]
        if len(of_it) and not len(said):
            raise InputError(
                f"{part.system}, {part.dataset}: expected labels of sentences that {part.verifier} "
                f"calls {name.replace('_', ' ')}, none of {len(of_it)} has one"
            )
        people[name] = [int(said.sum()), len(said)]
        agreed += len(of_it) * float((said == verdict).mean()) if len(said) else 0.0
    plain = columns(
        [{name: row[name] for name in METRICS} for row in rows],
        [row["counts"] for row in rows],
        questions,
    )
    means = plain.means()
    bounds = intervals(plain, options.resamples, options.confidence, options.seed)
    answered = np.array(list(Counter(questions).values()))
    found = estimate(own, answered, options.resamples, options.confidence, options.seed)
    marks = Counter(label.label for label in labels.values())
    return {
        "sentences": len(own.person),
        "by_rules": sum(len(row["statements"]) for row in rows) - len(own.person),
        **people,
        "unsure": marks["unsure"],
        "unlabelled": marks[""],
        "agreement": 100 * agreed / len(own.person),
        "metrics": {
            name: {"plain": means[name], "plain_interval": bounds[name], **found[name]}
            for name in found
        },
    }


class Sentences(NamedTuple):
    """S sentences on which a judge has decided: `question` (S,) from 0, `verdict` (S,) 1 or 0,
    `weight` (S, 2), what each adds to its answer's recall and precision (0 to 1) if it is
    supported, and `person` (S,) 1 or 0, or NaN without a label."""

    question: Any
    verdict: Any
    weight: Any
    person: Any


def estimate(
    own: Sentences, answers: Any, resamples: int, confidence: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Citation recall, precision and F1 as people would find them.

    Of the weight that all sentences of a verdict have, people accept the share that they accept of
    the labelled ones' weight. Weights and shares are means over questions, so one bootstrap, in
    which a question is drawn with its labels, covers both samples. Half a label of either kind, as
    in Jeffreys' prior, is among what is drawn of each verdict, because from no errors among a
    hundred it does not follow that there are none.

    Args:
        own: the sentences; labelled ones were drawn at random among those of a verdict.
        answers: (Q,), how many answers a question has.
        resamples, confidence, seed: of the bootstrap.

    Returns:
        By metric `corrected` (in percent) and `interval`.
    """
    n, names = len(answers), []
    both = np.zeros((2, n + 4, 8))

    def by_question(where: Any, values: Any) -> Any:
        return np.bincount(own.question[where], values[where], n)

    for place, (metric, verdict) in enumerate(product(range(2), (1, 0))):
        names += [f"weight {metric} {verdict}", f"share {metric} {verdict}"]
        chosen, weight = own.verdict == verdict, own.weight[:, metric]
        said = chosen & ~np.isnan(own.person)
        both[:, :n, 2 * place] = by_question(chosen, weight), answers
        accepted = by_question(said, weight * own.person)
        both[:, :n, 2 * place + 1] = accepted, by_question(said, weight)
        more = n + 2 * verdict
        both[1, more : more + 2, 2 * place + 1] = weight[said].mean() / 2 if said.any() else 0
        both[0, more, 2 * place + 1] = both[1, more, 2 * place + 1]
    point = Columns(tuple(names), *both[:, :n]).means()
    [drawn] = resampled_means([Columns(tuple(names), *both)], resamples, seed)
    return {
        name: {"corrected": float(value), "interval": percentiles(some, confidence)}
        for name, value, some in zip(
            (*METRICS, "citation_f1"), _combined(point), _combined(drawn), strict=True
        )
    }


def _combined(means: Mapping[str, Any]) -> list[Any]:
    """Recall, precision and F1 in percent, of one estimate or of (resamples,)."""
    recall, precision = (
        sum(
            100 * means[f"weight {metric} {v}"] * np.nan_to_num(means[f"share {metric} {v}"])
            for v in (0, 1)
        )
        for metric in range(2)
    )
    return [recall, precision, 2 * recall * precision / np.maximum(recall + precision, 1e-12)]


def _sentences(answers: Sequence[Judged], labels: Mapping[Any, Label]) -> Sentences:
    """The sentences of answers, and what people say of them."""
    places = {q: i for i, q in enumerate(dict.fromkeys(a.example.question for a in answers))}
    found = []
    for answer in answers:
        row, place = answer.row, places[answer.example.question]
        for index, statement in answer.sentences():
            right = [bool(c["right"]) for c in row["citations"] if c["statement"] == index]
            label, person = labels.get((answer.seed, answer.example.id, index)), np.nan
            if label is not None and label.label in ("agree", "disagree"):
                person = float(statement["supported"] == (label.label == "agree"))
            weights = 1 / row["counts"]["statements"], 1 / max(len(row["citations"]), 1)
            found.append((place, int(statement["supported"]), person, weights, right))
    if not found:
        raise InputError("expected scores with verdicts on citations, there are none")
    # Of several citations of what it does not accept the verifier was not asked about each.
    several = [sum(right) / len(right) for _, yes, *_, right in found if yes and len(right) > 1]
    assumed = sum(several) / len(several) if several else 1.0
    added = [
        (recall, precision * (sum(right) if yes else len(right) * (assumed if right[1:] else 1)))
        for _, yes, _, (recall, precision), right in found
    ]
    question, verdict, people, *_ = zip(*found, strict=True)
    return Sentences(*map(np.array, (question, verdict, added, people)))
