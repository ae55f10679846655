"""The mixture: which rows of which files are trained on, developed on and tested on."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from citepipe.data.example import DATASETS, Document, Example
from citepipe.data.files import read_examples, write_examples, write_json
from citepipe.data.questions import normalized_question
from citepipe.errors import InputError
from citepipe.options import DataOptions, Dataset
from citepipe.progress import say, summary

FindDocuments = Callable[[Sequence[Example]], list[Example]]
"""Gives documents to examples that have none, in their order."""


@dataclass(frozen=True, slots=True)
class _Row:
    """An example, the file that it is from, and how its row is named in complaints."""

    example: Example
    file: str
    where: str

    @property
    def question(self) -> str:
        return normalized_question(self.example.question)


@dataclass(slots=True)
class _Counts:
    """How many rows of a split were left out, and why; and how many had documents found."""

    leaks: int = 0
    repetitions: int = 0
    without_documents: int = 0
    documents_found: int = 0


def mix(options: DataOptions, out: Path, find_documents: FindDocuments | None = None) -> str:
    """Write `train.json`, `dev.json`, `test/{dataset}.json` and `mixture.json` under `out`.

    Test rows are chosen first, then dev, then train. A question that was chosen before is not
    chosen again (see `normalized_question`), so one file may be named for several splits, and is
    then dealt out among them. Between the test files of several datasets nothing is compared.

    `mixture.json` says what became of the files: per split its rows by dataset and by file, the
    rows left out because an earlier split has their question (`leaks`), the split itself has them
    already (`repetitions`), or they have no documents; those that were given documents, and those
    whose list of documents was cut. Then the files' digests, the options and the seed.

    Args:
        options: the files, and what is taken of them.
        out: the folder.
        find_documents: a retriever, for rows without documents; None refuses them.

    Returns:
        A line with the number of rows of each split, and of those left out if there are any.

    Raises:
        InputError: a file is bad, has rows without documents that nothing finds, or fewer rows of
            a dataset than asked for.
    """
    counts = {name: _Counts() for name in ("train", "dev", *(f"test/{d}" for d in options.test))}

    def read(
        name: str, paths: Sequence[str], datasets: Sequence[Dataset] | None, own: Dataset | None
    ) -> list[_Row]:
        rows = [row for path in paths for row in _read(path, own, options)]
        if datasets is not None:
            rows = [row for row in rows if row.example.dataset in datasets]
        if not rows:
            where = ", ".join(paths)
            raise InputError(f"{where}: expected rows of dataset {' or '.join(datasets or ())}")
        if find_documents is None:
            rows = _that_have_documents(rows, options, counts[name], searched=False)
        return rows

    tests: dict[Dataset, list[_Row]] = {}
    for dataset, path in options.test.items():
        rows = read(f"test/{dataset}", [path], [dataset], dataset)
        tests[dataset] = _once(rows, options, counts[f"test/{dataset}"])
    tests = _select_tests(tests, options)
    seen = {row.question for rows in tests.values() for row in rows}
    splits: dict[str, list[_Row]] = {}
    for name, sizes in (("dev", options.dev_size), ("train", options.train_size)):
        paths: list[str] = getattr(options, name)
        rows = read(name, paths, options.datasets, None)
        rows = _once(_without(rows, seen, counts[name]), options, counts[name])
        splits[name] = _select(rows, sizes, f"{options.seed}/{name}", ", ".join(paths))
        seen |= {row.question for row in splits[name]}
    for name in ("train", "dev"):
        if not splits[name]:
            raise InputError(f"data.{name}: no rows are left after taking out repeated questions")
    if counts["train"].leaks or counts["dev"].leaks:
        say(
            f"data: left out of train {counts['train'].leaks}, of dev {counts['dev'].leaks} rows "
            "chosen before"
        )
    splits = {"train": splits["train"], "dev": splits["dev"]} | {
        f"test/{name}": rows for name, rows in tests.items()
    }
    report: dict[str, Any] = {}
    for name in splits:
        rows = splits[name]
        if find_documents is not None:
            found = _with_found(rows, find_documents, counts[name])
            rows = splits[name] = _that_have_documents(found, options, counts[name], searched=True)
        shown = [replace(row.example, docs=kept_documents(row.example, options)) for row in rows]
        write_examples(out / f"{name}.json", _with_own_ids(shown))
        report[name] = _counted(rows, counts[name], options)
    write_json(out / "mixture.json", _account(options, report))
    figures: dict[str, object] = {name: len(rows) for name, rows in splits.items()}
    for key in _SAID:
        if count := sum(split[key] for split in report.values()):
            figures[_SAID[key]] = count
    return summary("data", figures)


_SAID = {
    "leaks": "left out as in another split",
    "repetitions": "left out as repeated",
    "without_documents": "left out without documents",
    "documents_found": "documents found for",
}


def _read(path: str, dataset: Dataset | None, options: DataOptions) -> list[_Row]:
    wheres: list[str] = []
    examples = read_examples(
        path,
        dataset,
        check=lambda _, where: wheres.append(where),
        needs_documents=False,
        own_as=options.own_as,
    )
    return [_Row(e, path, where) for e, where in zip(examples, wheres, strict=True)]


def _that_have_documents(
    rows: Sequence[_Row], options: DataOptions, counts: _Counts, searched: bool
) -> list[_Row]:
    """The rows with documents, if those without may be left out; `searched`: a retriever has looked
    for theirs."""
    kept = [row for row in rows if row.example.docs]
    counts.without_documents = len(rows) - len(kept)
    if not counts.without_documents or (kept and options.without_documents == "leave_out"):
        return kept
    first = next(row for row in rows if not row.example.docs)
    found = "found none" if searched else "finds them some"
    raise InputError(
        f"{first.where}, field docs: expected documents, got none ({counts.without_documents} of "
        f"{len(rows)} rows have none; `retrieval` {found}, and `data.without_documents: leave_out` "
        "goes on without them)"
    )


def _without(rows: Sequence[_Row], seen: set[str], counts: _Counts) -> list[_Row]:
    kept = [row for row in rows if row.question not in seen]
    counts.leaks = len(rows) - len(kept)
    return kept


def _once(rows: Sequence[_Row], options: DataOptions, counts: _Counts) -> list[_Row]:
    """The rows without those that repeat an earlier one."""
    if options.repetitions == "keep":
        return list(rows)
    by_rows = options.repetitions == "rows"
    first: dict[Any, _Row] = {}
    for row in rows:
        docs = kept_documents(row.example, options)
        first.setdefault(
            (row.question, row.example.dataset, docs) if by_rows else row.question, row
        )
    counts.repetitions = len(rows) - len(first)
    return list(first.values())


def kept_documents(example: Example, options: DataOptions) -> tuple[Document, ...]:
    """The documents that a question keeps: the first ones, or those chosen by a shorter text.

    A shorter text with the word irrelevant (or Irrelevant) stands for none, and the first document
    without one ends the choice, as in ALCE's `get_shorter_text`; a document is kept all the same,
    with whatever text it has, if there would be none (ALCE: only if it has no shorter text).
    """
    docs = example.docs
    if options.shorter is not None:
        shorter = [getattr(doc, options.shorter) for doc in docs]
        end = shorter.index(None) if None in shorter else len(docs)
        chosen = [
            doc
            for doc, text in zip(docs[:end], shorter[:end], strict=True)
            if "irrelevant" not in text and "Irrelevant" not in text
        ]
        docs = tuple(chosen) or docs[end : end + 1] or docs[:1]
    return docs[: options.documents]


def _with_found(rows: Sequence[_Row], find: FindDocuments, counts: _Counts) -> list[_Row]:
    """The rows with documents for those that have none."""
    without = [row for row in rows if not row.example.docs]
    found = iter(find([row.example for row in without]) if without else [])
    completed = [row if row.example.docs else replace(row, example=next(found)) for row in rows]
    counts.documents_found = len(without) - sum(not row.example.docs for row in completed)
    return completed


def _counted(rows: Sequence[_Row], counts: _Counts, options: DataOptions) -> dict[str, Any]:
    """What `mixture.json` says of a split."""
    return {
        "rows": len(rows),
        "datasets": dict(sorted(Counter(row.example.dataset for row in rows).items())),
        "files": dict(sorted(Counter(row.file for row in rows).items())),
        **asdict(counts),
        "documents_cut": sum(
            len(kept_documents(row.example, options)) < len(row.example.docs) for row in rows
        ),
    }


def _account(options: DataOptions, splits: Mapping[str, Any]) -> dict[str, Any]:
    files = dict.fromkeys([*options.train, *options.dev, *options.test.values()])
    return {
        "seed": options.seed,
        "splits": splits,
        "inputs": {path: _digest(path) for path in files},
        "options": options.model_dump(mode="json"),
    }


def _digest(path: str) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _with_own_ids(examples: Sequence[Example]) -> list[Example]:
    """Examples whose ids tell them apart; files of several datasets often all count from 0, and
    so do several files of one."""
    if len({example.id for example in examples}) == len(examples):
        return list(examples)
    named = [replace(example, id=f"{example.dataset}-{example.id}") for example in examples]
    taken = Counter(example.id for example in named)
    given: set[str] = set()
    apart = []
    for example in named:
        name, number = example.id, 1
        while name in given or (number > 1 and name in taken):
            number += 1
            name = f"{example.id}-{number}"
        given.add(name)
        apart.append(replace(example, id=name))
    return apart


def _select_tests(
    tests: Mapping[Dataset, list[_Row]], options: DataOptions
) -> dict[Dataset, list[_Row]]:
    sizes = options.test_size
    if isinstance(sizes, int):
        available = {dataset: len(rows) for dataset, rows in tests.items()}
        where = ", ".join(dict.fromkeys(options.test.values()))
        sizes = in_proportion(sizes, available, where)
    return {
        dataset: _select(
            rows,
            None if sizes is None else {dataset: sizes.get(dataset)},
            f"{options.seed}/test",
            options.test[dataset],
        )
        for dataset, rows in tests.items()
    }


def _select(rows: Sequence[_Row], sizes: Any, seed: str, where: str) -> list[_Row]:
    """As many rows of each dataset as asked for, shuffled by the seed; all if nothing is asked."""
    if sizes is None:
        return list(rows)
    by_dataset = {
        dataset: [row for row in rows if row.example.dataset == dataset] for dataset in DATASETS
    }
    if isinstance(sizes, int):
        counts = {dataset: len(found) for dataset, found in by_dataset.items() if found}
        sizes = in_proportion(sizes, counts, where)
    chosen: list[_Row] = []
    for dataset, size in sizes.items():
        found = by_dataset[dataset]
        if size is None:
            chosen += found
            continue
        if len(found) < size:
            raise InputError(
                f"{where}: expected {size} rows of dataset {dataset}, got {len(found)} "
                f"(data.{seed.rpartition('/')[2]}_size)"
            )
        # Each dataset has its own draw, so that changing one size leaves the others alone.
        chosen += random.Random(f"{seed}/{dataset}").sample(found, size)
    random.Random(f"{seed}/order").shuffle(chosen)
    return chosen


def in_proportion(total: int, counts: Mapping[Any, int], where: str) -> dict[Any, int]:
    """Spread a number of rows over datasets in proportion to the rows that they have.

    The shares are rounded down, and what is missing goes to the largest remainders; of equal ones
    to the first.

    Raises:
        InputError: there are fewer rows than that; `where` names their files.
    """
    available = sum(counts.values())
    if total > available:
        raise InputError(f"{where}: expected {total} rows, got {available}")
    shares = {name: total * count // max(available, 1) for name, count in counts.items()}
    by_remainder = sorted(counts, key=lambda name: -(total * counts[name] % max(available, 1)))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares
