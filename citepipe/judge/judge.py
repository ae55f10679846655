"""Judges answers: which statements are supported, which citations right, which gold answers hit.

Scores, rewards and search all read these judgements. The pairs of all answers are collected and
asked in three rounds, because what is asked of a citation depends on its statement: first whether
all cited documents together support each statement (and the entailment of gold claims), then
whether each of several citations supports its statement alone, then, for those that do not,
whether the others do without it (ALCE, section 3.2 and `compute_autoais`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from citepipe.data.example import Example
from citepipe.judge.citations import Cited, cited_documents, hypothesis, premise
from citepipe.judge.gold import GoldVerdict, claim_pairs, gold_verdicts
from citepipe.options import JudgeOptions
from citepipe.text.normalize import normalize_answer, remove_citations
from citepipe.text.sentences import Splitter
from citepipe.text.statements import Citation, Statement, split_answer
from citepipe.verify.base import Pair, Verifier, decide


class CitationVerdict(NamedTuple):
    """Whether a citation is right: its statement is supported, and needs it or rests on it."""

    citation: Citation
    right: bool


class StatementVerdict(NamedTuple):
    """Whether what a statement cites supports it; `citations` are those that count."""

    statement: Statement
    supported: bool
    citations: tuple[CitationVerdict, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """All verdicts on one answer; spans are of the cleaned answer."""

    statements: tuple[StatementVerdict, ...]
    gold: tuple[GoldVerdict, ...]

    @property
    def citation_rec(self) -> float:
        """Supported statements, in percent of all; 0 without any."""
        return percent([verdict.supported for verdict in self.statements])

    @property
    def citation_prec(self) -> float:
        """Right citations, in percent of those that count; 0 without any."""
        return percent([c.right for verdict in self.statements for c in verdict.citations])


def percent(flags: Sequence[bool]) -> float:
    """The share of true ones in percent, 0 of none."""
    return 100 * sum(flags) / len(flags) if flags else 0.0


def judge(
    examples: Sequence[Example],
    answers: Sequence[str],
    verifier: Verifier | None,
    splitter: Splitter,
    options: JudgeOptions,
    citations: bool = True,
    claims: bool = True,
) -> list[Judgement]:
    """Judge one answer per example.

    Args:
        examples: questions, documents and gold answers; the same one may come several times.
        answers: cleaned answers (`clean_output`), one per example.
        verifier: decides entailment; asked at most three times, for all answers at once. None
            if neither citations nor claims are judged.
        splitter: finds sentences.
        options: which citations count.
        citations: judge statements and their citations; else a judgement has no statements.
        claims: judge claims; else a judgement on an example with claims has no gold verdicts.
    """
    question_first: bool = getattr(verifier, "question_first", False)
    known: dict[Pair, bool] = {}
    jobs = [
        _jobs(example, split_answer(answer, example.dataset, splitter), question_first, options)
        if citations
        else []
        for example, answer in zip(examples, answers, strict=True)
    ]
    claimed = [
        claim_pairs(example, remove_citations(answer), question_first) if claims else []
        for example, answer in zip(examples, answers, strict=True)
    ]
    flat = [job for answer_jobs in jobs for job in answer_jobs]
    joint = [job.pair(job.cited.documents) for job in flat if job.cited.documents]
    if verifier is not None:
        decide(verifier, [*joint, *(pair for pairs in claimed for pair in pairs)], known)
        several = [
            job
            for job in flat
            if len(job.cited.documents) > 1 and known[job.pair(job.cited.documents)]
        ]
        decide(verifier, [job.pair((d,)) for job in several for d in job.cited.documents], known)
        decide(
            verifier,
            [
                job.pair(_without(job.cited.documents, d))
                for job in several
                for d in job.cited.documents
                if not known[job.pair((d,))]
            ],
            known,
        )
    return [
        Judgement(
            tuple(job.verdict(known) for job in answer_jobs),
            gold_verdicts(
                example, remove_citations(answer), [known[pair] for pair in pairs], options
            ),
        )
        for example, answer, answer_jobs, pairs in zip(
            examples, answers, jobs, claimed, strict=True
        )
    ]


@dataclass(frozen=True, slots=True)
class _Job:
    """A statement with what it cites, and the pairs that decide on it."""

    example: Example
    statement: Statement
    hypothesis: str
    cited: Cited

    def pair(self, documents: Sequence[int]) -> Pair:
        return Pair(premise(self.example, documents), self.hypothesis)

    def verdict(self, known: dict[Pair, bool]) -> StatementVerdict:
        documents = self.cited.documents
        supported = bool(documents) and known[self.pair(documents)]
        right = {d: supported and self._right(d, known) for d in documents}
        return StatementVerdict(
            self.statement,
            supported,
            tuple(
                CitationVerdict(citation, document is not None and right[document])
                for citation, document in self.cited.counted
            ),
        )

    def _right(self, document: int, known: dict[Pair, bool]) -> bool:
        """Of a supported statement: wrong is what neither supports it alone nor is needed."""
        documents = self.cited.documents
        if len(documents) == 1 or known[self.pair((document,))]:
            return True
        return not known[self.pair(_without(documents, document))]


def _jobs(
    example: Example, statements: Sequence[Statement], question_first: bool, options: JudgeOptions
) -> list[_Job]:
    jobs = []
    stated: set[str] = set()
    for statement in statements:
        cited = cited_documents(statement, len(example.docs), options)
        words = normalize_answer(statement.claim)
        if words in stated and not options.repetition_counts:
            cited = Cited((), tuple((citation, None) for citation, _ in cited.counted))
        stated.add(words)
        jobs.append(_Job(example, statement, hypothesis(example, statement, question_first), cited))
    return jobs


def _without(documents: Sequence[int], document: int) -> tuple[int, ...]:
    """The documents without the first occurrence of one."""
    place = documents.index(document)
    return (*documents[:place], *documents[place + 1 :])
