"""Whether citations matter to the model that makes them: it answers again without a document, with
other names and numbers in it, or with the documents in another order."""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from citepipe.data.example import Document, Example
from citepipe.text.normalize import normalize_answer
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import Statement

Answering = Callable[[Sequence[Example]], Sequence[Example]]
"""Gives examples their `output`."""

_VALUE = re.compile(r"(?<!\w)(?:\d+(?:[.,]\d+)*|[^\W\d_](?:(?!['’]s\b)[\w'’-])*)(?=['’]s\b|(?!\w))")
_INSIDE = re.compile(r"[\w,;()'’\"-] ?\Z")
_NAMES = ("Adlen", "Brovik", "Calder", "Dornach", "Elvery")
"""Names where the documents have no others."""


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


def alter(examples: Sequence[Example], answering: Answering) -> dict[str, Any]:
    """Have answered questions answered again for each sentence with citations, with the names and
    numbers that it shares with the documents it cites changed in these.

    A name (a word with a capital letter where no sentence begins) becomes another of the file's
    documents that the question's do not have, a number one with another last digit; what the
    question says stays. The sentence follows if it is said with what was changed, citations apart.

    Returns:
        `sentences`: id, question, sentence (`text`), the `documents` it cites, `changes` by old
        value, and whether the answer is `changed` likewise, the `same`, or says `neither`;
        `unaltered`, how many sentences with citations have nothing to change.
    """
    pool = sorted({name for one in examples for doc in one.docs for name in _names(doc.passage)})
    jobs = []
    unaltered = 0
    for example in examples:
        for statement, cited in _cited(example):
            changes = _changes(example, statement, cited, pool)
            unaltered += bool(cited and not changes)
            jobs += [(example, statement, cited, changes)] if changes else []
    altered = [
        replace(
            example,
            docs=tuple(
                _altered(doc, changes) if number in cited else doc
                for number, doc in enumerate(example.docs, 1)
            ),
            output=None,
        )
        for example, _, cited, changes in jobs
    ]
    found = []
    for (example, statement, cited, changes), answer in zip(jobs, answering(altered), strict=True):
        again = {_words(own) for own, _ in _cited(answer)}
        expected = normalize_answer(_with(statement.claim, changes))
        said = "changed" if expected in again else "same" if _words(statement) in again else ""
        about = {"id": example.id, "question": example.question, "text": statement.text.strip()}
        own = {"documents": sorted(cited), "changes": changes, "answer": said or "neither"}
        found.append({**about, **own})
    return {"sentences": found, "unaltered": unaltered}


def _changes(
    example: Example, statement: Statement, cited: Collection[int], pool: Sequence[str]
) -> dict[str, str]:
    """What becomes of the names and numbers that a statement shares with what it cites."""
    texts = [doc.passage for doc in example.docs]
    taken = set(_VALUE.findall(" ".join([example.question, *texts])))
    shared: set[str] = set()
    for number in cited:
        numbers = {own for own in _VALUE.findall(texts[number - 1]) if own[0].isdigit()}
        shared |= numbers | _names(texts[number - 1])
    changes: dict[str, str] = {}
    for value in dict.fromkeys(_VALUE.findall(statement.claim)):
        if value not in shared or value in _VALUE.findall(example.question):
            continue
        others = [*pool[bisect(pool, value) :], *pool, *_NAMES]
        if value[0].isdigit():
            others = [value[:-1] + str((int(value[-1]) + more) % 10) for more in range(3, 10)]
        if other := next((own for own in others if own not in taken), None):
            changes[value] = other
            taken.add(other)
    return changes


def _names(text: str) -> set[str]:
    return {
        found[0]
        for found in _VALUE.finditer(text)
        if found[0][0].isupper() and _INSIDE.search(text[: found.start()])
    }


def _with(text: str, changes: Mapping[str, str]) -> str:
    return _VALUE.sub(lambda found: changes.get(found[0], found[0]), text)


def _altered(doc: Document, changes: Mapping[str, str]) -> Document:
    sentence = None if doc.sent is None else _with(doc.sent, changes)
    return replace(
        doc, title=_with(doc.title, changes), text=_with(doc.text, changes), sent=sentence
    )


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
    """The statements of an answer, each with the numbers in range that it cites; one that is made
    twice, once with all that it cites."""
    found: dict[str, tuple[Statement, set[int]]] = {}
    for own in example.read(example.output or "", load_splitter()).statements:
        numbers = {c.number for c in own.citations if 1 <= c.number <= len(example.docs)}
        found.setdefault(_words(own), (own, set()))[1].update(numbers)
    return list(found.values())


def _words(statement: Statement) -> str:
    return normalize_answer(statement.claim)
