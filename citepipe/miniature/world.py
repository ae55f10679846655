"""The synthetic world: its questions as ALCE has them, its careless teacher, and its facts.

Every question has five documents of one sentence each: two or three that answer it, the others
about the same entity or the same relation. Names of people, films and prizes are combinations of
two words, and a combination belongs to one split only.

The teacher answers correctly but errs in citing by situation and not by coin: a coin's faults
vanish under greedy decoding, where the student copies the teacher's most frequent choice, which is
then the right one. In the situations below the wrong citation is the frequent one, as with a real
teacher.

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
from collections.abc import Iterator, Sequence
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
        recipes = {"asqa": self._asqa, "eli5": self._eli5, "qampari": self._qampari}
        recipes["expertqa"] = self._expertqa
        question, entity, pages = recipes[dataset]()
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


def stream(split: str, seed: str) -> Iterator[Drawn]:
    """Endless questions of the three trained datasets, for the pretraining."""
    artist = Artist(split, random.Random(seed))
    while True:
        yield artist.draw(artist.random.choice(TRAINED))


def teach(drawn: Sequence[Drawn], options: FaultOptions, seed: int) -> list[Example]:
    """The examples of some questions, with the teacher's cited answer as their output.

    Args:
        drawn: questions of the world (ASQA, ELI5 or QAMPARI).
        options: how often the teacher errs.
        seed: of its faults.
    """
    rng = random.Random(f"{seed} teacher")
    return [
        replace(d.example, output=d.answer([cite(d, claim, options, rng) for claim in d.claims]))
        for d in drawn
    ]


def cite(drawn: Drawn, claim: Claim, options: FaultOptions, rng: random.Random) -> list[int]:
    """The documents (from 0) that the teacher cites for a claim."""
    dataset = drawn.example.dataset
    chance = getattr(options, dataset) if misleading(dataset, claim) else options.elsewhere
    if rng.random() >= chance:
        return [claim.document]
    wrong = _mistaken(drawn, claim)
    fault = rng.choices(("other", "more", "none"), _FAULTS[dataset])[0]
    if fault == "none":
        return []
    if fault == "other":
        return wrong[:1]
    return sorted({claim.document, *(wrong if dataset == "eli5" else wrong[:1])})


def misleading(dataset: str, claim: Claim) -> bool:
    """Whether a claim is in the situation that misleads the teacher."""
    if dataset == "qampari":
        return True
    late = claim.document >= 3
    return late or (dataset == "eli5" and claim.relation in ("lived", "studied"))


def _mistaken(drawn: Drawn, claim: Claim) -> list[int]:
    """The documents that the teacher may take for the claim's, most tempting first."""
    others = [d for d in range(len(drawn.example.docs)) if d != claim.document]
    if drawn.example.dataset == "qampari":
        return others[:1]
    return [d for d in others if drawn.example.docs[d].title == drawn.entity]


@dataclass(frozen=True, slots=True)
class World:
    """All questions by split (`train`, `dev`, `test`, `expertqa`), and the facts behind them."""

    splits: dict[str, list[Drawn]]

    @property
    def facts(self) -> dict[str, list[list[str]]]:
        """For the text of every passage the facts that it states."""
        return {
            doc.passage: [
                list(known) for fact in parse_sentence(doc.text) for known in sorted(weaken(fact))
            ]
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
        drawn = [artist.draw(kind) for kind in TRAINED for _ in range(sizes[split])]
        artist.random.shuffle(drawn)
        splits[split] = _numbered(drawn, split)
    artist = Artist("test", random.Random(f"{seed} expertqa"))
    splits["expertqa"] = _numbered(
        [artist.draw("expertqa") for _ in range(options.expertqa)], "expertqa"
    )
    return World(splits)


def write_world(options: MiniatureOptions, out: Path) -> str:
    """Write the splits as lists of examples, and the oracle's facts as `world.json`.

    The teacher's cited answers are the outputs of train and dev; test questions have none.

    Args:
        options: sizes, faults of the teacher, and the seed.
        out: the folder to write to.

    Returns:
        A line that says what was written.
    """
    world = build_world(options.world, options.seed)
    for split, drawn in world.splits.items():
        if split in ("train", "dev"):
            examples = teach(drawn, options.teacher, options.seed)
        else:
            examples = [d.example for d in drawn]
        write_examples(out / f"{split}.json", examples)
    facts = world.facts
    write_json(out / "world.json", facts)
    counts = {split: len(drawn) for split, drawn in world.splits.items()}
    return summary("world", {**counts, "passages": len(facts)})


def _numbered(drawn: list[Drawn], split: str) -> list[Drawn]:
    return [
        replace(d, example=replace(d.example, id=f"{split}-{number}"))
        for number, d in enumerate(drawn)
    ]
