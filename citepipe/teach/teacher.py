"""Cited answers to distil: those that come with the data, or human answers that get citations.

A human answer without citations becomes a cited one after the fact: each sentence cites the
smallest set of documents that a verifier finds to support it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_examples
from citepipe.errors import InputError
from citepipe.options.teacher import TeacherOptions
from citepipe.progress import say, summary
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.verify.base import Pair, Verifier
from citepipe.verify.load import load_verifier


def attribute(
    examples: Sequence[Example], verifier: Verifier, splitter: Splitter, options: TeacherOptions
) -> list[Example]:
    """Give the human answers (`answer`) of examples citations, as their `output`.

    Sets of one document are asked for all sentences at once, then sets of two for the sentences
    that are still open, and so on; of several sets of one size the first in document order is
    cited. An example of which no sentence is left keeps no output.

    Args:
        examples: with documents and `answer`.
        verifier: decides whether documents support a sentence.
        splitter: finds the sentences.
        options: citations per sentence, and what becomes of sentences without support.
    """
    sentences = [
        [answer[start:end] for start, end in splitter(answer)]
        for answer in ((example.answer or "").replace("\n", " ").strip() for example in examples)
    ]
    cited: dict[tuple[int, int], tuple[int, ...]] = {}
    for size in range(1, options.at_most + 1):
        asked = [
            (e, s, chosen)
            for e, example in enumerate(examples)
            for s in range(len(sentences[e]))
            if (e, s) not in cited
            for chosen in combinations(range(len(example.docs)), size)
        ]
        pairs = [
            Pair("\n".join(examples[e].docs[d].passage for d in chosen), sentences[e][s])
            for e, s, chosen in asked
        ]
        for (e, s, chosen), supported in zip(asked, verifier.entails(pairs), strict=True):
            if supported:
                cited.setdefault((e, s), chosen)
    answers = []
    for e, example in enumerate(examples):
        kept = [
            with_citations(sentence, cited.get((e, s), ()))
            for s, sentence in enumerate(sentences[e])
            if (e, s) in cited or options.keep_uncited
        ]
        answers.append(replace(example, output=" ".join(kept) or None))
    return answers


def with_citations(sentence: str, docs: Sequence[int]) -> str:
    """A sentence with citations in front of its final stop, as ALCE's demonstrations have them.

    Args:
        sentence: without citations.
        docs: indices of documents, from 0; document 0 is cited as [1].
    """
    if not docs:
        return sentence
    body = sentence.rstrip(".!? ")
    return f"{body} {''.join(f'[{d + 1}]' for d in docs)}{sentence[len(body) :].strip() or '.'}"


def teach(
    train: Path,
    dev: Path,
    options: TeacherOptions,
    verifier: str,
    splitter: str,
    cache: Path | None,
    out_train: Path,
    out_dev: Path,
) -> str:
    """Write the train and dev examples with the cited answers that will be distilled.

    Every example is kept, since sampling and RL ask questions without a teacher's answer too.

    Raises:
        InputError: not a single example of a file has a cited answer in the end.
    """
    counts: dict[str, object] = {}
    for name, source, out in (("train", train, out_train), ("dev", dev, out_dev)):
        examples = read_examples(source)
        if options.citations == "attribute":
            without = [e for e in examples if not e.output]
            judge = load_verifier(verifier, cache)
            found = iter(attribute(without, judge, load_splitter(splitter), options))
            examples = [e if e.output else next(found) for e in examples]
        answered = sum(bool(e.output) for e in examples)
        if not answered:
            raise InputError(
                f"{source}: expected rows with the teacher's cited answer in field output, none "
                "has one (teacher.citations: attribute makes them from human answers)"
            )
        if answered < len(examples):
            say(f"teach: {len(examples) - answered} of {len(examples)} {name} rows have no answer")
        write_examples(out, examples)
        counts[f"{name} answers"] = answered
    return summary("teach", counts)
