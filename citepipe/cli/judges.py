"""The command `judges`: how far verifiers can be trusted, on labelled pairs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.cli import shared
from citepipe.errors import InputError

if TYPE_CHECKING:
    from citepipe.scoring.agreement import Labelled


def add_judges(commands: Any) -> None:
    """The command `judges`."""
    option = shared.command(
        commands,
        "judges",
        _judges,
        "how often verifiers agree with people, and with each other",
        "Holds verifiers against the labels of people: accuracy with its interval, balanced "
        "accuracy, Cohen's kappa, precision, recall and F1 of the supported and the unsupported by "
        "source, pairs per second, and how far the verifiers agree with each other. Of score files "
        "by several verifiers it says whether they rank the systems alike.",
        "judges attributionbench_dev.jsonl",
        "judges pairs.csv --verifier lexical --verifier lytang/MiniCheck-Flan-T5-Large",
        "judges results/scores/*/seed*.json",
        "judges pairs.csv --verifier 'lexical>MODEL>server:URL#MODEL' --calibrate 0.1",
    ).add_argument
    fields = (
        "labelled pairs, in JSON, JSON lines, CSV, TSV or Parquet: AttributionBench's rows, "
        "LLM-AggreFact's (doc, claim, label), or rows of premise, claim, label and perhaps source; "
        "or score files, as of `citepipe compare`"
    )
    option("files", nargs="+", metavar="FILE", help=fields)
    spec = f"{shared.VERIFIER_HELP}; may be repeated; default: lexical"
    option("--verifier", action="append", metavar="SPEC", help=spec)
    share = shared.number(float, "a share below 1", lambda value: 0 < value < 1)
    every = (
        "find the thresholds of cascades on every other pair, with at most this share of errors on "
        "either side (by its 95 %% bound), and measure on the rest"
    )
    option("--calibrate", type=share, metavar="ERROR", help=every)
    shared.add_models(option)
    shared.add_json(option)


def _judges(arguments: argparse.Namespace) -> None:
    """Measure verifiers on labelled pairs, or compare how they rank systems."""
    from citepipe.scoring.agreement import kappa, rankings, read_labelled
    from citepipe.scoring.compare import read_systems
    from citepipe.scoring.results import named_files, read_results
    from citepipe.verify.load import check_spec

    shared.check_writable(arguments.json)
    files = [Path(file) for _, _, file in named_files(arguments.files)]
    if read_results(files[0]):
        ranked = rankings(read_systems(arguments.files))
        return shared.publish(arguments.json, ranked, _rank_lines(ranked))
    specs = list(dict.fromkeys(arguments.verifier or ["lexical"]))
    for spec in specs:
        check_spec(spec)
    labelled = [one for file in files for one in read_labelled(file)]
    if arguments.calibrate is not None:
        if len(labelled) < 2 or not any(">" in spec for spec in specs):
            raise InputError("--calibrate: expected a cascade (--verifier 'A>B>C') and two pairs")
        specs = [_calibrated(arguments, spec, labelled[::2]) for spec in specs]
        labelled = labelled[1::2]
    judges = {spec: _measured(arguments, spec, labelled) for spec in specs}
    between = []
    for one, other in combinations(specs, 2):
        a, b = (judges[spec]["decisions"] for spec in (one, other))
        same = 100 * sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
        between.append({"judges": [one, other], "same": same, "kappa": kappa(a, b)})
    found = {"files": list(map(str, files)), "judges": judges, "between": between}
    return shared.publish(arguments.json, found, _lines(found))


def _calibrated(arguments: argparse.Namespace, spec: str, labelled: Sequence[Labelled]) -> str:
    """The spec of a cascade with the thresholds that these pairs ask for; any other as it is."""
    from citepipe.verify.cascade import Cascade, calibrated
    from citepipe.verify.load import levels

    if len(levels(spec)) == 1:
        return spec
    cascade = shared.verifier_of(arguments, spec)
    assert isinstance(cascade, Cascade)
    pairs = [one.pair(cascade.question_first) for one in labelled]
    labels = [one.label for one in labelled]
    return calibrated(cascade, levels(spec), pairs, labels, arguments.calibrate)


def _measured(
    arguments: argparse.Namespace, spec: str, labelled: Sequence[Labelled]
) -> dict[str, Any]:
    """A verifier's decisions, its agreement with the labels, in all and by source, and its speed:
    over the pairs that were computed, and not known."""
    from citepipe.scoring.agreement import agreement
    from citepipe.verify.base import provenance_of
    from citepipe.verify.cascade import Cascade

    verifier = shared.verifier_of(arguments, spec)
    pairs = [one.pair(getattr(verifier, "question_first", False)) for one in labelled]
    labels = [one.label for one in labelled]
    levels: list[dict[str, Any]] = []
    known, began = 0, time.perf_counter()
    if isinstance(verifier, Cascade):
        decided = verifier.decided(pairs)
        decisions = [bool(verdict) for verdict, _ in decided]
        levels = [level.account() for level in verifier.levels]
        for (verdict, number), label in zip(decided, labels, strict=True):
            name = "wrongly " + ("accepted" if verdict else "refused")
            levels[number][name] = levels[number].get(name, 0) + (bool(verdict) != label)
    else:
        # What a verifier imports and loads for its first pair is no part of its speed.
        verifier.entails(pairs[:1])
        known, began = getattr(verifier, "computed", 0), time.perf_counter()
        decisions = verifier.entails(pairs)
    seconds = time.perf_counter() - began
    computed = getattr(verifier, "computed", len(set(pairs))) - known
    sources = {}
    for source in sorted({one.source for one in labelled}):
        own = [place for place, one in enumerate(labelled) if one.source == source]
        sources[source] = agreement([labels[i] for i in own], [decisions[i] for i in own])
    return {
        "provenance": provenance_of(verifier),
        "all": agreement(labels, decisions),
        "sources": sources if len(sources) > 1 else {},
        "levels": levels,
        # What levels of a cascade knew already is not counted.
        "pairs_per_second": computed / seconds if computed and not levels else None,
        "decisions": decisions,
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """The figures to read."""
    for spec, judge in found["judges"].items():
        rows = judge["sources"] | {"all": judge["all"]}
        width = max(map(len, [*rows, "source"]))
        speed = judge["pairs_per_second"]
        known = "seconds by level below" if judge["levels"] else "all was known"
        yield f"{spec}: {known if speed is None else f'{speed:.3g} pairs/s'}"
        yield f"{'':{width}}{'supported, %':>22}{'':37}{'supported':>18}{'unsupported':>19}"
        yield (
            f"{'source':{width}}   pairs  labels  judge  accuracy        95 %  balanced  kappa"
            + "      P     R    F1" * 2
        )
        for source, own in rows.items():
            classes = [own[c][m] for c in ("supported", "unsupported") for m in own[c]]
            p, r, f, *others = (f"{_shown(value):>6}" for value in classes)
            low, high = own["interval"]
            yield (
                f"{source:{width}}{own['pairs']:8}{own['labelled']:8.1f}{own['decided']:7.1f}"
                f"{own['accuracy']:10.1f}{f'{low:.1f}-{high:.1f}':>12}"
                f"{_shown(own['balanced_accuracy']):>10}{_shown(own['kappa'], 2):>7} "
                f"{p}{r}{f} {''.join(others)}"
            )
        yield from map(shared.level_line, judge["levels"])
        yield ""
    for own in found["between"]:
        one, other = own["judges"]
        yield f"{one} and {other}: {own['same']:.1f} % the same, kappa {_shown(own['kappa'], 2)}"


def _rank_lines(ranked: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rankings to read: systems by verifier, and where two verifiers contradict each other."""
    for part in ranked:
        for verifier, own in part["means"].items():
            best = sorted(own, key=lambda system: -own[system])
            shown = ", ".join(f"{system} {own[system]:.2f}" for system in best)
            yield f"{part['dataset']} by {verifier}, citation F1: {shown}"
        for own in part["between"]:
            one, other = own["judges"]
            swapped = "".join(f"; {a} and {b} change places" for a, b in own["swapped"])
            yield f"{part['dataset']}, {one} and {other}: tau {own['tau']:.2f}{swapped}"


def _shown(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
