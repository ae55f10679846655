"""Score files, whichever command wrote them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json
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
