"""Questions of the synthetic world, with their documents and gold answers, as ALCE has them.

Every question has five documents of one sentence each: two or three that answer it, the others
about the same entity or the same relation. Names of people, films and prizes are combinations of
two words, and a combination belongs to one split only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from citepipe.data.example import Document, Example, QAPair
from citepipe.miniature.language import (
    CITIES,
    FILM_FIRST,
    FILM_SECOND,
    FIRST_NAMES,
    LAST_NAMES,
    PRIZE_FIRST,
    PRIZE_SECOND,
    YEARS,
    Fact,
    ask_list,
    names_of,
    say,
)

DOCUMENTS = 5
OF_PEOPLE = ("lived", "studied", "won", "directed*", "starred*")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement of the gold answer, the document (from 0) that supports it, and its relation."""

    text: str
    document: int
    relation: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A question as drawn: its example (without an output) and the claims of its gold answer.

    `entity` is what the question is about; the documents about it have it as their title.
    """

    example: Example
    claims: tuple[Claim, ...]
    entity: str

    def answer(self, citations: Sequence[Sequence[int]] | None = None) -> str:
        """The answer in text: a list for QAMPARI, else sentences, with citations if given.

        Args:
            citations: for every claim the documents to cite (from 0), in order.
        """
        marks = [""] * len(self.claims)
        if citations is not None:
            marks = ["".join(f"[{d + 1}]" for d in cited) for cited in citations]
            marks = [f" {mark}" if mark else "" for mark in marks]
        parts = [claim.text + mark for claim, mark in zip(self.claims, marks, strict=True)]
        if self.example.dataset == "qampari":
            return ", ".join(parts) + "."
        return " ".join(part + "." for part in parts)

    @property
    def gold(self) -> str:
        """The correct answer with the correct citations."""
        return self.answer([[claim.document] for claim in self.claims])


def stream(split: str, seed: str) -> Iterator[Drawn]:
    """Endless questions of the three trained datasets, for the pretraining."""
    artist = Artist(split, random.Random(seed))
    while True:
        yield artist.draw(artist.random.choice(("asqa", "eli5", "qampari")))


@dataclass(frozen=True, slots=True)
class _Page:
    """A document to be: its title, what it states in which form, and whether that is asked for."""

    title: str
    form: str
    fact: Fact
    relevant: bool = False

    @property
    def text(self) -> str:
        return say(self.form, self.fact)


class Artist:
    """Draws questions from the names of one split.

    Args:
        split: whose names may occur.
        rng: the source of all draws.
    """

    def __init__(self, split: str, rng: random.Random) -> None:
        self.random = rng
        self.people = names_of(split, FIRST_NAMES, LAST_NAMES)
        self.films = names_of(split, FILM_FIRST, FILM_SECOND)
        self.prizes = names_of(split, PRIZE_FIRST, PRIZE_SECOND)

    def draw(self, dataset: str) -> Drawn:
        """One question of a dataset, with its documents in random order."""
        recipe: Callable[[], tuple[str, str, list[_Page]]] = {
            "asqa": self._asqa,
            "eli5": self._eli5,
            "qampari": self._qampari,
            "expertqa": self._expertqa,
        }[dataset]
        question, entity, pages = recipe()
        self.random.shuffle(pages)
        listing = dataset == "qampari"
        claims = tuple(
            Claim(
                page.fact.subject if listing else page.text.removesuffix("."),
                place,
                page.fact.relation,
            )
            for place, page in enumerate(pages)
            if page.relevant
        )
        docs = tuple(Document(page.title, page.text) for page in pages)
        example = Example("", dataset, question, docs)
        return self._with_gold(Drawn(example, claims, entity), pages)

    def _with_gold(self, drawn: Drawn, pages: list[_Page]) -> Drawn:
        dataset, plain = drawn.example.dataset, drawn.answer()
        reversed_answer = replace(drawn, claims=drawn.claims[::-1]).answer()
        claims = tuple(f"{claim.text}." for claim in drawn.claims)
        gold: dict[str, object] = {"answer": plain}
        if dataset == "asqa":
            gold["long_answers"] = (plain, reversed_answer)
            gold["qa_pairs"] = tuple(
                QAPair(drawn.example.question, (page.fact.object,))
                for page in pages
                if page.relevant
            )
        elif dataset == "qampari":
            gold["answers"] = tuple((claim.text,) for claim in drawn.claims)
        else:
            gold["claims"] = claims
        return replace(drawn, example=replace(drawn.example, **gold))  # type: ignore[arg-type]

    # -- the four kinds of question

    def _asqa(self) -> tuple[str, str, list[_Page]]:
        """One name, several films or people that bear it, each with a year of its own."""
        of_film = self.random.random() < 0.6
        pool = self.films if of_film else self.people
        name = self._pick(pool)
        relations = ["starred", "won", "opened"] if of_film else ["lived", "studied"]
        relation, other = self.random.sample(relations, 2)
        question = {
            "starred": f"Who starred in {name}?",
            "won": f"Which prize did {name} win?",
            "opened": f"Where did {name} open?",
            "lived": f"Where did {name} live?",
            "studied": f"Where did {name} study?",
        }[relation]
        relevant = self._count()
        objects = self._objects(relation, relevant)
        years = self.random.sample(YEARS, relevant)
        pages = [
            _Page(name, relation, Fact(relation, name, found, year), relevant=True)
            for found, year in zip(objects, years, strict=True)
        ]
        pages.append(self._page(name, other))
        return question, name, self._filled(pages, [relation], pool)

    def _eli5(self) -> tuple[str, str, list[_Page]]:
        """All that the documents tell of one person."""
        person = self._pick(self.people)
        forms = self.random.sample(OF_PEOPLE, self._count())
        pages = [self._page(person, form, relevant=True) for form in forms]
        question = self._pick(
            [
                f"What is known about {person}?",
                f"Why is {person} remembered?",
                f"What happened to {person}?",
                f"Who was {person}?",
            ]
        )
        return question, person, self._filled(pages, forms, self.people)

    def _qampari(self) -> tuple[str, str, list[_Page]]:
        """The films or people that stand in one relation to one name."""
        relation = self._pick(["directed", "starred", "won"])
        name, *others = self._objects(relation, DOCUMENTS)
        swapped = {"directed": "starred", "starred": "directed"}
        titles = self.random.sample(self.people if relation == "won" else self.films, DOCUMENTS)
        relevant = self._count()
        pages = []
        for place, title in enumerate(titles):
            said, other = relation, name
            if place == relevant and relation in swapped:
                said = swapped[relation]
            elif place >= relevant:
                other = others[place - 1]
            fact = Fact(said, title, other, self._pick(YEARS))
            pages.append(_Page(title, f"{said}*", fact, relevant=place < relevant))
        return ask_list(relation, name), name, pages

    def _expertqa(self) -> tuple[str, str, list[_Page]]:
        """A film and one person together, in the words of no trained question."""
        film = self._pick(self.films)
        person, stranger = self.random.sample(self.people, 2)
        of_film = self.random.sample(["starred", "won", "opened"], self._count() - 1)
        of_person = self._pick(OF_PEOPLE)
        pages = [self._page(film, form, relevant=True) for form in of_film]
        pages.append(self._page(person, of_person, relevant=True))
        pages.append(self._page(stranger, of_person))
        question = f"What is known about the film {film} and about {person}?"
        return question, person, self._filled(pages, of_film, self.films)

    # -- parts

    def _count(self) -> int:
        return self._pick([2, 3])

    def _pick(self, pool: Sequence[_T]) -> _T:
        return pool[int(self.random.random() * len(pool))]

    def _filled(self, pages: list[_Page], forms: list[str], pool: list[str]) -> list[_Page]:
        """With documents that say the like of other names, up to the number of documents."""
        taken = {page.title for page in pages}
        while len(pages) < DOCUMENTS:
            other = self._pick(pool)
            if other not in taken:
                pages.append(self._page(other, self._pick(forms)))
        return pages

    def _objects(self, relation: str, count: int) -> list[str]:
        """Different names that can stand in second place of a relation."""
        pool = {"directed": self.people, "starred": self.people, "won": self.prizes}
        return self.random.sample(pool.get(relation, CITIES), count)

    def _page(self, title: str, form: str, relevant: bool = False) -> _Page:
        """A document about its title, which a starred form has in second place."""
        relation, year = form.removesuffix("*"), self._pick(YEARS)
        if form.endswith("*"):
            fact = Fact(relation, self._pick(self.films), title, year)
        else:
            fact = Fact(relation, title, self._objects(relation, 1)[0], year)
        return _Page(title, form, fact, relevant)
