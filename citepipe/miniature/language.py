"""The language of the miniature world: its names, its facts, and the sentences that state them.

The world writes documents and answers with these sentences and the oracle reads them back; both
use this one grammar, so a sentence means the same to both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

FIRST_NAMES = (
    "Anna Otto Clara Hugo Irene Felix Maria Oscar Ruth Simon Elsa Victor Nora Paul Greta Leon "
    "Alice Bruno Diana Edgar Frieda Gustav Helen Ivan Julia Karl Laura Martin Nina Peter Rosa "
    "Stefan Tessa Ulrich Vera Walter Agnes Boris Celia David"
).split()
LAST_NAMES = (
    "Berg Lind Moss Keller Vogel Hart Stone Novak Silva Rossi Weber Lang Costa Marsh Brandt Dahl "
    "Ekman Fuchs Grant Holm Jansen Kovacs Lopez Meyer Nolan Olsen Parker Quinn Reyes Sand Turner "
    "Ulmer Varga Wolf York Zimmer Abbott Bauer Carver Duran Engel Fisher Gomez Haas Ibsen Jordan "
    "Kaplan Lorenz Mercer Nash Ortiz Pope Rahn Sutter Thorn Voss"
).split()
FILM_FIRST = (
    "Silver Golden Hidden Broken Silent Distant Burning Frozen Empty Crimson Gentle Hollow Lonely "
    "Narrow Painted Quiet Restless Sacred Secret Shining Sleeping Stolen Sudden Sunken Tender "
    "Twisted Velvet Wandering Wicked Winter Ancient Bitter Bright Copper Daring Endless"
).split()
FILM_SECOND = (
    "River Harbor Garden Mirror Bridge Island Forest Mountain Window Letter Journey Castle Shadow "
    "Summer Morning Night Storm Valley Tower Station Road Ocean Orchard Palace Desert Dream Echo "
    "Feather Flame Horizon Kingdom Lantern Meadow Melody Promise Shore Song Street Thunder Train "
    "Village Voyage Whisper Door"
).split()
PRIZE_FIRST = (
    "Amber Laurel Comet Falcon Orion Lotus Phoenix Ruby Cedar Apollo Atlas Coral Delta Eagle Jade "
    "Maple Nova Opal Pearl Zenith"
).split()
PRIZE_SECOND = "Prize Award Medal Cup".split()
CITIES = (
    "Oslo Rome Paris Vienna Lisbon Prague Dublin Athens Berlin Madrid Geneva Cairo Tokyo Delhi "
    "Lima Boston Toronto Havana Seoul Naples Zurich Riga Malmo Porto"
).split()
PROFESSIONS = "singer painter actor writer dancer teacher doctor lawyer".split()
YEARS = [str(year) for year in range(1960, 2000)]

SPLITS = ("train", "dev", "test")


def split_of(name: str) -> str:
    """The one split in which a name may occur, by a hash of the whole combination.

    Single words are known from training; the combination of a dev or test name is not.
    """
    bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % 10
    return "test" if bucket < 2 else "dev" if bucket < 4 else "train"


def names_of(split: str, first: Iterable[str], second: Iterable[str]) -> list[str]:
    """All combinations of two words that belong to a split."""
    seconds = list(second)
    pairs = (f"{a} {b}" for a in first for b in seconds)
    return [name for name in pairs if split_of(name) == split]


class Fact(NamedTuple):
    """`relation` holds between two names; a name may be qualified (`1972 film Silver River`).

    Relations and the order of their names: directed(film, person), starred(film, person),
    won(film or person, prize), born(person, city), lived(person, city).
    """

    relation: str
    subject: str
    object: str


# How a predicate is said of its subject; the first column is the relation, and a star marks a
# predicate said of the relation's second name (`Anna Berg directed Silver River`).
_PREDICATES = {
    "directed": "was directed by {}",
    "starred": "starred {}",
    "won": "won the {}",
    "born": "was born in {}",
    "lived": "lived in {}",
    "directed*": "directed {}",
    "starred*": "starred in {}",
}

# The questions that ask for a list, with the relation each item completes.
_LIST_QUESTIONS = {
    "directed": "Which films were directed by {}?",
    "starred": "Which films starred {}?",
    "won": "Which people won the {}?",
    "won_film": "Which films won the {}?",
    "born": "Which people were born in {}?",
    "lived": "Which people lived in {}?",
}


def say(subject: str, relation: str, other: str) -> str:
    """A sentence; `relation` is a key of the predicates, with a star for the inverse."""
    return f"{subject} {_PREDICATES[relation].format(other)}."


def ask_list(kind: str, name: str) -> str:
    """A question for a list: `directed`, `starred`, `won`, `won_film`, `born` or `lived`."""
    return _LIST_QUESTIONS[kind].format(name)


def _pair(first: list[str], second: list[str]) -> str:
    return f"(?:{'|'.join(first)}) (?:{'|'.join(second)})"


_PERSON = _pair(FIRST_NAMES, LAST_NAMES)
_FILM = _pair(FILM_FIRST, FILM_SECOND)
_PRIZE = _pair(PRIZE_FIRST, PRIZE_SECOND)
_CITY = "|".join(CITIES)
_QUALIFIED_FILM = f"(?:{'|'.join(YEARS)}) film {_FILM}"
_QUALIFIED_PERSON = f"(?:{'|'.join(PROFESSIONS)}) {_PERSON}"
_SUBJECT = re.compile(
    f"(?:The (?P<qualified>{_QUALIFIED_FILM}|{_QUALIFIED_PERSON})"
    f"|(?:The film )?(?P<film>{_FILM})|(?P<person>{_PERSON})) "
)
_OBJECTS = {
    "directed": (_FILM, _PERSON),
    "starred": (_FILM, _PERSON),
    "won": (f"{_FILM}|{_PERSON}", _PRIZE),
    "born": (_PERSON, _CITY),
    "lived": (_PERSON, _CITY),
    "directed*": (_PERSON, _FILM),
    "starred*": (_PERSON, _FILM),
}
_CLAUSES = {
    relation: (
        re.compile(f"(?:.* )?(?:{subject})"),
        re.compile(_PREDICATES[relation].format(f"({other})")),
    )
    for relation, (subject, other) in _OBJECTS.items()
}
_ITEMS = {
    "directed": (_PERSON, _FILM),
    "starred": (_PERSON, _FILM),
    "won": (_PRIZE, _PERSON),
    "won_film": (_PRIZE, _FILM),
    "born": (_CITY, _PERSON),
    "lived": (_CITY, _PERSON),
}
_LISTED = {
    kind: re.compile(
        re.escape(_LIST_QUESTIONS[kind]).replace(r"\{\}", f"(?P<name>{name})")
        + f" (?P<item>{item})"
    )
    for kind, (name, item) in _ITEMS.items()
}


def parse_sentence(sentence: str) -> list[Fact]:
    """The facts that a sentence asserts: `subject predicate (and predicate)*`.

    Returns:
        The facts, qualified as the sentence qualifies them; empty for anything that is not a
        sentence of this language (a bare title, a fragment, a made-up word).
    """
    sentence = sentence.strip().removesuffix(".").rstrip()
    match = _SUBJECT.match(sentence)
    if match is None:
        return []
    subject = match["qualified"] or match["film"] or match["person"]
    facts = []
    for clause in sentence[match.end() :].split(" and "):
        fact = _parse_clause(subject, clause)
        if fact is None:
            return []
        facts.append(fact)
    return facts


def _parse_clause(subject: str, clause: str) -> Fact | None:
    for relation, (fits, predicate) in _CLAUSES.items():
        match = predicate.fullmatch(clause)
        if match is not None and fits.fullmatch(subject):
            if relation.endswith("*"):
                return Fact(relation[:-1], match[1], subject)
            return Fact(relation, subject, match[1])
    return None


def parse_list_item(text: str) -> list[Fact]:
    """The fact that a question for a list and one item assert together, or nothing."""
    text = text.strip().removesuffix(".").rstrip()
    for kind, pattern in _LISTED.items():
        match = pattern.fullmatch(text)
        if match is not None:
            return [Fact(kind.removesuffix("_film"), match["item"], match["name"])]
    return []


def weaken(fact: Fact) -> set[Fact]:
    """A fact and what follows from it: the same of the plain, unqualified names."""
    return {
        Fact(fact.relation, subject, other)
        for subject in (fact.subject, plain(fact.subject))
        for other in (fact.object, plain(fact.object))
    }


def plain(name: str) -> str:
    """A name without its qualifier: its last two words, or its only one."""
    return " ".join(name.split()[-2:])


def restate(title: str, text: str) -> str:
    """A document's sentence without the qualifier of its subject.

    `The 1972 film Silver River was directed by Anna Berg.` becomes `Silver River was ...`.
    """
    return text[text.index(title) :]


def document_facts(text: str) -> list[Fact]:
    """The facts behind a document: what its sentence says, and what follows from it."""
    return sorted(set().union(*(weaken(fact) for fact in parse_sentence(text))))


def words() -> list[str]:
    """Every word of the language, once each, in a fixed order."""
    grammar = " ".join([*_PREDICATES.values(), *_LIST_QUESTIONS.values()])
    grammar += " The film films and Who Where What is was known about did do happened to Why"
    grammar += " remembered prize won star direct live"
    functions = [w for w in re.findall(r"[A-Za-z]+", grammar)]
    pools = (
        functions,
        FIRST_NAMES,
        LAST_NAMES,
        FILM_FIRST,
        FILM_SECOND,
        PRIZE_FIRST,
        PRIZE_SECOND,
        CITIES,
        PROFESSIONS,
        YEARS,
    )
    return list(dict.fromkeys(word for pool in pools for word in pool))
