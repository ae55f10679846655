"""A paired comparison of score files: the same questions, two or more systems, perhaps by seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from citepipe.data.example import DATASETS
from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.scoring.alce import AVERAGED, CORRECTNESS, MEANS, METRICS
from citepipe.scoring.means import EQUALLY_WEIGHTED as WEIGHED
from citepipe.scoring.means import Columns, Difference, columns, holm, paired
from citepipe.scoring.results import EXPECTED, Results, named_files, results_of

HEADLINE = tuple(
    name
    for name in METRICS
    if not name.endswith("_eq_w") and name not in ("str_hit", "num_preds", "qampari_f1_top_5_eq_w")
)
"""The metrics that are compared unless others are named."""

TERMS = ("splitter", "rules", "at_most_citations")
"""What scores depend on besides the verifier, by their names in a score file's provenance."""

Part = tuple[str, str]
"""Of a score file: a dataset, and the identity of the verifier that scored it."""


class Run(NamedTuple):
    """The scores of one dataset under one verifier in one file: the name of the verifier, what the
    scores depend on besides, and the rows of `per_example`."""

    file: str
    verifier: str
    terms: dict[str, Any]
    rows: list[dict[str, Any]]


def read_systems(paths: Sequence[str]) -> dict[str, list[dict[Part, Run]]]:
    """The runs of each system, from files that `citepipe score --json` or the workflow wrote.

    All of one name (`named_files`) are seeds of one system; files that were scored in one call have
    their own names.

    Raises:
        InputError: one cannot be read or is no score file.
    """
    systems: dict[str, list[dict[Part, Run]]] = {}
    for name, own, file in named_files(paths):
        parts = results_of(read_json(file), Path(file))
        if not parts:
            raise InputError(f"{file}: {EXPECTED}")
        for label, results in parts.items():
            place = f"{file}, {label}" if len(parts) > 1 else file
            systems.setdefault(name or label or own, []).append(_parts(place, results))
    return systems


def _parts(file: str, results: Results) -> dict[Part, Run]:
    parts: dict[Part, Run] = {}
    try:
        for verifier, datasets in results.items():
            for result in datasets.values():
                about = result["provenance"]
                terms = {name: about.get(name) for name in TERMS}
                for row in result["per_example"]:
                    part = str(row["dataset"]), str(about.get("identity"))
                    # Datasets of one file may have been read by different rules.
                    rules = terms["rules"]
                    own = terms | {"rules": rules[part[0]] if isinstance(rules, dict) else rules}
                    run = parts.setdefault(part, Run(file, verifier, own, []))
                    scores = {name: float(row[name]) for name in METRICS if name in row}
                    counts = {
                        name: float(row["counts"].get(name, 0)) for _, name in WEIGHED.values()
                    }
                    kept = {name: str(row[name]) for name in ("id", "documents")}
                    kept["question"] = " ".join(row["question"].split())
                    numbered = {"is_numbered": row.get("is_numbered", False)}
                    run.rows.append(kept | numbered | {"scores": scores, "counts": counts})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: {EXPECTED}; broken at {error}") from None
    if not parts:
        raise InputError(f"{file}: {EXPECTED}")
    return parts


def compare(
    systems: Mapping[str, Sequence[Mapping[Part, Run]]],
    resamples: int,
    confidence: float,
    seed: int,
    metrics: Sequence[str] = (*HEADLINE, "correctness"),
) -> list[dict[str, Any]]:
    """Hold every system against the first.

    A metric counts for those questions for which both have it in all their files. `resamples`,
    `confidence` and `seed` are those of the bootstrap and the randomisation test.

    Returns:
        Per dataset (and verifier), or `mean` over ALCE's datasets, and per other system its
        `label`, `system`, `n` questions in common, how many are `only_in_a` and `only_in_b`, and
        `metrics` (`Difference.summary`; `p_holm` is corrected for all of what is returned).

    Raises:
        InputError: there is one system only, two have no question in common, or were scored by
            other rules, or rows cannot be paired.
    """
    if len(systems) < 2:
        raise InputError(f"expected two systems or more to compare, got {', '.join(systems)}")
    (first, ours), *others = systems.items()
    comparisons: list[dict[str, Any]] = []
    for name, theirs in others:
        found: dict[Part, dict[str, Difference]] = {}
        common = [part for part in ours[0] if all(part in run for run in (*ours, *theirs))]
        if not common:
            has = ["; ".join(" by ".join(part) for part in runs[0]) for runs in (theirs, ours)]
            raise InputError(f"{name}: nothing in common with {first}: {has[0]}, there {has[1]}")
        several = len({verifier for _, verifier in common}) > 1
        labels = {p: p[0] + (f" by {ours[0][p].verifier}" if several else "") for p in common}
        for part in common:
            sides = [[run[part] for run in runs] for runs in (ours, theirs)]
            pairs, n, only = _paired_rows(*sides)
            place = seed + DATASETS.index(part[0]) if part[0] in DATASETS else seed
            found[part] = paired(pairs[0], pairs[1], resamples, place)
            about = {"label": labels[part], "system": name, "n": n}
            about |= {"only_in_a": only[0], "only_in_b": only[1]}
            comparisons.append(about | {"metrics": _chosen(found[part], metrics)})
        for verifier in dict.fromkeys(verifier for _, verifier in common):
            own = {d: found[d, verifier] for d in AVERAGED if (d, verifier) in found}
            if len(own) > 1:
                label = "mean" + labels[next(iter(own)), verifier].removeprefix(next(iter(own)))
                about = {"label": label, "system": name, "over": list(own)}
                comparisons.append(about | {"metrics": _chosen(_means(own), metrics)})
    for one in comparisons:
        one["metrics"] = {k: d.summary(confidence) for k, d in one["metrics"].items()}
    every = [own for one in comparisons for own in one["metrics"].values()]
    for own, p in zip(every, holm([own["p"] for own in every]), strict=True):
        own["p_holm"] = p
    return comparisons


def _means(found: Mapping[str, Mapping[str, Difference]]) -> dict[str, Difference]:
    """The means over datasets, of what all of them have."""
    means = {}
    for metric in MEANS:
        names = {d: CORRECTNESS[d] if metric == "correctness" else metric for d in found}
        if all(names[dataset] in found[dataset] for dataset in found):
            parts = zip(*(found[dataset][names[dataset]] for dataset in found), strict=True)
            means[metric] = Difference(*(np.mean(part, axis=0) for part in parts))
    return means


def _chosen(found: Mapping[str, Difference], metrics: Sequence[str]) -> dict[str, Difference]:
    return {
        name: found[name] for name in (*METRICS, "correctness") if name in metrics and name in found
    }


def _paired_rows(
    ours: Sequence[Run], theirs: Sequence[Run]
) -> tuple[list[list[Columns]], int, tuple[int, int]]:
    """The scores of the questions that all runs have, of each run of both systems; how many these
    are, and how many only the one and only the other system has."""
    runs = [*ours, *theirs]
    for run in runs:
        for name, term in run.terms.items():
            if term != ours[0].terms[name]:
                raise InputError(
                    f"{run.file}: {name} {term!r}, but {ours[0].terms[name]!r} in {ours[0].file}; "
                    "scores compare under one verifier and one set of rules"
                )
    keyed = _keyed(runs)
    sides = [set.intersection(*map(set, s)) for s in (keyed[: len(ours)], keyed[len(ours) :])]
    common = sides[0] & sides[1]
    keys = [key for key in keyed[0] if key in common]
    if not keys:
        raise InputError(f"{theirs[0].file}: no question in common with {ours[0].file}")
    questions = [keyed[0][key]["question"] for key in keys]
    names = [set.intersection(*(set(own[key]["scores"]) for own in keyed)) for key in keys]
    built = [
        columns(
            [
                {name: own[key]["scores"][name] for name in METRICS if name in common}
                for key, common in zip(keys, names, strict=True)
            ],
            [own[key]["counts"] for key in keys],
            questions,
        )
        for own in keyed
    ]
    only = len(sides[0] - sides[1]), len(sides[1] - sides[0])
    return [built[: len(ours)], built[len(ours) :]], len(keys), only


def _keyed(runs: Sequence[Run]) -> list[dict[Any, dict[str, Any]]]:
    """The rows of each run by what pairs them: the id if all were given one and some are the same;
    else the question, or if it is repeated, question and documents. Never their places."""
    ways: list[Callable[[dict[str, Any]], Any]] = [
        lambda row: row["question"],
        lambda row: (row["question"], row["documents"]),
    ]
    if not any(row["is_numbered"] for run in runs for row in run.rows):
        ways.insert(0, lambda row: row["id"])
    for way in ways:
        keyed = [{way(row): row for row in run.rows} for run in runs]
        are_distinct = all(len(own) == len(run.rows) for own, run in zip(keyed, runs, strict=True))
        if are_distinct and (way is ways[-1] or set.intersection(*map(set, keyed))):
            break
    else:
        raise InputError(
            f"{runs[0].file} and {runs[-1].file}: questions are repeated with the same documents; "
            "such rows are paired by ids of their own"
        )
    for own, run in zip(keyed, runs, strict=True):
        for key in own.keys() & keyed[0].keys():
            if own[key]["question"] != keyed[0][key]["question"]:
                raise InputError(
                    f"{run.file}: id {own[key]['id']!r} is {own[key]['question']!r}, but "
                    f"{keyed[0][key]['question']!r} in {runs[0].file}"
                )
    return keyed
