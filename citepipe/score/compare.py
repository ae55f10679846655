"""A paired comparison of two score files: the same questions, two systems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.score.alce import METRICS
from citepipe.score.means import columns, paired_differences

Rows = dict[str, Mapping[str, Any]]


def compare_files(
    first: Path, second: Path, resamples: int, confidence: float, seed: int
) -> list[dict[str, Any]]:
    """Compare what two score files have in common, dataset by dataset.

    A metric counts for those questions for which both files have it.

    Args:
        first: a file that `citepipe score --json` or the workflow has written.
        second: another one, of the same questions.
        resamples: of the bootstrap and the randomisation test.
        confidence: coverage of the intervals.
        seed: of both.

    Returns:
        Per dataset its `label` (in the workflow's files verifier and dataset), `n` questions in
        common, how many are `only_in_a` and `only_in_b`, and `metrics` (`paired_differences`).

    Raises:
        InputError: one is not a score file, they have no question in common, or were not scored
            by the same verifier and rules.
    """
    ours, theirs = _parts(first), _parts(second)
    labels = [label for label in ours if label in theirs]
    if not labels:
        raise InputError(
            f"{second}: nothing in common with {first}: has {'; '.join(theirs)}, and that has "
            f"{'; '.join(ours)}"
        )
    comparisons = []
    for label in labels:
        (rows, terms), (others, other_terms) = ours[label], theirs[label]
        for name, term in terms.items():
            if term != other_terms[name]:
                raise InputError(
                    f"{second}: {name} {other_terms[name]!r} in {label}, but {term!r} in {first}; "
                    "scores compare under one verifier and one set of rules"
                )
        shared = [key for key in rows if key in others]
        if not shared:
            raise InputError(f"{second}: no question of {label} in common with {first}")
        common = {
            key: [name for name in METRICS if name in rows[key] and name in others[key]]
            for key in shared
        }
        a, b = (
            columns(
                [{name: side[key][name] for name in names} for key, names in common.items()],
                [side[key]["counts"] for key in shared],
            )
            for side in (rows, others)
        )
        comparisons.append(
            {
                "label": label,
                "n": len(shared),
                "only_in_a": len(rows) - len(shared),
                "only_in_b": len(others) - len(shared),
                "metrics": paired_differences(a, b, resamples, confidence, seed),
            }
        )
    return comparisons


def _parts(path: Path) -> dict[str, tuple[Rows, dict[str, Any]]]:
    """The parts of a score file of the command or the workflow: by label the rows of one dataset
    under one verifier, and what their scores depend on."""
    content = read_json(path)
    parts: dict[str, tuple[Rows, dict[str, Any]]] = {}
    try:
        results: dict[str, Any] = {"": content}
        if "per_example" not in content:
            results = {
                f"{verifier}, {dataset}": result
                for verifier, datasets in content.items()
                for dataset, result in datasets.items()
            }
        for label, result in results.items():
            provenance = result["provenance"]
            terms = {name: provenance.get(name) for name in ("identity", "splitter", "switches")}
            for row in result["per_example"]:
                own = label or str(row["dataset"])
                rows = parts.setdefault(own, ({}, terms))[0]
                if row["id"] in rows:
                    raise InputError(f"{path}: id {row['id']!r} occurs twice in {own}")
                rows[row["id"]] = {
                    **{name: float(row[name]) for name in METRICS if name in row},
                    "counts": {unit: float(count) for unit, count in row["counts"].items()},
                }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected a file of scores, written by `citepipe score --json` or the "
            f"workflow; broken at {error}"
        ) from None
    if not parts:
        raise InputError(f"{path}: expected a file of scores, it has none")
    return parts
