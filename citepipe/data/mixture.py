"""The mixture: which rows of which files are trained on, developed on and tested on."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from citepipe.data.example import DATASETS, Document, Example, relevant_documents
from citepipe.data.files import each_example, example_of, write_examples, write_json
from citepipe.errors import InputError
from citepipe.options import DataOptions, Dataset
from citepipe.progress import summary

FindDocuments = Callable[[Sequence[Example]], list[Example]]
"""Gives documents to examples that have none, or others to all of them, in their order."""

_COUNTED = {
    "leaks": "left out as in another split",
    "repetitions": "left out as repeated",
    "without_documents": "left out without documents",
    "documents_found": "documents found for",
}
"""What is counted of a split, and how the summary puts it."""


@dataclass(frozen=True)
class _Row:
    """An example, its normalised question, its file, and how its row is named in errors."""

    example: Example
    question: str
    file: str
    where: str


def normalized_question(question: str) -> str:
    """What is compared of a question: its letters and digits, without case, and whichever of
    several ways of writing a character Unicode has. One of which nothing is left (`?!`) stays."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    folded = unicodedata.normalize("NFKC", folded)
    kinds = ((character, unicodedata.category(character)) for character in folded)
    # Marks stay: in many scripts they are the vowels.
    plain = "".join(" " if kind[0] in "PSZC" else c for c, kind in kinds if kind != "Cf")
    return " ".join(plain.split()) or " ".join(folded.split())


def mix(
    options: DataOptions,
    out: Path,
    find_documents: FindDocuments | None = None,
    cut_documents: FindDocuments | None = None,
) -> str:
    """Write `train.json`, `dev.json`, `test/{dataset}.json` and `mixture.json` under `out`.

    Test rows are chosen first, then dev, then train. A question that was chosen before is not
    chosen again (see `normalized_question`), so one file may be named for several splits, and is
    then dealt out among them. Between the test files of several datasets nothing is compared.

    `mixture.json` has per split its rows by dataset and by file, the rows left out because an
    earlier split has their question (`leaks`), the split itself has them already (`repetitions`),
    or they have no documents, and those that were given documents; the files' digests and the seed.

    Returns:
        A line with the number of rows of each split, and of those left out if there are any.

    Raises:
        InputError: a file is bad, has rows without documents that nothing finds, or fewer rows of
            a dataset than the options want.
    """
    splits: dict[str, list[_Row]] = {"train": [], "dev": []}
    splits |= {f"test/{dataset}": [] for dataset in options.test}
    counts = {name: dict.fromkeys(_COUNTED, 0) for name in splits}
    seen: set[str] = set()

    def read(name: str, paths: Sequence[str], test: Dataset | None = None) -> list[_Row]:
        wanted = options.datasets if test is None else [test]
        rows = [row for path in paths for row in _read(path, test, options)]
        rows = [row for row in rows if wanted is None or row.example.dataset in wanted]
        if not rows:
            names = " or ".join(wanted or ())
            raise InputError(f"{', '.join(paths)}: expected rows of dataset {names}")
        if find_documents is None:
            rows = _with_documents(rows, options, counts[name], "finds them some")
        unseen = [row for row in rows if row.question not in seen]
        once = _once(unseen, options)
        counts[name]["leaks"] = len(rows) - len(unseen)
        counts[name]["repetitions"] = len(unseen) - len(once)
        return once

    tests = {d: read(f"test/{d}", [path], d) for d, path in options.test.items()}
    where = ", ".join(dict.fromkeys(options.test.values()))
    sizes = sizes_per_dataset(options.test_size, {d: len(rows) for d, rows in tests.items()}, where)
    for dataset, rows in tests.items():
        size = None if sizes is None else {dataset: sizes.get(dataset)}
        path = options.test[dataset]
        splits[f"test/{dataset}"] = _select(rows, size, f"{options.seed}/test", path)
    for name in ("dev", "train"):
        seen |= {row.question for rows in splits.values() for row in rows}
        paths: list[str] = getattr(options, name)
        where = ", ".join(paths)
        rows = read(name, paths)
        datasets = [row.example.dataset for row in rows]
        available = {d: datasets.count(d) for d in DATASETS if d in datasets}
        sizes = sizes_per_dataset(getattr(options, f"{name}_size"), available, where)
        splits[name] = _select(rows, sizes, f"{options.seed}/{name}", where)
        if not splits[name]:
            raise InputError(f"data.{name}: no rows are left after taking out repeated questions")
    account: dict[str, Any] = {}
    for name, rows in splits.items():
        if find_documents is not None:
            bare = [row for row in rows if not row.example.docs]
            found = iter(find_documents([row.example for row in bare]) if bare else [])
            rows = [r if r.example.docs else replace(r, example=next(found)) for r in rows]
            without = sum(not row.example.docs for row in rows)
            counts[name]["documents_found"] = len(bare) - without
            rows = _with_documents(rows, options, counts[name], "found none")
        kept = [row.example for row in rows]
        kept = cut_documents(kept) if cut_documents is not None else kept
        kept = [replace(example, docs=kept_documents(example, options)) for example in kept]
        write_examples(out / f"{name}.json", _with_own_ids(kept))
        account[name] = {
            "rows": len(rows),
            "datasets": dict(sorted(Counter(row.example.dataset for row in rows).items())),
            "files": dict(sorted(Counter(row.file for row in rows).items())),
            **counts[name],
        }
    files = dict.fromkeys([*options.train, *options.dev, *options.test.values()])
    digests = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files}
    write_json(out / "mixture.json", {"seed": options.seed, "splits": account, "inputs": digests})
    figures: dict[str, object] = {name: split["rows"] for name, split in account.items()}
    for key, label in _COUNTED.items():
        if rows_counted := sum(split[key] for split in account.values()):
            figures[label] = rows_counted
    return summary("data", figures)


def _read(path: str, dataset: Dataset | None, options: DataOptions) -> Iterator[_Row]:
    for where, found in each_example(path, dataset, False, options.own_as):
        example = example_of(found)
        yield _Row(example, normalized_question(example.question), path, where)


def _with_documents(
    rows: Sequence[_Row], options: DataOptions, counts: dict[str, int], retrieval: str
) -> list[_Row]:
    """The rows that have documents, if those without may be left out.

    Raises:
        InputError: they may not, or none has any; `retrieval` is what the line says of it.
    """
    kept = [row for row in rows if row.example.docs]
    bare = [row for row in rows if not row.example.docs]
    counts["without_documents"] = len(bare)
    leave_out = options.without_documents == "leave_out"
    if not bare or (kept and leave_out):
        return kept
    advice = ", and `data.without_documents: leave_out` goes on without them"
    if leave_out:
        advice = ", and nothing is left without them"
    raise InputError(
        f"{bare[0].where}, field docs: expected documents, got none ({len(bare)} of {len(rows)} "
        f"rows have none; `retrieval` {retrieval}{advice})"
    )


def _once(rows: Sequence[_Row], options: DataOptions) -> list[_Row]:
    """The rows without those that repeat an earlier one."""
    if options.repetitions == "keep":
        return list(rows)
    first: dict[Any, _Row] = {}
    for row in rows:
        key: Any = row.question
        if options.repetitions == "rows":
            key = row.question, row.example.dataset, kept_documents(row.example, options)
        first.setdefault(key, row)
    return list(first.values())


def kept_documents(example: Example, options: DataOptions) -> tuple[Document, ...]:
    """The first documents of a question, or the first chosen by a shorter text; one is kept where
    the choice would leave none (ALCE: only if it has no shorter text)."""
    docs = example.docs
    if options.shorter is not None:
        relevant, bare = relevant_documents(docs, options.shorter)
        docs = relevant or bare or docs[:1]
    return docs[: options.documents]


def _with_own_ids(examples: Sequence[Example]) -> list[Example]:
    """Examples whose ids tell them apart; files of several datasets often all count from 0, and
    so do several files of one."""
    if len({example.id for example in examples}) == len(examples):
        return list(examples)
    names = [f"{example.dataset}-{example.id}" for example in examples]
    taken, given = set(names), set[str]()
    for place, name in enumerate(names):
        if name in given:
            names[place] = next(n for i in count(2) if (n := f"{name}-{i}") not in taken)
        taken.add(names[place])
        given.add(names[place])
    return [replace(e, id=name) for e, name in zip(examples, names, strict=True)]


def _select(
    rows: Sequence[_Row], sizes: Mapping[Any, int | None] | None, seed: str, where: str
) -> list[_Row]:
    """As many rows of each dataset as the sizes say, shuffled by the seed; all if they are None."""
    if sizes is None:
        return list(rows)
    chosen: list[_Row] = []
    for dataset, size in sizes.items():
        found = [row for row in rows if row.example.dataset == dataset]
        if size is not None and len(found) < size:
            raise InputError(
                f"{where}: expected {size} rows of dataset {dataset}, got {len(found)} "
                f"(data.{seed.rpartition('/')[2]}_size)"
            )
        # Each dataset has its own draw, so that changing one size leaves the others alone.
        draw = random.Random(f"{seed}/{dataset}")
        chosen += found if size is None else draw.sample(found, size)
    random.Random(f"{seed}/order").shuffle(chosen)
    return chosen


def sizes_per_dataset(size: Any, available: Mapping[Any, int], where: str) -> Any:
    """Rows per dataset (None: all of them); one number is spread in proportion to the rows there
    are, what rounding down leaves over to the largest remainders, of equal ones to the first.

    Raises:
        InputError: there are fewer rows than the number; `where` names their files.
    """
    if not isinstance(size, int):
        return size
    total = sum(available.values())
    if size > total:
        raise InputError(f"{where}: expected {size} rows, got {total}")
    shares = {name: size * count // max(total, 1) for name, count in available.items()}
    by_remainder = sorted(available, key=lambda name: -(size * available[name] % max(total, 1)))
    for name in by_remainder[: size - sum(shares.values())]:
        shares[name] += 1
    return shares
