"""The mixture: which rows of which files are trained on, developed on and tested on."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_examples
from citepipe.errors import InputError
from citepipe.options.data import DataOptions, Dataset
from citepipe.progress import say, summary


def mix(options: DataOptions, out: Path) -> str:
    """Write `train.json`, `dev.json` and `test/{dataset}.json` under `out`.

    Test rows are chosen first, then dev, then train. A question that was chosen before is not
    chosen again (compared after lower-casing and dropping punctuation; how many is said), so one
    file may be named for several splits, and is then dealt out among them.

    Raises:
        InputError: a file is bad, or has fewer rows of a dataset than asked for.
    """
    test = {
        dataset: _select(
            [e for e in read_examples(path, dataset) if e.dataset == dataset],
            None if options.test_size is None else {dataset: options.test_size.get(dataset)},
            f"{options.seed}/test",
            path,
        )
        for dataset, path in options.test.items()
    }
    for dataset, rows in test.items():
        if not rows:
            raise InputError(f"{options.test[dataset]}: expected rows of dataset {dataset}")
    seen = {_question(e) for rows in test.values() for e in rows}
    dev, dev_leaks = _without(_read(options.dev), seen)
    dev = _select(dev, options.dev_size, f"{options.seed}/dev", ", ".join(options.dev))
    seen |= {_question(e) for e in dev}
    train, train_leaks = _without(_read(options.train), seen)
    train = _select(train, options.train_size, f"{options.seed}/train", ", ".join(options.train))
    for name, rows in (("train", train), ("dev", dev)):
        if not rows:
            raise InputError(f"data.{name}: no rows are left after taking out repeated questions")
    if train_leaks or dev_leaks:
        say(f"data: left out of train {train_leaks}, of dev {dev_leaks} rows chosen before")
    splits = {"train": train, "dev": dev} | {f"test/{name}": rows for name, rows in test.items()}
    for name, rows in splits.items():
        shown = [replace(example, docs=example.docs[: options.documents]) for example in rows]
        write_examples(out / f"{name}.json", _with_own_ids(shown, name))
    return summary("data", {name: len(rows) for name, rows in splits.items()})


def _read(paths: Sequence[str]) -> list[Example]:
    return [example for path in paths for example in read_examples(path)]


def _question(example: Example) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", example.question.lower()).split())


def _without(examples: Sequence[Example], seen: set[str]) -> tuple[list[Example], int]:
    kept = [example for example in examples if _question(example) not in seen]
    return kept, len(examples) - len(kept)


def _with_own_ids(examples: Sequence[Example], split: str) -> list[Example]:
    """Examples whose ids tell them apart; files of several datasets often all count from 0."""
    if len({example.id for example in examples}) == len(examples):
        return list(examples)
    named = [replace(example, id=f"{example.dataset}-{example.id}") for example in examples]
    repeated = [i for i, count in Counter(example.id for example in named).items() if count > 1]
    if repeated:
        raise InputError(f"data.{split}: expected different ids, {repeated[0]} comes several times")
    return named


def _select(
    examples: Sequence[Example],
    sizes: Mapping[Dataset, int | None] | None,
    seed: str,
    where: str,
) -> list[Example]:
    """As many rows of each dataset as asked for, shuffled by the seed; all if nothing is asked."""
    if sizes is None:
        return list(examples)
    chosen: list[Example] = []
    for dataset, size in sizes.items():
        rows = [example for example in examples if example.dataset == dataset]
        if size is None:
            chosen += rows
            continue
        if len(rows) < size:
            raise InputError(f"{where}: expected {size} rows of dataset {dataset}, got {len(rows)}")
        # Each dataset has its own draw, so that changing one size leaves the others alone.
        chosen += random.Random(f"{seed}/{dataset}").sample(rows, size)
    random.Random(f"{seed}/order").shuffle(chosen)
    return chosen
