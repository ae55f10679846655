"""Entailment without a model: do the words of a statement stand together in the premise?

A statement that a document has word for word, as whole sentences, is supported by it, in any
language; in other languages than English nothing else is.

Of other English statements there are two kinds. One that states a fact, with few words besides its
names and numbers, is supported if one sentence of one document (with the document's title, and with
the sentence before it if it begins with a pronoun) holds every name and number of it and nearly all
of its other content words, its names whole. One of more words sums up a passage. It is supported if
three successive sentences of a document hold its numbers, most of its names and, taken together,
enough of its words and of its phrases. A statement with several clauses may have each clause
supported by another document or sentence. No statement is supported if the sentences that say
nearly the same say it otherwise: denied, with other words in a place, with the sides of a verb
exchanged, more generally, or only with a word that limits it (`almost`).

It reads words, not meanings: a paraphrase is refused, and words that stand together without
saying what the statement says are accepted. What is not a statement is refused, whatever it
cites, because a policy that is rewarded by a verifier finds out what the verifier lets pass:
a bare title, a fragment without subject or verb or with an open end, a word said twice in a row,
a heap of words, or words that no English has one behind the other (`the of`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version

from citepipe.verify import english
from citepipe.verify.base import Pair, Provenance
from citepipe.verify.english import (
    PLAINLY_LONG,
    Document,
    Evidence,
    Gap,
    Sentence,
    read_documents,
    read_sentence,
    read_sentences,
)
from citepipe.verify.quotes import HONORIFICS, Quotable, read_quotable

_STAMMER = re.compile(r"\b(?!had\b|that\b)(\w+)\s+\1\b", re.IGNORECASE)
_QUESTION_MARKS = ("?", "？", "؟")
_LIST_QUESTION = re.compile(r"([^?]*\?)\s+(\S.*)", re.DOTALL)

# A statement of a fact may lack this share of its words besides names and numbers.
_SLACK = 0.25
# One with more sums up a passage. The mean of the shares of its content words, and of the pairs of
# neighbouring ones, that are found has to reach this; chosen on AttributionBench's dev pairs.
_FOUND = 0.43
_PHRASES = 0.25  # of its phrases at least
_PAIRS = 0.15  # of its pairs of neighbouring words of any kind at least
_NEGATIONS = 2  # at most
_NAMES_LACKING = 0.34
# A sentence with this share of a statement's content words is about the same matter, and must not
# contradict it; one that has so much in common with it says the same or was changed.
_RESTATED = 0.8
_SAME = 0.9
_SAME_BUT = 0.6
_BRIEF = 3  # words that may be exchanged for others
# Statements with fewer content words must show a subject and a verb, others only that they are
# not a mere heap of content words: that share of the words of a text are function words.
_FUNCTION_SHARE = 0.2
_CLAUSES = 4  # at most
_MINIMUM_BEYOND_TITLE = 2
_LONGEST_NAME = 50  # words
_LONGEST_STATEMENT = 20_000  # characters; what is longer is refused unread


class LexicalVerifier:
    """Decides entailment by words. Stateless but for memories of analysed texts."""

    name = "lexical"
    identity = "lexical 5"

    @property
    def provenance(self) -> Provenance:
        """What a score file says of it: decisions depend on this and nothing else."""
        versions = {package: version(package) for package in ("spacy", "nltk")}
        return {"kind": "lexical", "version": 5, **versions}

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order. What it cannot do is said once on stderr."""
        _say(
            "lexical compares words: what a document says in other words is refused (a model given "
            "as --verifier, or as verifiers in a configuration, reads meanings)"
        )
        return [_entails(read_documents(premise), hypothesis) for premise, hypothesis in pairs]


@cache
def _say(line: str) -> None:
    """A line on stderr, once in a process."""
    print(line, file=sys.stderr)


def _entails(documents: Sequence[Document], hypothesis: str) -> bool:
    if len(hypothesis) > _LONGEST_STATEMENT:
        return False
    hypothesis = english.readable(hypothesis)
    listed = _LIST_QUESTION.fullmatch(hypothesis)
    if listed is not None:
        question, item = read_sentence(listed[1]), read_sentence(listed[2])
        return any(_lists(document, question, item) for document in documents)
    if hypothesis.rstrip().endswith(_QUESTION_MARKS):
        return False
    if not all(document.english for document in documents):
        _say(
            "lexical knows the negations of English only: of documents in other languages, as some "
            "here are, it accepts whole sentences quoted word for word, and nothing else"
        )
    if _quoted(documents, read_quotable(hypothesis)):
        return True
    documents = [document for document in documents if document.english]
    if not documents or _STAMMER.search(hypothesis):
        return False
    statement = read_sentence(hypothesis)
    if not _is_statement(statement):
        return False
    if any(_contradicted(documents, sentence) for sentence in read_sentences(hypothesis)):
        return False
    if _supports(documents, statement):
        return True
    clauses = _clauses(statement)
    return 1 < len(clauses) <= _CLAUSES and all(_supports(documents, clause) for clause in clauses)


# -- word for word


def _quoted(documents: Sequence[Document], statement: Quotable) -> bool:
    """Whether the statement, or each sentence of it, is quoted from a document."""
    sentences = statement.sentences
    return any(_quotes(document, statement) for document in documents) or (
        len(sentences) > 1
        and all(any(_quotes(document, each) for document in documents) for each in sentences)
    )


def _quotes(document: Document, statement: Quotable) -> bool:
    if not statement.says_more(document.heading):
        return False
    if document.quotable.holds(statement, whole=True):
        return True
    # A line without a stop may be a heading.
    return (
        document.quotable.holds(statement, whole=False)
        and len(statement.text.split()) != 2
        and (not document.english or _is_statement(read_sentence(statement.text.strip())))
    )


# -- what may be supported at all


def _is_statement(sentence: Sentence) -> bool:
    """Whether a text says something of something: subject, verb, no open end."""
    tokens = sentence.tokens
    if sum(map(sentence.count, english.NEGATIONS)) > _NEGATIONS or sentence.pairs & english.BROKEN:
        return False
    if len(sentence.stems) < 2 or len(tokens) < 3 or tokens[-1].word in english.OPEN_ENDS:
        return False
    if len(sentence.stems) >= PLAINLY_LONG:
        functions = sum(not token.content for token in tokens)
        return functions >= _FUNCTION_SHARE * len(tokens)
    return len(sentence.subject) < len(tokens) and any(
        token.content or token.word in english.PRONOUNS for token in sentence.subject
    )


def _clauses(sentence: Sentence) -> list[Sentence]:
    """The clauses of a statement, each with the statement's subject in front.

    A coordinator separates clauses if there is a verb on its left and one soon on its right.
    """
    tokens, subject = sentence.tokens, sentence.subject
    starts, ends = [0], []
    for i, token in enumerate(tokens):
        if (
            token.word in english.COORDINATORS
            and i > len(subject)
            and any(t.verb for t in tokens[starts[-1] : i])
            and any(t.verb for t in tokens[i + 1 : i + 4])
        ):
            ends.append(i)
            starts.append(i + 1)
    clauses = [tokens[a:b] for a, b in zip(starts, [*ends, len(tokens)], strict=True)]
    return [Sentence(clauses[0]), *(Sentence(subject + clause) for clause in clauses[1:])]


# -- documents against a statement


def _supports(documents: Sequence[Document], statement: Sentence) -> bool:
    """Whether the documents support a statement, or a clause of one."""
    stems = statement.stems
    documents = [d for d in documents if len(stems - d.title.stems) >= _MINIMUM_BEYOND_TITLE]
    return any(
        _states(document, evidence, statement)
        for document in documents
        for evidence in document.evidence
    ) or (statement.long and _sums_up(documents, statement))


def _states(document: Document, evidence: Evidence, statement: Sentence) -> bool:
    """Whether a sentence of a document states a fact."""
    must = statement.stems - statement.words
    return (
        _covered(must, statement.words, evidence)
        and _shares_pairs(statement, evidence.parts)
        and not _contradicts(evidence, statement)
        and not _dangles(document, evidence, statement)
        and _whole_names(statement, evidence)
    )


def _contradicted(documents: Sequence[Document], statement: Sentence) -> bool:
    """Whether every sentence that says nearly the same says something else."""
    stems = statement.stems
    enough = _RESTATED * len(stems)
    restated = [
        _contradicts(evidence, statement)
        for document in documents
        for evidence in document.evidence
        if len(stems & (evidence.sentence.stems | document.title.stems)) >= enough
        or _changed(statement, evidence)
    ]
    return bool(restated) and all(restated)


def _contradicts(evidence: Evidence, statement: Sentence) -> bool:
    sentence = evidence.sentence
    return (
        sentence.negated != statement.negated
        or _changed(statement, evidence)
        or _torn_names(statement, evidence)
        or _swapped(statement, sentence)
        or _turned(statement, sentence)
    )


def _dangles(document: Document, evidence: Evidence, statement: Sentence) -> bool:
    """Whether a short statement speaks of somebody whom it does not name (`The singer lived`).

    Attribution asks for statements that can be understood by themselves (Rashkin et al. 2023);
    such a one can be copied from any document about anybody, unless in the document's own words.
    """
    subject = [token.word for token in statement.subject]
    title = document.title.stems
    if not subject or subject[0] not in english.DEFINITE or not title or title & statement.stems:
        return False
    if sum(t.content for t in statement.tokens) >= PLAINLY_LONG:
        return False
    named = any(token.name for token in statement.subject)
    theirs = [token.word for token in evidence.sentence.subject]
    return not named and (len(subject) < 2 or subject != theirs)


# -- a sentence that says nearly the same


def _common(statement: Sentence, sentence: Sentence) -> float:
    """The share of their words that two sentences have in common."""
    ours, theirs = statement.telling, sentence.telling
    return 2 * len(ours & theirs) / max(len(ours) + len(theirs), 1)


def _changed(statement: Sentence, evidence: Evidence) -> bool:
    """Whether the statement restates a sentence with other words in a place where it has some,
    with names, numbers or generality that it has not, or without what limits it."""
    sentence, common = evidence.sentence, _common(statement, evidence.sentence)
    if common < _SAME_BUT:
        return False
    gaps, lacking = statement.gaps(sentence.telling), sentence.gaps(statement.telling)
    exchanged = [
        (gap, other)
        for gap in gaps
        for other in lacking
        if other.before == gap.before
        and other.after == gap.after
        and max(len(gap.telling), len(other.telling)) <= _BRIEF
    ]
    # A long statement in which nothing but exchanged words differs was changed in several places.
    if statement.long and common < _SAME and not len(gaps) == len(lacking) == len(exchanged):
        return False
    known = {gap: all(token.stem in evidence.stems for token in gap.telling) for gap in gaps}
    return (
        any(not (known[gap] and _refers(other)) for gap, other in exchanged)
        or any(
            token.name or token.number or token.word in english.GENERAL
            for gap in gaps
            if not known[gap]
            for token in gap.run
        )
        or any(
            not any(token.content for token in gap.run)
            and not all(token.word in english.LINKS for token in gap.run)
            for gap in lacking
        )
    )


def _refers(gap: Gap) -> bool:
    """Whether words stand for something that is known by another name (`she`, `the film`)."""
    first = gap.run[0].word
    alone = len(gap.telling) == 1 and first in english.ANAPHORS
    return first in english.PRONOUNS or alone or bool(gap.left and gap.left[-1].word == "the")


def _turned(statement: Sentence, sentence: Sentence) -> bool:
    """Whether words on both sides of a third one have changed places, and no preposition makes up
    for that (`starred in`, `directed by`, `brother of`)."""
    if any(statement.count(link) != sentence.count(link) for link in ("by", "of")):
        return False
    ours, theirs = statement.order, sentence.order
    common = ours.keys() & theirs.keys()
    return any(
        statement.link(ours[p]) == sentence.link(theirs[p])
        and any(theirs[a] < theirs[p] and ours[a] > ours[p] for a in common)
        and any(theirs[b] > theirs[p] and ours[b] < ours[p] for b in common)
        for p in common
    )


def _sums_up(documents: Sequence[Document], statement: Sentence) -> bool:
    """Whether the statement sums up some three successive sentences of a document."""
    stems, phrases = statement.stems, statement.phrases
    numbers = {token.stem for token in statement.tokens if token.number}
    names = {token.stem for token in statement.tokens if token.name}
    known = frozenset[tuple[str, str]]().union(
        *(d.title.phrases for d in documents),
        *(evidence.sentence.phrases for d in documents for evidence in d.evidence),
    )
    share_of_phrases = len(phrases & known) / max(len(phrases), 1)

    evidence = [evidence.sentence for d in documents for evidence in d.evidence]
    if share_of_phrases < _PHRASES or not _shares_pairs(statement, evidence):
        return False

    def sum_up(around: set[str]) -> bool:
        return (
            numbers <= around
            and len(names - around) <= _NAMES_LACKING * len(names)
            and len(around) / len(stems) + share_of_phrases >= 2 * _FOUND
        )

    for document in documents:
        title = document.title.stems
        found = [stems & (evidence.sentence.stems | title) for evidence in document.evidence]
        triples = (found[max(i - 1, 0) : i + 2] for i in range(len(found)))
        if any(sum_up(set().union(*triple)) for triple in triples):
            return True
    return False


def _covered(must: frozenset[str], words: frozenset[str], evidence: Evidence) -> bool:
    """Whether the evidence holds all of `must` and nearly all of `words`."""
    return must <= evidence.stems and len(words - evidence.stems) <= int(len(words) * _SLACK)


def _shares_pairs(statement: Sentence, sentences: Sequence[Sentence]) -> bool:
    """Whether words of a statement stand side by side in sentences, and it is no mere heap."""
    known = frozenset[tuple[str, str]]().union(*(sentence.pairs for sentence in sentences))
    return len(statement.pairs & known) >= _PAIRS * len(statement.pairs)


def _whole_names(statement: Sentence, evidence: Evidence) -> bool:
    """Whether names of several words stand together in the evidence as they do here."""
    return all(
        any(part.joins(first, second) for part in evidence.parts)
        for first, second in statement.name_pairs
    )


def _torn_names(statement: Sentence, evidence: Evidence) -> bool:
    """Whether the statement takes apart a name of the evidence, using several of its words."""
    return any(
        first in statement.stems
        and second in statement.stems
        and not statement.joins(first, second)
        for part in evidence.parts
        for first, second in part.name_pairs
    )


def _swapped(statement: Sentence, sentence: Sentence) -> bool:
    """Whether a name that does something here suffers it there, or the other way round.

    Compared are sentences with the same verb, `X directed Y` and `Y was directed by X`; verbs
    with another preposition (`starred in`) only with their like.
    """
    for verb in statement.roles.keys() & sentence.roles.keys():
        link, doers, done = statement.roles[verb]
        their_link, their_doers, their_done = sentence.roles[verb]
        if (link or "by") == (their_link or "by") and (
            doers & (their_done - their_doers) or done & (their_doers - their_done)
        ):
            return True
    return False


# -- items of a list


def _lists(document: Document, question: Sentence, item: Sentence) -> bool:
    """Whether a sentence of the document answers a list question with an item, named whole."""
    if not item.tokens or len(item.tokens) > _LONGEST_NAME or item.stems <= question.stems:
        return False
    # The content of the question without the kind of thing that it is about (`films`).
    content = [token for token in question.tokens if token.content]
    if content and not (content[0].name or content[0].number):
        content = content[1:]
    must = frozenset(token.stem for token in content if token.name or token.number)
    words = frozenset(token.stem for token in content) - must
    return any(
        not evidence.sentence.negated
        and any(_named_whole(part, item) for part in evidence.parts)
        and _covered(must, words, evidence)
        and _whole_names(question, evidence)
        for evidence in document.evidence
    )


def _named_whole(sentence: Sentence, item: Sentence) -> bool:
    """Whether a name stands in a sentence as a name, and not as a part of a longer one."""
    tokens, named = sentence.tokens, [token.stem for token in item.tokens]
    for start in sentence.places.get(named[0], ()):
        end = start + len(named)
        window = tokens[start:end]
        if [token.stem for token in window] != named:
            continue
        before, after = tokens[max(start - 1, 0) : start], tokens[end : end + 1]
        if (
            any(token.name or token.number for token in window)
            and not any(t.name and t.word not in HONORIFICS for t in before)
            and not any(token.name for token in after)
        ):
            return True
    return False
