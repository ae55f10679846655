"""The language of the miniature world: its names, its facts, and the sentences that state them.

The world writes documents and answers with these sentences and the oracle reads them back; both
use this one grammar, so a sentence means the same to both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

_words = str.split

FIRST_NAMES = _words(
    """
    Anna Otto Clara Hugo Irene Felix Maria Oscar Ruth Simon Elsa Victor Nora Paul Greta Leon
    Alice Bruno Diana Edgar Frieda Gustav Helen Ivan Julia Karl Laura Martin Nina Peter Rosa
    Stefan Tessa Ulrich Vera Walter Agnes Boris Celia David
    """
)
LAST_NAMES = _words(
    """
    Berg Lind Moss Keller Vogel Hart Stone Novak Silva Rossi Weber Lang Costa Marsh Brandt Dahl
    Ekman Fuchs Grant Holm Jansen Kovacs Lopez Meyer Nolan Olsen Parker Quinn Reyes Sand Turner
    Ulmer Varga Wolf York Zimmer Abbott Bauer Carver Duran Engel Fisher Gomez Haas Ibsen Jordan
    Kaplan Lorenz Mercer Nash Ortiz Pope Rahn Sutter Thorn Voss
    """
)
FILM_FIRST = _words(
    """
    Silver Golden Hidden Broken Silent Distant Burning Frozen Empty Crimson Gentle Hollow Lonely
    Narrow Painted Quiet Restless Sacred Secret Shining Sleeping Stolen Sudden Sunken Tender
    Twisted Velvet Wandering Wicked Winter Ancient Bitter Bright Copper Daring Endless
    """
)
FILM_SECOND = _words(
    """
    River Harbor Garden Mirror Bridge Island Forest Mountain Window Letter Journey Castle Shadow
    Summer Morning Night Storm Valley Tower Station Road Ocean Orchard Palace Desert Dream Echo
    Feather Flame Horizon Kingdom Lantern Meadow Melody Promise Shore Song Street Thunder Train
    Village Voyage Whisper Door
    """
)
PRIZE_FIRST = _words(
    """
    Amber Laurel Comet Falcon Orion Lotus Phoenix Ruby Cedar Apollo Atlas Coral Delta Eagle Jade
    Maple Nova Opal Pearl Zenith
    """
)
PRIZE_SECOND = ["Prize", "Award", "Medal", "Cup"]
CITIES = _words(
    """
    Oslo Rome Paris Vienna Lisbon Prague Dublin Athens Berlin Madrid Geneva Cairo Tokyo Delhi
    Lima Boston Toronto Havana Seoul Naples Zurich Riga Malmo Porto
    """
)
YEARS = [str(year) for year in range(1960, 2000)]

# The words of the other questions.
QUESTION_WORDS = (
    "Who Where What Why Which is was known about did do happened to the and film live open study "
    "prize win remembered"
)

SPLITS = ("train", "dev", "test")


def split_of(name: str) -> str:
    """The one split in which a combination of words, all known from training, may occur."""
    bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % 10
    return "test" if bucket < 2 else "dev" if bucket < 4 else "train"


def names_of(split: str, first: Iterable[str], second: Iterable[str]) -> list[str]:
    """All combinations of two words that belong to a split."""
    seconds = list(second)
    pairs = (f"{a} {b}" for a in first for b in seconds)
    return [name for name in pairs if split_of(name) == split]


class Fact(NamedTuple):
    """`relation` holds between `subject` and `object`, in `year` ("" where that is left open).

    Relations and the order of their names: directed(film, person), starred(film, person),
    won(film or person, prize), opened(film, city), lived(person, city), studied(person, city).
    """

    relation: str
    subject: str
    object: str
    year: str = ""


# How facts are said, {s} being the relation's first name and {o} its second; a star marks the
# form that begins with the second.
_FORMS = {
    "starred": "{s} starred {o}",
    "won": "{s} won the {o}",
    "opened": "{s} opened in {o}",
    "lived": "{s} lived in {o}",
    "studied": "{s} studied in {o}",
    "directed*": "{o} directed {s}",
    "starred*": "{o} starred in {s}",
    "won*": "The {o} went to {s}",
}

# What asks for the first names of a relation, given its second.
_LIST_QUESTIONS = {
    "directed": "Which films had {o} directed?",
    "starred": "Which films had {o} starred in?",
    "won": "Which people had the {o} gone to?",
}


def say(form: str, fact: Fact) -> str:
    """The sentence that states a fact in one of the forms (`directed`, `directed*`, ...)."""
    said = _FORMS[form].format(s=fact.subject, o=fact.object)
    return f"{said} in {fact.year}." if fact.year else f"{said}."


def ask_list(relation: str, name: str) -> str:
    """The question for all that stand in a relation to a name."""
    return _LIST_QUESTIONS[relation].format(o=name)


_FILM = f"(?:{'|'.join(FILM_FIRST)}) (?:{'|'.join(FILM_SECOND)})"
_PERSON = f"(?:{'|'.join(FIRST_NAMES)}) (?:{'|'.join(LAST_NAMES)})"
_PRIZE = f"(?:{'|'.join(PRIZE_FIRST)}) (?:{'|'.join(PRIZE_SECOND)})"
_CITY = "|".join(CITIES)
_KINDS = {
    "directed": (_FILM, _PERSON),
    "starred": (_FILM, _PERSON),
    "won": (f"{_FILM}|{_PERSON}", _PRIZE),
    "opened": (_FILM, _CITY),
    "lived": (_PERSON, _CITY),
    "studied": (_PERSON, _CITY),
}


def _pattern(form: str, relation: str) -> re.Pattern[str]:
    subject, other = _KINDS[relation]
    return re.compile(form.format(s=f"(?P<s>{subject})", o=f"(?P<o>{other})"))


_YEAR = re.compile(f"(.*) in ({'|'.join(YEARS)})")
_SUBJECT = re.compile(f"({_PERSON}|{_FILM}|The (?:{_PRIZE})|{_CITY}) ")
_SENTENCES = {form: _pattern(said, form.removesuffix("*")) for form, said in _FORMS.items()}
_LISTED = {
    relation: _pattern(question.replace("?", r"\?") + " {s}", relation)
    for relation, question in _LIST_QUESTIONS.items()
}


def parse_sentence(sentence: str) -> list[Fact]:
    """The facts of one subject that a sentence asserts, joined by `and`; none if it is not of this
    language (a bare title, a fragment, a made-up word)."""
    first, *more = sentence.strip().removesuffix(".").rstrip().split(" and ")
    subject = _SUBJECT.match(first)
    clauses = [first, *(f"{subject[1]} {clause}" for clause in more if subject)]
    facts = []
    for clause in clauses:
        dated = _YEAR.fullmatch(clause)
        said, year = dated.groups() if dated else (clause, "")
        facts.append(_matched(_SENTENCES, said, year))
    return [fact for found in facts for fact in found] if all(facts) else []


def parse_list_item(text: str) -> list[Fact]:
    """The fact that a question for a list and one item assert together, or nothing."""
    return _matched(_LISTED, text.strip().removesuffix(".").rstrip())


def _matched(patterns: dict[str, re.Pattern[str]], text: str, year: str = "") -> list[Fact]:
    for form, pattern in patterns.items():
        if match := pattern.fullmatch(text):
            return [Fact(form.removesuffix("*"), match["s"], match["o"], year)]
    return []


def weaken(fact: Fact) -> set[Fact]:
    """A fact and what follows from it: the same without its year."""
    return {fact, fact._replace(year="")}


def words() -> list[str]:
    """Every word of the language, once each, in a fixed order."""
    grammar = " ".join([*_FORMS.values(), *_LIST_QUESTIONS.values(), QUESTION_WORDS])
    functions = re.findall(r"[A-Za-z]+", re.sub(r"\{.\}", "", grammar))
    names = [*FIRST_NAMES, *LAST_NAMES, *FILM_FIRST, *FILM_SECOND, *PRIZE_FIRST, *PRIZE_SECOND]
    return list(dict.fromkeys([*functions, *names, *CITIES, *YEARS]))
