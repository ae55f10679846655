"""Human answers become cited ones after the fact.

Each sentence cites the smallest set of documents that a verifier finds to support it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from citepipe.data.example import Example
from citepipe.options import TeacherOptions
from citepipe.text.sentences import Splitter
from citepipe.text.statements import read_answer, with_citations
from citepipe.verify.base import Pair, Verifier


def attribute(
    examples: Sequence[Example], verifier: Verifier, splitter: Splitter, options: TeacherOptions
) -> list[Example]:
    """Give the human answers (`answer`) of examples citations, as their `output`.

    References of their own, such as [3], are taken out first: they are to other lists than the
    documents. Sets of one document are asked for all sentences at once, then sets of two for the
    sentences that are still open, and so on; of several sets of one size the first in document
    order is cited. An example of which no sentence is left keeps no output.
    """
    read = [read_answer(example.answer or "", "", splitter) for example in examples]
    sentences = [[statement.claim for statement in answer.statements] for answer in read]
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
