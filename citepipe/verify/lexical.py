"""Entailment without a model: do the words of a statement stand together in the premise?

A statement is supported if one sentence of one document (with the document's title, and with the
sentence before it if it begins with a pronoun) holds every name and number of the statement and
nearly all of its other content words, with the same negation, its names whole, and nobody on the
wrong side of a shared verb. A statement with several clauses may have each clause supported by
another document or sentence.

It reads words, not meanings: a paraphrase is refused, and words that stand together without
saying what the statement says are accepted. What is not a statement is refused, whatever it
cites, because a policy that is rewarded by a verifier finds out what the verifier lets pass:
a bare title, a fragment without subject or verb or with an open end, a word said twice in a row,
a heap of content words.

The tokenizer and the lists of words are the package's own, because importing spaCy imports torch
and takes seconds; the stemmer is NLTK's Snowball (Porter 2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from nltk.stem.snowball import SnowballStemmer

from citepipe.text.sentences import load_splitter
from citepipe.verify import english
from citepipe.verify.base import Pair

_PUNCTUATION = frozenset(",;:()")
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|[,;:()]")
_TITLE = re.compile(r"(?:^|\n)Title: ([^\n]*)(?=\n|$)")
_LIST_QUESTION = re.compile(r"([^?]*\?)\s+(\S.*)", re.DOTALL)

# Shares of a statement's content words that the evidence may lack; chosen, with the number of
# words from which the larger ones hold, on AttributionBench's dev pairs.
_MANY_WORDS = 5
_SLACK = 0.25
_SLACK_IN_SENTENCE = 0.6
_SLACK_AROUND = 0.4
# Statements with fewer content words must show a subject and a verb, others only that they are
# not a mere heap of content words: that share of the words of a text are function words.
_PLAINLY_LONG = 8
_FUNCTION_SHARE = 0.15
_MINIMUM_BEYOND_TITLE = 2
_NAME_REACH = 3
_STEMS = 1 << 16
_TEXTS = 1 << 15

_stemmer = SnowballStemmer("english")


@lru_cache(maxsize=_STEMS)
def _stem(word: str) -> str:
    """The stem of a lower-case word; irregular verbs and number words by their lists."""
    word = english.NUMBERS.get(word, word)
    stem: str = _stemmer.stem(english.LEMMAS.get(word, word))
    return stem


@dataclass(frozen=True, slots=True)
class _Token:
    """A word: its lower-case form and stem, and what kind of word it is."""

    word: str
    stem: str
    content: bool
    name: bool
    verb: bool

    @property
    def number(self) -> bool:
        return self.stem[0].isdigit()

    @property
    def must_match(self) -> bool:
        return self.name or self.number


@dataclass(frozen=True, slots=True)
class _Sentence:
    """The tokens of a sentence, and what is asked of them often."""

    tokens: tuple[_Token, ...]
    stems: frozenset[str]
    places: dict[str, list[int]]
    negated: bool
    anaphoric: bool


@dataclass(frozen=True, slots=True)
class _Document:
    title: _Sentence
    sentences: tuple[_Sentence, ...]


class LexicalVerifier:
    """Decides entailment by words. Stateless but for memories of analysed texts."""

    name = "lexical"
    identity = "lexical 1"

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order."""
        return [_entails(_documents(premise), hypothesis) for premise, hypothesis in pairs]


def _entails(documents: tuple[_Document, ...], hypothesis: str) -> bool:
    listed = _LIST_QUESTION.fullmatch(hypothesis)
    if listed is not None:
        question, item = _sentence(listed[1]), _sentence(listed[2])
        return any(_lists(document, question, item) for document in documents)
    statement = _sentence(hypothesis)
    if hypothesis.rstrip().endswith("?") or not _is_statement(statement):
        return False
    if any(_supports(document, statement.tokens, statement.negated) for document in documents):
        return True
    clauses = _clauses(statement)
    return len(clauses) > 1 and all(
        any(_supports(document, clause, _is_negated(clause)) for document in documents)
        for clause in clauses
    )


# -- what may be supported at all


def _is_statement(sentence: _Sentence) -> bool:
    """Whether a text says something of something: subject, verb, no open end, no stammer."""
    tokens = sentence.tokens
    if len(sentence.stems) < 2 or tokens[-1].word in english.OPEN_ENDS:
        return False
    for first, second in pairwise(tokens):
        if first.word == second.word and first.word not in ("had", "that"):
            return False
    if len(sentence.stems) >= _PLAINLY_LONG:
        functions = sum(token.word in english.FUNCTION_WORDS for token in tokens)
        return functions >= _FUNCTION_SHARE * len(tokens)
    verb = next((i for i, token in enumerate(tokens) if token.verb), None)
    return verb is not None and any(
        token.content or token.word in english.PRONOUNS for token in tokens[:verb]
    )


def _clauses(sentence: _Sentence) -> list[tuple[_Token, ...]]:
    """The clauses of a statement, each with the statement's subject in front.

    A coordinator separates clauses if there is a verb on its left and one soon on its right.
    """
    tokens = sentence.tokens
    verb = next((i for i, token in enumerate(tokens) if token.verb), len(tokens))
    subject = tokens[:verb]
    clauses: list[tuple[_Token, ...]] = []
    begin = 0
    for i, token in enumerate(tokens):
        if token.word not in english.COORDINATORS or i <= verb:
            continue
        if any(t.verb for t in tokens[begin:i]) and any(t.verb for t in tokens[i + 1 : i + 4]):
            clauses.append(tokens[begin:i])
            begin = i + 1
    clauses.append(tokens[begin:])
    return [clauses[0], *(subject + clause for clause in clauses[1:])]


# -- one document against a statement or a list item


def _supports(document: _Document, statement: tuple[_Token, ...], negated: bool) -> bool:
    """Whether some sentence of the document supports a statement."""
    must = {token.stem for token in statement if token.must_match}
    words = {token.stem for token in statement if token.content} - must
    title = document.title.stems
    if len((must | words) - title) < _MINIMUM_BEYOND_TITLE:
        return False
    if _dangles(statement) and title and not title & (must | words):
        return False
    for i, sentence in enumerate(document.sentences):
        evidence = _evidence(document, i)
        if (
            sentence.negated == negated
            and _covered(must, words, evidence, _around(document, i))
            and _whole_names(statement, evidence)
            and not _torn_names(statement, evidence)
            and not _swapped(statement, sentence.tokens)
        ):
            return True
    return False


def _dangles(statement: Sequence[_Token]) -> bool:
    """Whether a short statement speaks of somebody whom it does not name (`The singer lived`).

    Attribution asks for statements that can be understood by themselves (Rashkin et al. 2023);
    such a one can be copied from any document about anybody.
    """
    if not statement or statement[0].word not in english.DEFINITE:
        return False
    verb = next((i for i, token in enumerate(statement) if token.verb), len(statement))
    content = sum(token.content for token in statement)
    return content < _PLAINLY_LONG and not any(token.name for token in statement[:verb])


def _evidence(document: _Document, i: int) -> list[_Sentence]:
    """What is read with sentence `i`: the title, and the sentence that its pronoun refers to."""
    referred = [document.sentences[i - 1]] if document.sentences[i].anaphoric and i > 0 else []
    return [document.title, document.sentences[i], *referred]


def _around(document: _Document, i: int) -> tuple[_Sentence, ...]:
    return document.sentences[max(i - 1, 0) : i + 2]


def _covered(
    must: set[str],
    words: set[str],
    evidence: Sequence[_Sentence],
    around: Sequence[_Sentence],
) -> bool:
    """Whether the evidence holds all of `must` and nearly all of `words`.

    A statement of many words sums up more than one sentence, as long ones of real answers do: it
    may take names and words from the sentences around, and lack more of them.
    """
    if len(words) < _MANY_WORDS:
        return not _missing(must, evidence) and len(_missing(words, evidence)) <= int(
            len(words) * _SLACK
        )
    every = must | words
    lacking = _missing(every, evidence)
    if len(lacking) > len(every) * _SLACK_IN_SENTENCE or any(s[0].isdigit() for s in lacking):
        return False
    lacking = _missing(lacking, around)
    return len(lacking & must) <= len(must) * _SLACK and len(lacking) <= len(every) * _SLACK_AROUND


def _missing(stems: set[str], evidence: Sequence[_Sentence]) -> set[str]:
    return {stem for stem in stems if not any(stem in part.stems for part in evidence)}


def _whole_names(statement: Sequence[_Token], evidence: Sequence[_Sentence]) -> bool:
    """Whether names of several words stand together in the evidence as they do here."""
    return all(
        any(_together(first, second, part.tokens, part.places) for part in evidence)
        for first, second in _name_pairs(statement)
    )


def _torn_names(statement: Sequence[_Token], evidence: Sequence[_Sentence]) -> bool:
    """Whether the statement takes apart a name of the evidence, using several of its words."""
    places = _places(statement)
    return any(
        first in places and second in places and not _together(first, second, statement, places)
        for part in evidence
        for first, second in _name_pairs(part.tokens)
    )


def _name_pairs(tokens: Sequence[_Token]) -> list[tuple[str, str]]:
    return [
        (first.stem, second.stem)
        for first, second in pairwise(tokens)
        if first.name and second.name
    ]


def _together(
    first: str, second: str, tokens: Sequence[_Token], places: dict[str, list[int]]
) -> bool:
    """Whether `second` follows `first` with at most middle names or initials in between."""
    return any(
        0 < b - a <= _NAME_REACH
        and all(token.name or len(token.word) == 1 for token in tokens[a + 1 : b])
        for a in places.get(first, ())
        for b in places.get(second, ())
    )


def _swapped(statement: Sequence[_Token], evidence: Sequence[_Token]) -> bool:
    """Whether a name that does something here suffers it there, or the other way round.

    Compared are sentences with the same verb, `X directed Y` and `Y was directed by X`; verbs
    with another preposition (`starred in`) only with their like.
    """
    here = _roles(statement)
    for verb, (link, doers, done) in here.items():
        there = _roles(evidence).get(verb)
        if there is None or (link or "by") != (there[0] or "by"):
            continue
        _, their_doers, their_done = there
        if doers & (their_done - their_doers) or done & (their_doers - their_done):
            return True
    return False


def _roles(tokens: Sequence[_Token]) -> dict[str, tuple[str, frozenset[str], frozenset[str]]]:
    """Per verb (stem): the preposition behind it, the names that do it, and the others."""
    roles = {}
    for i, token in enumerate(tokens):
        if not (token.verb and token.content):
            continue
        follower = tokens[i + 1].word if i + 1 < len(tokens) else ""
        link = follower if follower in english.PREPOSITIONS else ""
        before = frozenset(t.stem for t in tokens[:i] if t.name)
        after = frozenset(t.stem for t in tokens[i + 1 :] if t.name)
        roles[token.stem] = (link, after, before) if link == "by" else (link, before, after)
    return roles


def _lists(document: _Document, question: _Sentence, item: _Sentence) -> bool:
    """Whether a sentence of the document answers a list question with an item, named whole."""
    named = item.tokens
    if not named or item.stems <= question.stems:
        return False
    asked = _asked(question)
    must = {token.stem for token in asked if token.must_match}
    words = {token.stem for token in asked} - must
    for i, sentence in enumerate(document.sentences):
        evidence = _evidence(document, i)
        if (
            not sentence.negated
            and any(_named_whole(part, named) for part in evidence)
            and _covered(must, words, evidence, ())
            and _whole_names(question.tokens, evidence)
        ):
            return True
    return False


def _asked(question: _Sentence) -> list[_Token]:
    """The content of a list question without the kind of thing that it asks for (`films`)."""
    content = [token for token in question.tokens if token.content]
    return content[1:] if content and not content[0].must_match else content


def _named_whole(sentence: _Sentence, named: Sequence[_Token]) -> bool:
    """Whether a name stands in a sentence as a name, and not as a part of a longer one."""
    tokens, size = sentence.tokens, len(named)
    for start in sentence.places.get(named[0].stem, ()):
        window = tokens[start : start + size]
        if [t.stem for t in window] != [t.stem for t in named]:
            continue
        if not any(token.name or token.number for token in window):
            continue
        before = tokens[start - 1] if start > 0 else None
        after = tokens[start + size] if start + size < len(tokens) else None
        if before is not None and before.name and before.word not in english.HONORIFICS:
            continue
        if after is None or not after.name:
            return True
    return False


# -- reading


@lru_cache(maxsize=_TEXTS)
def _documents(premise: str) -> tuple[_Document, ...]:
    """The documents of a premise; a text that does not begin with a title is one without."""
    parts = _TITLE.split(premise)
    untitled = [("", parts[0])] if parts[0].strip() else []
    return tuple(
        _document(title, text)
        for title, text in [*untitled, *zip(parts[1::2], parts[2::2], strict=True)]
    )


@lru_cache(maxsize=_TEXTS)
def _document(title: str, text: str) -> _Document:
    split = load_splitter("punkt-rules")
    sentences = [line[a:b] for line in text.splitlines() for a, b in split(line)]
    # A document that is only a title still states it.
    return _Document(_sentence(title), tuple(_sentence(s) for s in sentences or [""]))


@lru_cache(maxsize=_TEXTS)
def _sentence(text: str) -> _Sentence:
    tokens: list[_Token] = []
    written = _TOKEN.findall(text)
    for i, form in enumerate(written):
        word = form.lower().replace("’", "'")
        if word not in english.FUNCTION_WORDS:
            word = word.removesuffix("'s").removesuffix("'")
        function = word in english.FUNCTION_WORDS or (len(word) == 1 and not word.isdigit())
        capital = form[0].isupper()
        if i == 0 or written[i - 1] in _PUNCTUATION:
            # Any word may be capitalised here; it is a name if another one follows.
            capital = capital and i + 1 < len(written) and written[i + 1][0].isupper()
        name = capital and not function
        before = tokens[-1].word if tokens else ""
        tokens.append(
            _Token(word, _stem(word), not function, name, not name and _is_verb(word, before))
        )
    places = _places(tokens)
    return _Sentence(
        tuple(tokens),
        frozenset(places),
        places,
        _is_negated(tokens),
        bool(tokens) and tokens[0].word in english.ANAPHORS,
    )


def _places(tokens: Sequence[_Token]) -> dict[str, list[int]]:
    """Where each content word (stem) stands."""
    places: dict[str, list[int]] = {}
    for i, token in enumerate(tokens):
        if token.content:
            places.setdefault(token.stem, []).append(i)
    return places


def _is_verb(word: str, before: str) -> bool:
    """Whether a word looks like a finite verb: an auxiliary, a past form, or one with an s."""
    if word in english.AUXILIARIES or word in english.PAST_FORMS:
        return True
    if before in english.DETERMINERS or before in english.PREPOSITIONS:
        return False
    if len(word) > 4 and word.endswith("ed"):
        return True
    return len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "ics"))


def _is_negated(tokens: Sequence[_Token]) -> bool:
    return sum(token.word in english.NEGATIONS for token in tokens) % 2 == 1
