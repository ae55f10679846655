"""What a statement cites, and how premise and hypothesis are written (ALCE `compute_autoais`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from citepipe.data.example import Example
from citepipe.options import JudgeOptions
from citepipe.text.normalize import remove_citations
from citepipe.text.statements import Citation, Statement, is_list


@dataclass(frozen=True, slots=True)
class Cited:
    """The documents that a statement cites, and the citations that count in precision.

    Attributes:
        documents: indices from 0 (-1 for [0], the last one), in the order of the text; empty if
            the statement cites nothing or a citation is out of range: nothing can support it.
        counted: citations with the document that decides on them; None for one that is wrong
            whatever the documents say.
    """

    documents: tuple[int, ...]
    counted: tuple[tuple[Citation, int | None], ...]


def cited_documents(statement: Statement, n_docs: int, options: JudgeOptions) -> Cited:
    """Read a statement's citations.

    The range is checked over all citations, and only then are the first
    `options.at_most_citations` of them taken.

    Args:
        statement: a statement of an answer.
        n_docs: how many documents there are.
        options: ALCE's rules on [0], ids out of range and repetitions, or the sane ones.
    """
    taken = statement.citations[: options.at_most_citations]
    least = 0 if options.zero_is_last and n_docs > 0 else 1
    if any(not least <= citation.number <= n_docs for citation in statement.citations):
        if options.out_of_range_uncounted:
            return Cited((), ())
        return Cited((), tuple((citation, None) for citation in taken))
    documents = [citation.number - 1 for citation in taken]
    if options.doubled_is_judged:
        return Cited(tuple(documents), tuple(zip(taken, documents, strict=True)))
    counted = [
        (citation, None if document in documents[:place] else document)
        for place, (citation, document) in enumerate(zip(taken, documents, strict=True))
    ]
    return Cited(tuple(dict.fromkeys(documents)), tuple(counted))


def premise(example: Example, documents: Sequence[int]) -> str:
    """The passages of documents (indices from 0), a line break between two."""
    return "\n".join(example.docs[document].passage for document in documents)


def hypothesis(example: Example, statement: Statement, question_first: bool) -> str:
    """What has to follow from the premise: the statement without its citations.

    An item of a list comes with the question in front; a sentence does so for verifiers that were
    trained this way.
    """
    if is_list(example.dataset):
        return remove_citations(f"{example.question} {statement.text}").strip()
    return f"{example.question} {statement.claim}" if question_first else statement.claim
