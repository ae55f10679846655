"""The synthetic world: questions, documents and gold answers in the schema of ALCE's files.

Every question has five documents of one sentence each: two or three that answer it, the others
about the same entity, the same relation, or half of the same name. Names of people, films and
prizes are combinations of two words, and a combination belongs to one split only.
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
    PROFESSIONS,
    SPLITS,
    YEARS,
    ask_list,
    document_facts,
    names_of,
    restate,
    say,
)
from citepipe.options.miniature import WorldOptions

DOCUMENTS = 5

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


@dataclass(frozen=True, slots=True)
class World:
    """All questions by split (`train`, `dev`, `test`, `expertqa`), and the facts behind them."""

    splits: dict[str, list[Drawn]]

    @property
    def facts(self) -> dict[str, list[list[str]]]:
        """For the text of every passage the facts that it states."""
        return {
            doc.passage: [list(fact) for fact in document_facts(doc.text)]
            for drawn in self.splits.values()
            for question in drawn
            for doc in question.example.docs
        }


def build_world(options: WorldOptions, seed: int) -> World:
    """Draw the world; the same options and seed give the same world.

    Args:
        options: how many questions per dataset.
        seed: of all draws.
    """
    sizes = {"train": options.train, "dev": options.dev, "test": options.test}
    splits = {}
    for split in SPLITS:
        artist = Artist(split, random.Random(f"{seed} {split}"))
        drawn = [
            artist.draw(kind) for kind in ("asqa", "eli5", "qampari") for _ in range(sizes[split])
        ]
        artist.random.shuffle(drawn)
        splits[split] = _numbered(drawn, split)
    artist = Artist("test", random.Random(f"{seed} expertqa"))
    splits["expertqa"] = _numbered(
        [artist.draw("expertqa") for _ in range(options.expertqa)], "expertqa"
    )
    return World(splits)


def stream(split: str, seed: str) -> Iterator[Drawn]:
    """Endless questions of the three trained datasets, for the pretraining."""
    artist = Artist(split, random.Random(seed))
    while True:
        yield artist.draw(artist.random.choice(("asqa", "eli5", "qampari")))


def _numbered(drawn: list[Drawn], split: str) -> list[Drawn]:
    return [
        replace(d, example=replace(d.example, id=f"{split}-{number}"))
        for number, d in enumerate(drawn)
    ]


@dataclass(frozen=True, slots=True)
class _Page:
    """A document to be, and the claim it supports if it answers the question."""

    title: str
    text: str
    claim: str | None = None
    relation: str = ""
    short_answer: str = ""


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
        self._kin = {
            pool: _by_word(names) for pool, names in (("person", self.people), ("film", self.films))
        }

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
        claims = tuple(
            Claim(page.claim, place, page.relation)
            for place, page in enumerate(pages)
            if page.claim is not None
        )
        example = Example(
            id="",
            dataset=dataset,
            question=question,
            docs=tuple(Document(page.title, page.text) for page in pages),
        )
        return self._with_gold(Drawn(example, claims, entity), pages)

    def _with_gold(self, drawn: Drawn, pages: list[_Page]) -> Drawn:
        dataset, plain = drawn.example.dataset, drawn.answer()
        reversed_answer = replace(drawn, claims=drawn.claims[::-1]).answer()
        claims = tuple(f"{claim.text}." for claim in drawn.claims)
        gold: dict[str, object] = {"answer": plain}
        if dataset == "asqa":
            gold["long_answers"] = (plain, reversed_answer)
            gold["qa_pairs"] = tuple(
                QAPair(drawn.example.question, (page.short_answer,))
                for page in pages
                if page.claim is not None
            )
        elif dataset == "qampari":
            gold["answers"] = tuple((claim.text,) for claim in drawn.claims)
        else:
            gold["claims"] = claims
        return replace(drawn, example=replace(drawn.example, **gold))  # type: ignore[arg-type]

    # -- the four kinds of question

    def _asqa(self) -> tuple[str, str, list[_Page]]:
        """One title, several films or people of that name."""
        relevant = self._count()
        if self.random.random() < 0.6:
            film = self._pick(self.films)
            relation = self._pick(["directed", "starred", "won"])
            question = {
                "directed": f"Who directed {film}?",
                "starred": f"Who starred in {film}?",
                "won": f"Which prize did {film} win?",
            }[relation]
            years = self.random.sample(YEARS, DOCUMENTS)
            pages = [
                self._film_page(film, year, relation, self._object(relation), qualified=True)
                for year in years[:relevant]
            ]
            other = self._pick([r for r in ("directed", "starred", "won") if r != relation])
            rest = [
                self._film_page(film, self._pick(years[: relevant + 1]), other, self._object(other))
            ]
            while len(pages) + len(rest) < DOCUMENTS:
                cousin = self._cousin("film", film)
                rest.append(
                    self._film_page(cousin, self._pick(YEARS), relation, self._object(relation))
                )
            return question, film, pages + _silent(rest)
        person = self._pick(self.people)
        relation = self._pick(["born", "lived"])
        question = {
            "born": f"Where was {person} born?",
            "lived": f"Where did {person} live?",
        }[relation]
        jobs = self.random.sample(PROFESSIONS, DOCUMENTS)
        cities = self.random.sample(CITIES, DOCUMENTS)
        pages = [
            self._person_page(person, job, relation, city, qualified=True)
            for job, city in zip(jobs[:relevant], cities, strict=False)
        ]
        other = "lived" if relation == "born" else "born"
        rest = [self._person_page(person, jobs[relevant - 1], other, cities[relevant])]
        while len(pages) + len(rest) < DOCUMENTS:
            cousin = self._cousin("person", person)
            rest.append(
                self._person_page(cousin, self._pick(PROFESSIONS), relation, self._pick(CITIES))
            )
        return question, person, pages + _silent(rest)

    def _eli5(self) -> tuple[str, str, list[_Page]]:
        """All that the documents tell of one person."""
        person, job = self._pick(self.people), self._pick(PROFESSIONS)
        relevant = self._count()
        kinds = self.random.sample(["born", "lived", "won", "directed*", "starred*"], relevant)
        pages = [self._person_page(person, job, kind, self._object(kind)) for kind in kinds]
        rest: list[_Page] = []
        while len(pages) + len(rest) < DOCUMENTS:
            cousin = self._cousin("person", person)
            kind = self._pick(kinds)
            rest.append(
                self._person_page(cousin, self._pick(PROFESSIONS), kind, self._object(kind))
            )
        question = self._pick(
            [
                f"What is known about {person}?",
                f"Why is {person} remembered?",
                f"What happened to {person}?",
                f"Who was {person}?",
            ]
        )
        return question, person, pages + _silent(rest)

    def _qampari(self) -> tuple[str, str, list[_Page]]:
        """The films or people that stand in one relation to one name."""
        kind = self._pick(["directed", "starred", "won", "won_film", "born", "lived"])
        relation = kind.removesuffix("_film")
        name = self._object(relation)
        relevant = self._count()
        of_film = kind in ("directed", "starred", "won_film")
        pool = self.films if of_film else self.people
        titles = self.random.sample(pool, DOCUMENTS)

        def page(title: str, relation: str, other: str, listed: bool) -> _Page:
            made = (
                self._film_page(title, self._pick(YEARS), relation, other)
                if of_film
                else self._person_page(title, self._pick(PROFESSIONS), relation, other)
            )
            return _Page(title, made.text, title if listed else None, relation)

        pages = [page(title, relation, name, True) for title in titles[:relevant]]
        if relation in ("directed", "starred"):
            swapped = "starred" if relation == "directed" else "directed"
        elif relation in ("born", "lived"):
            swapped = "lived" if relation == "born" else "born"
        else:
            swapped = None
        rest: list[_Page] = []
        if swapped is not None:
            rest.append(page(titles[relevant], swapped, name, False))
        for title in titles[relevant + len(rest) :]:
            rest.append(page(title, relation, self._other_object(relation, name), False))
        return ask_list(kind, name), name, pages + rest

    def _expertqa(self) -> tuple[str, str, list[_Page]]:
        """A film and one person together, in the words of no trained question."""
        film, year = self._pick(self.films), self._pick(YEARS)
        person, job = self._pick(self.people), self._pick(PROFESSIONS)
        relevant = self._count()
        film_kinds = self.random.sample(["directed", "starred", "won"], relevant - 1)
        person_kind = self._pick(["born", "lived", "won"])
        pages = [
            self._film_page(film, year, kind, self._object(kind), qualified=True)
            for kind in film_kinds
        ]
        pages.append(self._person_page(person, job, person_kind, self._object(person_kind)))
        rest: list[_Page] = []
        while len(pages) + len(rest) < DOCUMENTS:
            if self.random.random() < 0.5:
                kind = self._pick(film_kinds)
                cousin = self._cousin("film", film)
                rest.append(self._film_page(cousin, self._pick(YEARS), kind, self._object(kind)))
            else:
                cousin = self._cousin("person", person)
                rest.append(
                    self._person_page(
                        cousin, self._pick(PROFESSIONS), person_kind, self._object(person_kind)
                    )
                )
        question = f"What is known about the film {film} and about {person}?"
        return question, person, pages + _silent(rest)

    # -- parts

    def _count(self) -> int:
        return self._pick([2, 3])

    def _pick(self, pool: Sequence[_T]) -> _T:
        return pool[int(self.random.random() * len(pool))]

    def _object(self, relation: str) -> str:
        """A name that can stand in second place of a relation (starred: the inverse)."""
        pools = {
            "directed": self.people,
            "starred": self.people,
            "won": self.prizes,
            "born": CITIES,
            "lived": CITIES,
            "directed*": self.films,
            "starred*": self.films,
        }
        return self._pick(pools[relation])

    def _other_object(self, relation: str, name: str) -> str:
        while (other := self._object(relation)) == name:
            pass
        return other

    def _cousin(self, pool: str, name: str) -> str:
        """Another name of the split that shares the first or the second word."""
        return self._pick([n for n in self._kin[pool][self._pick(name.split())] if n != name])

    def _film_page(
        self, film: str, year: str, relation: str, other: str, qualified: bool = False
    ) -> _Page:
        return _page(film, f"{year} film", relation, other, qualified)

    def _person_page(
        self, person: str, job: str, relation: str, other: str, qualified: bool = False
    ) -> _Page:
        return _page(person, job, relation, other, qualified)


def _page(title: str, qualifier: str, relation: str, other: str, qualified: bool) -> _Page:
    text = say(f"The {qualifier} {title}", relation, other)
    claim = text if qualified else restate(title, text)
    return _Page(title, text, claim.removesuffix("."), relation, other)


def _silent(pages: list[_Page]) -> list[_Page]:
    """The same pages as distractors, which support nothing."""
    return [_Page(page.title, page.text) for page in pages]


def _by_word(names: Sequence[str]) -> dict[str, list[str]]:
    kin: dict[str, list[str]] = {}
    for name in names:
        for word in name.split():
            kin.setdefault(word, []).append(name)
    return kin
