"""Whether citations matter to the model that makes them: it answers again without a document, or
with the documents in another order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from citepipe.data.example import Example
from citepipe.text.normalize import normalize_answer
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import Statement

Answering = Callable[[Sequence[Example]], Sequence[Example]]
"""Gives examples their `output`."""


def ablate(examples: Sequence[Example], answering: Answering) -> dict[str, Any]:
    """Have answered questions answered again without each document that their answer cites, and
    without the first that it does not.

    A sentence is said again if the other answer has one of the same words, citations apart.

    Returns:
        `citations`: id, question, sentence (`text`), `document`, and whether it `matters`: without
        the document the sentence is not said again. `control`: of the sentences of answers without
        a document that they do not cite, `changed` in how many `of` them.
    """
    cited = [_cited(example) for example in examples]
    jobs = []
    for place, example in enumerate(examples):
        numbers = sorted(set().union(*(own for _, own in cited[place])))
        others = [n for n in range(1, len(example.docs) + 1) if n not in numbers]
        jobs += [(place, number, number in numbers) for number in [*numbers, *others[:1]]]
    without = [
        replace(examples[place], docs=docs[: number - 1] + docs[number:], output=None)
        for place, number, _ in jobs
        for docs in [examples[place].docs]
    ]
    citations, control = [], []
    for (place, number, is_cited), answer in zip(jobs, answering(without), strict=True):
        again = {_words(statement) for statement, _ in _cited(answer)}
        for statement, own in cited[place]:
            changed = _words(statement) not in again
            if number in own:
                about = {"id": examples[place].id, "question": examples[place].question}
                about["text"] = statement.text.strip()
                citations.append({**about, "document": number, "matters": changed})
            elif not is_cited:
                control.append(changed)
    return {"citations": citations, "control": {"changed": sum(control), "of": len(control)}}


def shuffle(
    examples: Sequence[Example], answering: Answering, orders: int, seed: int
) -> dict[str, float | None]:
    """Have answered questions answered again with their documents in other orders.

    Returns:
        In percent, None of nothing: `said_again`, of the sentences with citations;
        `same_documents`, of those the ones that cite the same; `overlap`, of the documents that two
        answers to a question cite, those that both do.
    """
    places = [place for place in range(len(examples)) for _ in range(orders)]
    rng = random.Random(seed)
    drawn = [rng.sample(range(n), n) for place in places for n in [len(examples[place].docs)]]
    moved = [
        replace(examples[place], docs=tuple(examples[place].docs[i] for i in order), output=None)
        for place, order in zip(places, drawn, strict=True)
    ]
    said: list[float] = []
    same: list[float] = []
    overlaps: list[float] = []
    for place, order, answer in zip(places, drawn, answering(moved), strict=True):
        again = {_words(s): {order[n - 1] + 1 for n in own} for s, own in _cited(answer)}
        before = [(_words(statement), own) for statement, own in _cited(examples[place]) if own]
        said += [words in again for words, _ in before]
        same += [again[words] == own for words, own in before if words in again]
        one, other = (set().union(*own) for own in ([own for _, own in before], again.values()))
        overlaps += [len(one & other) / len(one | other)] if one | other else []
    names = ("said_again", "same_documents", "overlap")
    return {
        name: 100 * fmean(own) if own else None
        for name, own in zip(names, (said, same, overlaps), strict=True)
    }


def _cited(example: Example) -> list[tuple[Statement, set[int]]]:
    """The statements of an answer, each with the numbers in range that it cites."""
    answer, documents = example.read(example.output or "", load_splitter()), len(example.docs)
    return [
        (own, {c.number for c in own.citations if 1 <= c.number <= documents})
        for own in answer.statements
    ]


def _words(statement: Statement) -> str:
    return normalize_answer(statement.claim)
