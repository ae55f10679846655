"""Judges answers: which statements are supported, which citations right, which gold answers hit.

Scores, rewards and search all read these judgements. The pairs of all answers are collected and
decided in three rounds, because what is queried of a citation depends on its statement: first
whether all cited documents together support each statement (and the entailment of gold claims),
then whether each of several citations supports its statement alone, then, for those that do not,
whether the others do without it (ALCE, section 3.2 and `compute_autoais`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from citepipe.data.example import Example
from citepipe.text.citations import Citation
from citepipe.text.normalize import normalize_answer
from citepipe.text.refusals import declines, refuses
from citepipe.text.statements import Answer, Rules, Statement, is_list, remove_citations
from citepipe.verify.base import Pair, Verifier, decide

NOT_SUPPORTED, PARTLY, ELSEWHERE = "not supported", "partly supported", "supported elsewhere"
OUT_OF_RANGE, REPEATED, REFUSAL = "out of range", "repeated", "refusal"


class CitationVerdict(NamedTuple):
    """Whether a citation is right: its statement is supported, and needs it or rests on it; and
    why: it `supports`, is `needless` beside the others, `repeated` or `out of range`, or its
    statement is `not supported`, or `partly supported`."""

    citation: Citation
    right: bool
    reason: str = ""


class StatementVerdict(NamedTuple):
    """Whether what a statement cites supports it; `citations` are those that count. The reason is
    that it is `supported`, `not supported`, `partly supported` (by a graded verifier, and not
    `supported`), or `supported elsewhere` (by the documents of these numbers, which it does not
    cite), that it `cites nothing` or what is `out of range`, is `repeated`, or a `refusal`; one
    that does not count is no claim."""

    statement: Statement
    supported: bool
    citations: tuple[CitationVerdict, ...]
    reason: str = ""
    elsewhere: tuple[int, ...] = ()
    counts: bool = True


class Judgement(NamedTuple):
    """All verdicts on one answer: on each statement, whether each gold answer (of qa_pairs,
    answers or claims) is in it, and whether it declines as a whole; if asked for, `first`: how far
    (1, 0.5, 0) each statement that counts is supported by the first document that it cites, by
    itself, None where it cites nothing."""

    statements: tuple[StatementVerdict, ...]
    gold: tuple[bool, ...]
    refused: bool = False
    first: tuple[float | None, ...] | None = None

    @property
    def claims(self) -> list[StatementVerdict]:
        """The statements that count."""
        return [verdict for verdict in self.statements if verdict.counts]

    @property
    def citation_rec(self) -> float:
        """Supported statements, in percent of those that count; 0 without any."""
        return percent([verdict.supported for verdict in self.claims])

    @property
    def citation_prec(self) -> float:
        """Right citations, in percent of those that count; 0 without any."""
        return percent([c.right for verdict in self.statements for c in verdict.citations])


def percent(flags: Sequence[bool]) -> float:
    """The share of true ones in percent, 0 of none."""
    return 100 * sum(flags) / len(flags) if flags else 0.0


def judge(
    examples: Sequence[Example],
    answers: Sequence[Answer],
    verifier: Verifier | None,
    at_most_citations: int | None = 3,
    citations: bool = True,
    claims: bool = True,
    known: dict[Pair, bool | None] | None = None,
    elsewhere: bool = False,
    refusals: bool = False,
    first: bool = False,
) -> list[Judgement]:
    """Judge one answer per example.

    Args:
        examples: the same one may come several times.
        answers: as they were read, one per example; ALCE's rules have peculiarities here too.
        verifier: queried at most three times, for all answers at once. None if neither citations
            nor claims are judged.
        at_most_citations: of a statement, in range, that count; None for all.
        citations: judge statements and their citations; else a judgement has no statements.
        claims: judge claims; else a judgement on an example with claims has no gold verdicts.
        known: decisions that are not queried again; new ones are added.
        elsewhere: look for support of what is not supported in the documents that are not cited,
            by a fourth query.
        refusals: recognise answers and sentences that decline; by the sane rules these sentences
            do not count. Else they are claims like others.
        first: judge the first document that each statement cites by itself (`Judgement.first`).
    """
    question_first: bool = getattr(verifier, "question_first", False)
    known = {} if known is None else known
    jobs: list[list[_Job]] = []
    claimed: list[list[Pair]] = []
    refused = [
        refusals and refuses(answer, is_list(example.dataset))
        for example, answer in zip(examples, answers, strict=True)
    ]
    for example, answer, whole in zip(examples, answers, refused, strict=True):
        own = answer if citations else answer._replace(statements=())
        declining = [whole or (refusals and declines(s.claim)) for s in own.statements]
        jobs.append(_jobs(example, own, question_first, at_most_citations, declining))
        claimed.append(_claim_pairs(example, answer, question_first) if claims else [])
    if verifier is not None:
        flat = [job for answer_jobs in jobs for job in answer_jobs if job.cited.documents]
        joint = [job.pair(job.cited.documents) for job in flat]
        decide(verifier, [*joint, *(pair for pairs in claimed for pair in pairs)], known)
        several = [
            (job, document)
            for job, pair in zip(flat, joint, strict=True)
            if len(job.cited.documents) > 1 and known[pair]
            for document in job.cited.documents
        ]
        alone = [job.pair((document,)) for job, document in several]
        alone += [job.pair(job.cited.documents[:1]) for job in flat] if first else []
        decide(verifier, alone, known)
        unsure = [(job, document) for job, document in several if not known[job.pair((document,))]]
        decide(verifier, [job.pair(job.others(document)) for job, document in unsure], known)
        if elsewhere:
            every = [job for answer_jobs in jobs for job in answer_jobs]
            decide(verifier, [job.pair((d,)) for job in every for d in job.uncited(known)], known)
    return [
        Judgement(
            tuple(job.verdict(known, elsewhere) for job in answer_jobs),
            _gold_hits(example, answer, [bool(known[p]) for p in pairs]),
            whole,
            tuple(job.first(known) for job in answer_jobs if job.counts) if first else None,
        )
        for example, answer, answer_jobs, pairs, whole in zip(
            examples, answers, jobs, claimed, refused, strict=True
        )
    ]


# -- what a statement cites, and what has to follow from it


class Cited(NamedTuple):
    """The documents that a statement cites: indices from 0 (-1 for [0], the last one), in the order
    of the text; none if a citation is out of range, so that nothing can support it.

    `counted` are the citations that count in precision, with the document that decides on them, or
    None where a citation is wrong whatever the documents say; `wrong` is the reason for which the
    statement is.
    """

    documents: tuple[int, ...]
    counted: tuple[tuple[Citation, int | None], ...]
    wrong: str = ""


def cited_documents(
    statement: Statement, n_docs: int, rules: Rules, at_most_citations: int | None = 3
) -> Cited:
    """Read a statement's citations of `n_docs` documents; the range of all is checked before the
    first `at_most_citations` of them are taken.

    By ALCE's rules [0] is the last document, a citation out of range takes all of its statement out
    of precision, and of a document that is cited twice both are judged; by the sane ones there is
    no [0], all of them are wrong, and so is the second.
    """
    taken = statement.citations[:at_most_citations]
    least = 0 if rules == "alce" and n_docs > 0 else 1
    if any(not least <= citation.number <= n_docs for citation in statement.citations):
        counting = () if rules == "alce" else taken
        return Cited((), tuple((citation, None) for citation in counting), OUT_OF_RANGE)
    documents = [citation.number - 1 for citation in taken]
    if not documents:
        return Cited((), (), "cites nothing")
    if rules == "alce":
        return Cited(tuple(documents), tuple(zip(taken, documents, strict=True)))
    counted = [
        (citation, None if document in documents[:place] else document)
        for place, (citation, document) in enumerate(zip(taken, documents, strict=True))
    ]
    return Cited(tuple(dict.fromkeys(documents)), tuple(counted))


def premise(example: Example, documents: Sequence[int]) -> str:
    """The passages of documents (indices from 0), a line break between two."""
    return "\n".join(example.docs[document].passage for document in documents)


def hypothesis(
    example: Example, statement: Statement, question_first: bool, rules: Rules = "sane"
) -> str:
    """What has to follow from the premise: the statement without its citations. The question is in
    front of an item of a list, and of a sentence for verifiers that were trained this way."""
    if is_list(example.dataset):
        if rules == "alce":
            return remove_citations(f"{example.question} {statement.text}").strip()
        return f"{example.question} {statement.claim}"
    return f"{example.question} {statement.claim}" if question_first else statement.claim


@dataclass(frozen=True, slots=True)
class _Job:
    """A statement with what it cites, and the pairs that decide on it."""

    example: Example
    statement: Statement
    hypothesis: str
    cited: Cited
    counts: bool = True

    def pair(self, documents: Sequence[int]) -> Pair:
        return Pair(premise(self.example, documents), self.hypothesis)

    def others(self, document: int) -> tuple[int, ...]:
        """The cited documents without the first occurrence of one."""
        documents = self.cited.documents
        place = documents.index(document)
        return (*documents[:place], *documents[place + 1 :])

    def first(self, known: dict[Pair, bool | None]) -> float | None:
        """See `Judgement.first`; what is out of range, or repeated, supports nothing."""
        if not self.statement.citations:
            return None
        documents = self.cited.documents[:1]
        own = known[self.pair(documents)] if documents else False
        return 0.5 if own is None else float(own)

    def uncited(self, known: dict[Pair, bool | None]) -> list[int]:
        """The documents that may support it and that it does not cite, if those it cites do not."""
        documents = self.cited.documents
        if self.cited.wrong in (REPEATED, REFUSAL) or (documents and known[self.pair(documents)]):
            return []
        return [d for d in range(len(self.example.docs)) if d not in documents]

    def verdict(self, known: dict[Pair, bool | None], elsewhere: bool) -> StatementVerdict:
        documents, wrong = self.cited.documents, self.cited.wrong
        own = known[self.pair(documents)] if documents else False
        supported, unsupported = bool(own), PARTLY if own is None else NOT_SUPPORTED
        right = {d: supported and self._right(d, known) for d in documents}
        verdicts = []
        for citation, document in self.cited.counted:
            is_right = document is not None and right[document]
            reason = "supports" if is_right else "needless" if supported else unsupported
            if document is None and wrong == OUT_OF_RANGE:
                if not 1 <= citation.number <= len(self.example.docs):
                    reason = OUT_OF_RANGE
            elif document is None:
                reason = REPEATED
            verdicts.append(CitationVerdict(citation, is_right, reason))
        others = self.uncited(known) if elsewhere else []
        by = tuple(d + 1 for d in others if known[self.pair((d,))])
        reason = "supported" if supported else ELSEWHERE if by else wrong or unsupported
        return StatementVerdict(self.statement, supported, (*verdicts,), reason, by, self.counts)

    def _right(self, document: int, known: dict[Pair, bool | None]) -> bool:
        """Of a supported statement: wrong is what neither supports it alone nor is needed."""
        if len(self.cited.documents) == 1 or known[self.pair((document,))]:
            return True
        return not known[self.pair(self.others(document))]


def _jobs(
    example: Example,
    answer: Answer,
    question_first: bool,
    at_most_citations: int | None,
    declining: Sequence[bool],
) -> list[_Job]:
    jobs = []
    stated: set[str] = set()
    for statement, declined in zip(answer.statements, declining, strict=True):
        cited = cited_documents(statement, len(example.docs), answer.rules, at_most_citations)
        words = normalize_answer(statement.claim)
        # By the sane rules what is stated again is not supported again.
        if words in stated and answer.rules == "sane":
            cited = Cited((), tuple((citation, None) for citation, _ in cited.counted), REPEATED)
        stated.add(words)
        is_claim = not declined or answer.rules == "alce"
        if declined and not (is_claim and statement.citations):
            cited = Cited((), (), REFUSAL)
        claim = hypothesis(example, statement, question_first, answer.rules)
        jobs.append(_Job(example, statement, claim, cited, is_claim))
    return jobs


# -- which gold answers an answer hits


def _claim_pairs(example: Example, answer: Answer, question_first: bool) -> list[Pair]:
    """The pairs that decide on an example's claims; none for ASQA and QAMPARI."""
    if example.judged_as in ("asqa", "qampari"):
        return []
    # Twice, as in ALCE: `[[1]2` is `[2` after the first time.
    text = remove_citations(answer.bare) if answer.rules == "alce" else answer.bare
    lead = f"{example.question} " if question_first else ""
    return [Pair(text, lead + claim) for claim in example.claims]


def _gold_hits(example: Example, answer: Answer, entailed: Sequence[bool]) -> tuple[bool, ...]:
    """Whether each gold answer is in the answer: ASQA's as a substring (ALCE `exact_presence`),
    QAMPARI's as an item, claims as `entailed` says. By ALCE's rules one that normalises to nothing
    (`The`) is in every text, by the sane ones in none."""
    if example.judged_as == "asqa":
        text, blank = normalize_answer(answer.bare), answer.rules == "alce"
        return tuple(_holds(text, pair.short_answers, blank) for pair in example.qa_pairs)
    if example.dataset == "qampari":
        found = set(predicted_items(answer))
        return tuple(
            any(normalize_answer(alias) in found for alias in aliases)
            for aliases in example.answers
        )
    return tuple(entailed)


def _holds(text: str, aliases: Sequence[str], blank: bool = False) -> bool:
    """Whether a normalised text has one of the aliases, or `blank` if one is empty."""
    return any(alias in text if alias else blank for alias in map(normalize_answer, aliases))


def answerable(
    examples: Sequence[Example],
    verifier: Verifier | None,
    known: dict[Pair, bool | None] | None = None,
) -> list[bool | None]:
    """Whether the documents of each example hold a gold answer: a short one as a string, a claim if
    the verifier says that all of them together entail it. None without gold answers; if the human
    answer or one of these declines, they hold none."""
    lead = getattr(verifier, "question_first", False)
    known = {} if known is None else known
    claimed: list[list[Pair]] = []
    for example in examples:
        own = example.claims if example.judged_as in ("eli5", "expertqa") else ()
        text = premise(example, range(len(example.docs)))
        claimed.append([Pair(text, f"{example.question} {c}" if lead else c) for c in own])
    if verifier is not None:
        decide(verifier, [pair for pairs in claimed for pair in pairs], known)
    found: list[bool | None] = []
    for example, pairs in zip(examples, claimed, strict=True):
        names = [pair.short_answers for pair in example.qa_pairs] or example.answers
        if gold_declines(example):
            found.append(False)
        elif names:
            text = normalize_answer(premise(example, range(len(example.docs))))
            found.append(any(_holds(text, aliases) for aliases in names))
        else:
            found.append(any(known[pair] for pair in pairs) if pairs else None)
    return found


def gold_declines(example: Example) -> bool:
    """Whether the human answer to a question, or a gold answer, says that there is none."""
    names = [pair.short_answers for pair in example.qa_pairs] or example.answers
    texts = (example.answer or "", *example.long_answers, *example.claims)
    return any(map(declines, (*texts, *(alias for aliases in names for alias in aliases))))


def predicted_items(answer: Answer) -> list[str]:
    """The items of a list answer, normalised, without those that normalise to nothing."""
    return list(filter(None, (normalize_answer(item.claim) for item in answer.statements)))


# -- a judgement as JSON


def verdict_records(judgement: Judgement) -> dict[str, list[dict[str, Any]]]:
    """Every verdict of a judgement, with its place in the answer.

    A `span` is characters `[start, end]` of the raw answer, `cited` are numbers of documents,
    `statement` is an index in `statements`, `index` one in qa_pairs, answers or claims. Of
    citations those are listed that count.
    """

    def span(place: Statement | Citation) -> list[int]:
        return [place.start, place.end]

    return {
        "statements": [
            {
                "span": span(verdict.statement),
                "text": verdict.statement.text,
                "cited": [citation.number for citation in verdict.statement.citations],
                "supported": verdict.supported,
                "reason": verdict.reason,
                **({"elsewhere": list(verdict.elsewhere)} if verdict.elsewhere else {}),
            }
            for verdict in judgement.statements
        ],
        "citations": [
            {
                "span": span(cited.citation),
                "id": cited.citation.number,
                "statement": index,
                "right": cited.right,
                "reason": cited.reason,
            }
            for index, verdict in enumerate(judgement.statements)
            for cited in verdict.citations
        ],
        "gold": [{"index": index, "hit": hit} for index, hit in enumerate(judgement.gold)],
    }
