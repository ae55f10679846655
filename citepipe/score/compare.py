"""A paired comparison of two score files: the same questions, two systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.score.alce import METRICS
from citepipe.score.means import columns, paired_differences

Row = tuple[dict[str, float], dict[str, float]]


def compare_files(
    first: Path, second: Path, resamples: int, confidence: float, seed: int
) -> list[dict[str, Any]]:
    """Compare what two score files (`citepipe score --json`, or the workflow's) have in common.

    A metric counts for those questions for which both files have it. `resamples`, `confidence` and
    `seed` are those of the bootstrap and the randomisation test.

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
        pairs = [(rows[key], others[key]) for key in rows if key in others]
        if not pairs:
            raise InputError(f"{second}: no question of {label} in common with {first}")
        common = [[name for name in a if name in b] for (a, _), (b, _) in pairs]
        one, other = (
            columns(
                [
                    {k: own[side][0][k] for k in names}
                    for own, names in zip(pairs, common, strict=True)
                ],
                [own[side][1] for own in pairs],
            )
            for side in (0, 1)
        )
        comparisons.append(
            {
                "label": label,
                "n": len(pairs),
                "only_in_a": len(rows) - len(pairs),
                "only_in_b": len(others) - len(pairs),
                "metrics": paired_differences(one, other, resamples, confidence, seed),
            }
        )
    return comparisons


def _parts(path: Path) -> dict[str, tuple[dict[str, Row], dict[str, Any]]]:
    """The parts of a score file, by label: the scores and counts of each question of one dataset
    under one verifier, and what the scores depend on."""
    content = read_json(path)
    parts: dict[str, tuple[dict[str, Row], dict[str, Any]]] = {}
    try:
        results: dict[str, Any] = {"": content}
        if "per_example" not in content:
            results = {f"{v}, {d}": own for v, sets in content.items() for d, own in sets.items()}
        for label, result in results.items():
            provenance = result["provenance"]
            terms = {name: provenance.get(name) for name in ("identity", "splitter", "switches")}
            for row in result["per_example"]:
                own = label or str(row["dataset"])
                rows = parts.setdefault(own, ({}, terms))[0]
                if row["id"] in rows:
                    raise InputError(f"{path}: id {row['id']!r} occurs twice in {own}")
                scores = {name: float(row[name]) for name in METRICS if name in row}
                rows[row["id"]] = scores, {k: float(n) for k, n in row["counts"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected a file of scores, written by `citepipe score --json` or the "
            f"workflow; broken at {error}"
        ) from None
    if not parts:
        raise InputError(f"{path}: expected a file of scores, it has none")
    return parts
