"""The synthetic world: all questions of an experiment by split, and the facts behind them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

from citepipe.data.files import write_examples, write_json
from citepipe.miniature.language import SPLITS, parse_sentence, weaken
from citepipe.miniature.questions import Artist, Drawn
from citepipe.miniature.teacher import teach
from citepipe.options import MiniatureOptions, WorldOptions
from citepipe.progress import summary


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
