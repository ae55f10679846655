"""Score files, whichever command wrote them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from citepipe.data.example import Example
from citepipe.data.files import read_answers, read_json
from citepipe.errors import InputError

Results = dict[str, dict[str, Any]]
"""By verifier and dataset: `metrics`, `intervals`, `per_example`, …"""

EXPECTED = "expected a file of scores, written by `citepipe score --json` or the workflow"


def read_results(path: Path) -> dict[str, Results]:
    """The results of a score file (`results_of`); empty for another file, which may be large or a
    table and is not decoded."""
    try:
        is_scored = b'"per_example"' in path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return results_of(read_json(path), path) if is_scored else {}


def results_of(content: Any, path: Path) -> dict[str, Results]:
    """What a score file holds, by file of answers (empty if it is of one): in the workflow's form,
    whichever command wrote it. Empty if it is no score file."""
    if not isinstance(content, dict):
        return {}
    if isinstance(content.get("files"), dict):
        several = {name: results_of(own, path) for name, own in content["files"].items()}
        return {name: own[""] for name, own in several.items() if own}
    try:
        if "per_example" not in content:
            is_scores = all("per_example" in r for own in content.values() for r in own.values())
            return {"": content} if content and is_scores else {}
        verifier, rows = str(content["provenance"]["verifier"] or "none"), content["per_example"]
        datasets = dict.fromkeys(row["dataset"] for row in rows)
        return {
            "": {
                verifier: {
                    dataset: content
                    | content.get("datasets", {}).get(dataset, {})
                    | {"per_example": [row for row in rows if row["dataset"] == dataset]}
                    for dataset in datasets
                }
            }
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {EXPECTED}; broken at {error}") from None


class Scored(NamedTuple):
    """A score file, and of which system and seed it is."""

    system: str
    seed: int
    path: Path
    results: Results


class ScoredAnswers:
    """Files of answers by their digests."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.by_digest = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}
        self.examples = cache(self._examples)

    def _examples(self, digest: str, dataset: str | None, skip_bad: bool) -> list[Example]:
        return read_answers(self.by_digest[digest], dataset, skip_bad).examples

    def with_rows(
        self, file: Scored, dataset: str, result: Mapping[str, Any]
    ) -> Iterator[tuple[Example, Mapping[str, Any]]]:
        """The answers to a dataset that were scored, each with its scores."""
        scored = result["provenance"]["input"]
        if scored["sha256"] not in self.by_digest:
            raise InputError(
                f"{file.path}: expected the answers that were scored, {scored['file']} (sha256 "
                f"{scored['sha256'][:12]}…), beside it, or named as well"
            )
        named = None if result.get("datasets") else dataset
        examples = self.examples(scored["sha256"], named, bool(result["left_out"]))
        own = [example for example in examples if example.dataset == dataset]
        return zip(own, result["per_example"], strict=True)


def named_files(paths: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Of each path, which may be `NAME=PATH`, that name, the file's own name, and the file.

    `SYSTEM/seedN.json` is named by its folder, any other file by itself.
    """
    plain = [_named(Path(path)) for path in paths if "=" not in path or Path(path).exists()]
    repeated = {place for place, count in Counter(plain).items() if count > 1}
    for path in paths:
        name, _, file = path.rpartition("=") if not Path(path).exists() else ("", "", path)
        own, seed = _named(Path(file))
        if (own, seed) in repeated:
            own = str(Path(file).parent if seed else file)
        yield name, own, file


def _named(path: Path) -> tuple[str, str]:
    """The system and the seed that a path speaks of; no seed unless its name is one."""
    is_seed = re.fullmatch(r"seed\d+", path.stem) is not None
    return (path.resolve().parent.name, path.stem) if is_seed else (path.stem, "")


def scored_files(paths: Sequence[str]) -> tuple[list[Scored], list[Path]]:
    """The score files among some (`named_files`; files of one name are seeds of one system), and
    the files of answers: the others, and those that may be what was scored: beside a score file or
    in the workflow's predictions.

    Raises:
        InputError: a file cannot be read, or none has scores.
    """
    scored: list[Scored] = []
    answers: list[Path] = []
    seeds: Counter[str] = Counter()
    for name, own, file in named_files(paths):
        path = Path(file)
        found = read_results(path)
        if not found:
            answers.append(path)
        for label, results in found.items():
            system = name or label or own
            said = re.fullmatch(r"seed(\d+)", path.stem)
            scored.append(Scored(system, int(said[1]) if said else seeds[system], path, results))
            seeds[system] += 1
            answers += [p for p in _likely(path, results) if p.is_file()]
    if not scored:
        raise InputError(f"{answers[0]}: expected a file of scores: citepipe score --json FILE")
    return scored, answers


def _likely(path: Path, results: Results) -> list[Path]:
    """Where the answers may be that a score file is of."""
    folder = path.resolve().parent
    predictions = folder.parent.parent / "predictions" / folder.name / path.stem
    names = {r["provenance"]["input"]["file"] for own in results.values() for r in own.values()}
    return [place / name for name in sorted(names) for place in (folder, Path(), predictions)]
