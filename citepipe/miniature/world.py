"""The synthetic world: its questions as ALCE has them, its careless teacher, and its facts.

Every question has five documents of one sentence each: two or three that answer it, the others
about the same entity or the same relation. Names of people, films and prizes are combinations of
two words, and a combination belongs to one split only.

The teacher answers correctly but errs in citing by situation and not by coin: a coin's faults
vanish under greedy decoding, where the student copies the teacher's most frequent choice. In the
situations below the wrong citation is the frequent one, as with a real teacher.

| dataset | situation | fault |
|---|---|---|
| ASQA | claim of document 4 or 5 | first other document of that title .74, both .18, none .08 |
| ELI5 | document 4 or 5, or a city | first other document of the person .58, all .20, none .22 |
| QAMPARI | every item | first document (second if the first is right) .86, none .14 |

With the default probabilities, citation recall and precision come close to those of ChatGPT on
ALCE (73.6/72.5 on ASQA, 51.1/50.0 on ELI5, 20.5/20.9 on QAMPARI).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from citepipe.data.example import Document, Example, QAPair
from citepipe.data.files import write_examples, write_json
from citepipe.miniature.language import (
    CITIES,
    FILM_FIRST,
    FILM_SECOND,
    FIRST_NAMES,
    LAST_NAMES,
    PRIZE_FIRST,
    PRIZE_SECOND,
    SPLITS,
    YEARS,
    Fact,
    ask_list,
    names_of,
    parse_sentence,
    say,
    weaken,
)
from citepipe.options import FaultOptions, MiniatureOptions, WorldOptions
from citepipe.progress import summary

DOCUMENTS = 5
OF_PEOPLE = ("lived", "studied", "won", "directed*", "starred*")
TRAINED = ("asqa", "eli5", "qampari")

# Shares of the faults: one wrong document, the right one among others, no citation at all.
_FAULTS = {"asqa": (0.74, 0.18, 0.08), "eli5": (0.58, 0.20, 0.22), "qampari": (0.86, 0.0, 0.14)}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement of the gold answer, the document (from 0) that supports it, and its relation."""

    text: str
    document: int
    relation: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A question: its example (without an output), the claims of its gold answer, and what it is
    about, which is the title of the documents about it."""

    example: Example
    claims: tuple[Claim, ...]
    entity: str

    def answer(self, citations: Sequence[Sequence[int]] | None = None) -> str:
        """The answer in text: a list for QAMPARI, else sentences; perhaps with citations, for every
        claim the documents (from 0)."""
        parts = []
        for claim, cited in zip(self.claims, citations or [[]] * len(self.claims), strict=True):
            parts.append(" ".join(filter(None, (claim.text, "".join(f"[{d + 1}]" for d in cited)))))
        return (", " if self.example.dataset == "qampari" else ". ").join(parts) + "."


@dataclass(frozen=True, slots=True)
class _Page:
    """A document to be: its title, what it states in which form, and whether that is sought."""

    title: str
    form: str
    fact: Fact
    relevant: bool = False

    @property
    def text(self) -> str:
        return say(self.form, self.fact)


class Artist:
    """Draws questions from the names of one split, with a generator of its own."""

    def __init__(self, split: str, seed: str) -> None:
        self.random = random.Random(seed)
        self.people = names_of(split, FIRST_NAMES, LAST_NAMES)
        self.films = names_of(split, FILM_FIRST, FILM_SECOND)
        self.prizes = names_of(split, PRIZE_FIRST, PRIZE_SECOND)

    def draw(self, dataset: str) -> Drawn:
        """One question of a dataset, with its documents in random order."""
        recipes = {"asqa": self._asqa, "eli5": self._eli5, "qampari": self._qampari}
        recipes["expertqa"] = self._expertqa
        question, entity, pages = recipes[dataset]()
        self.random.shuffle(pages)
        listing = dataset == "qampari"
        claims = tuple(
            Claim(p.fact.subject if listing else p.text.removesuffix("."), place, p.fact.relation)
            for place, p in enumerate(pages)
            if p.relevant
        )
        docs = tuple(Document(page.title, page.text) for page in pages)
        drawn = Drawn(Example("", dataset, question, docs), claims, entity)
        gold: dict[str, Any] = {"answer": drawn.answer()}
        if dataset == "asqa":
            gold["long_answers"] = (drawn.answer(), replace(drawn, claims=claims[::-1]).answer())
            objects = [page.fact.object for page in pages if page.relevant]
            gold["qa_pairs"] = tuple(QAPair(question, (found,)) for found in objects)
        elif listing:
            gold["answers"] = tuple((claim.text,) for claim in claims)
        else:
            gold["claims"] = tuple(f"{claim.text}." for claim in claims)
        return replace(drawn, example=replace(drawn.example, **gold))

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
        asked = ["What is known about {}?", "Why is {} remembered?", "What happened to {}?"]
        question = self._pick([*asked, "Who was {}?"]).format(person)
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


def teach(drawn: Sequence[Drawn], options: FaultOptions, seed: int) -> list[Example]:
    """The examples of trained questions, with the teacher's cited answer as their output."""
    rng = random.Random(f"{seed} teacher")
    return [
        replace(d.example, output=d.answer([cite(d, claim, options, rng) for claim in d.claims]))
        for d in drawn
    ]


def cite(drawn: Drawn, claim: Claim, options: FaultOptions, rng: random.Random) -> list[int]:
    """The documents (from 0) that the teacher cites for a claim."""
    dataset, docs = drawn.example.dataset, drawn.example.docs
    of_city = dataset == "eli5" and claim.relation in ("lived", "studied")
    is_misled = dataset == "qampari" or claim.document >= 3 or of_city
    if rng.random() >= (getattr(options, dataset) if is_misled else options.elsewhere):
        return [claim.document]
    wrong = [d for d in range(len(docs)) if d != claim.document]
    if dataset != "qampari":
        wrong = [d for d in wrong if docs[d].title == drawn.entity]
    fault = rng.choices(("other", "more", "none"), _FAULTS[dataset])[0]
    if fault == "none":
        return []
    if fault == "other":
        return wrong[:1]
    return sorted({claim.document, *(wrong if dataset == "eli5" else wrong[:1])})


def build_world(options: WorldOptions, seed: int) -> dict[str, list[Drawn]]:
    """The questions of `train`, `dev`, `test` and `expertqa`, the same for the same options and
    seed."""
    kinds = {
        split: [kind for kind in TRAINED for _ in range(getattr(options, split))]
        for split in SPLITS
    }
    kinds["expertqa"] = ["expertqa"] * options.expertqa
    world = {}
    for split, datasets in kinds.items():
        artist = Artist("test" if split == "expertqa" else split, f"{seed} {split}")
        drawn = [artist.draw(dataset) for dataset in datasets]
        if split != "expertqa":
            artist.random.shuffle(drawn)
        world[split] = [
            replace(d, example=replace(d.example, id=f"{split}-{number}"))
            for number, d in enumerate(drawn)
        ]
    return world


def facts_of(world: Mapping[str, Sequence[Drawn]]) -> dict[str, list[list[str]]]:
    """For the text of every passage the facts that it states."""
    return {
        doc.passage: [
            list(known) for fact in parse_sentence(doc.text) for known in sorted(weaken(fact))
        ]
        for drawn in world.values()
        for question in drawn
        for doc in question.example.docs
    }


def write_world(options: MiniatureOptions, out: Path) -> str:
    """Write the splits as lists of examples, and the oracle's facts as `world.json`; returns a line
    that says what was written.

    The teacher's cited answers are the outputs of train and dev; test questions have none.
    """
    world = build_world(options.world, options.seed)
    for split, drawn in world.items():
        examples = [d.example for d in drawn]
        if split in ("train", "dev"):
            examples = teach(drawn, options.teacher, options.seed)
        write_examples(out / f"{split}.json", examples)
    facts = facts_of(world)
    write_json(out / "world.json", facts)
    counts = {split: len(drawn) for split, drawn in world.items()}
    return summary("world", {**counts, "passages": len(facts)})
