"""The commands that look at answers: `score` and `reward`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.cli import shared
from citepipe.errors import InputError

if TYPE_CHECKING:
    from citepipe.data.files import AnswerFile
    from citepipe.options import ScoreOptions


def add_score(commands: Any) -> None:
    """The command `score`."""
    option = shared.command(
        commands,
        "score",
        _score,
        "ALCE's scores of files of answers",
        "Prints ALCE's scores of files of answers with bootstrap intervals: correctness, ROUGE, "
        "length, and citation recall and precision under a verifier.",
        "score answers_asqa.json",
        "score mine.csv theirs.csv --json scores.json",
        "score answers.jsonl --dataset eli5 --skip-bad",
        "score mine.csv --min citation_f1=70,claims_nli=50 --junit scores.xml",
        "score answers_asqa.json --metrics length,str_em,rougeLsum",
        "score answers_asqa.json --verifier google/t5_xxl_true_nli_mixture?dtype=4bit",
    ).add_argument
    shared.add_answers(option)
    shared.add_resampling(option, 1000)
    shared.add_verifier(option)
    names = "metrics by ALCE's names (mauve, QA-EM, QA-F1 and QA-Hit only if named here)"
    option("--metrics", type=lambda text: tuple(text.split(",")), metavar="A,B", help=names)
    add_judging(option)
    option("--qa-model", dest="reader", metavar="MODEL", help="the reader of QA-EM, QA-F1, QA-Hit")
    option("--mauve-model", metavar="MODEL", help="the model behind MAUVE")
    bounds = "end with 1 if a metric of a file (and dataset) is lower"
    option("--min", type=_bounds, default={}, metavar="NAME=X,...", help=bounds)
    shared.add_junit(option)
    programs = "also write the answers as EXPERTQA's own programs read them"
    option("--expertqa", type=Path, metavar="FILE", help=programs)


def add_judging(option: Any) -> None:
    """By which rules answers are read and judged."""
    rules = (
        "how answers are read: alce, as ALCE's program with all its peculiarities, or sane, as a "
        "person (all lines, citations in any notation, also behind the stop); default: alce for "
        "ASQA, QAMPARI and ELI5, sane for all else"
    )
    option("--rules", choices=("alce", "sane"), help=rules)
    count = "citations of a statement that count, 0 for all" + shared.DEFAULT
    option(
        "--at-most-citations", dest="most", type=shared.natural, default=3, metavar="N", help=count
    )
    other = "look for support of what is not supported in the documents that are not cited"
    option("--elsewhere", action="store_true", help=other)


def _bounds(text: str) -> dict[str, float]:
    try:
        return {name: float(x) for name, x in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, got {text!r}") from None


def _score(arguments: argparse.Namespace) -> None:
    """Score files of answers, print the scores and write them with every verdict."""
    from citepipe.options import ScoreOptions
    from citepipe.scoring.files import chosen_metrics, read_all

    options = ScoreOptions(**shared.given(arguments, ScoreOptions))
    wanted = chosen_metrics(options)
    if unknown := [name for name in arguments.min if name not in wanted]:
        raise InputError(f"--min: {unknown[0]!r} is no metric that is computed")
    shared.check_writable(arguments.json, arguments.expertqa, arguments.junit)
    files = shared.answers_of(arguments)
    if arguments.expertqa is not None:
        from citepipe.scoring.expertqa import write_expertqa

        if len(files) > 1:
            raise InputError(f"--expertqa: expected one file of answers, got {len(files)}")
        [(name, file)] = files.items()
        write_expertqa(arguments.expertqa, file.examples, read_all(file, options), name)
    results = scored(arguments, files, options, passages=arguments.json is not None)
    lines = _scores(results, options.confidence)
    shared.publish(arguments.json, shared.together(results), lines)
    if arguments.min:
        only = arguments.inputs[0].stem
        cases = [
            shared.Case(
                label or only,
                name,
                f"at least {least:g}",
                "none" if (value := part["metrics"].get(name)) is None else f"{value:.2f}",
                value is not None and value >= least,
            )
            for label, part in parts_of(results).items()
            for name, least in arguments.min.items()
        ]
        shared.settle(cases, arguments.junit)


def scored(
    arguments: argparse.Namespace,
    files: dict[str, AnswerFile],
    options: ScoreOptions,
    passages: bool = True,
) -> dict[str, dict[str, Any]]:
    """The scores of each file under the verifier, which is loaded if a metric needs it; with the
    passages that decide if they are to be shown."""
    from citepipe.scoring import alce
    from citepipe.scoring.files import Scorer, chosen_metrics

    options = options.model_copy(update={"at_most_citations": arguments.most or None})
    needed = alce.computed(chosen_metrics(options))
    verifier = shared.verifier_of(arguments) if any(map(alce.asks_verifier, needed)) else None
    results = {}
    for name, file in files.items():
        scorer = Scorer(file, options, arguments.device)
        results[name] = scorer.under(verifier, arguments.elsewhere, passages)
    shared.tell_levels(verifier)
    return results


def parts_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts of results that have scores of their own: files, and datasets, where there are
    several, by their names."""
    parts = {}
    for name, result in results.items():
        for dataset, part in result.get("datasets", {"": result}).items():
            label = ", ".join(filter(None, [name if len(results) > 1 else "", dataset]))
            parts[label] = {"provenance": result["provenance"], **part}
    return parts


def _scores(results: dict[str, Any], confidence: float) -> Iterator[str]:
    """The scores to read, side by side of files and datasets if there are several."""
    parts = parts_of(results)
    names = dict.fromkeys(name for part in parts.values() for name in part["metrics"])
    for label, part in parts.items():
        counts, provenance = part["counts"], part["provenance"]
        yield (
            f"{label + ': ' if label else ''}{counts['examples']} answers, "
            f"{counts['statements']} statements, {counts['citations']} citations; verifier "
            f"{provenance['verifier'] or 'none'}, splitter {provenance['splitter']}, rules "
            f"{provenance['rules']}"
        )
        for kind, reasons in part["reasons"].items():
            shown = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            yield f"  {kind}: {shown or 'none'}"
    asked = {name: {row["question"] for row in own["per_example"]} for name, own in results.items()}
    first = next(iter(asked))
    for name, questions in asked.items():
        if questions != asked[first]:
            common = len(questions & asked[first])
            yield f"{name} has other questions than {first}: {common} of {len(questions)} the same"
    width = max(38, *(len(label) + 2 for label in parts))
    if len(parts) > 1:
        yield f"{'':<27}{''.join(f'{label:<{width}}' for label in parts)}".rstrip()
    head = f"{'value':>9}   {confidence:.0%} interval"
    yield f"{'metric':<24}{''.join(f'{head:<{width}}' for _ in parts)}".rstrip()
    for name in names:
        cells = []
        for part in parts.values():
            value, bounds = part["metrics"].get(name), part["intervals"].get(name)
            shown = f"{'-' if value is None else f'{value:.2f}':>9}"
            shown += "   [{:.2f}, {:.2f}]".format(*bounds) if bounds else ""
            n = part["n"].get(name, part["counts"]["examples"])
            cells.append(shown + (f" of {n}" if n < part["counts"]["examples"] else ""))
        yield f"{name:<24}{''.join(f'{cell:<{width}}' for cell in cells)}".rstrip()
    for name, result in results.items():
        if "datasets" in result and "mauve" in result["metrics"]:
            yield f"{name}: mauve of all datasets {result['metrics']['mauve']:.2f}"


def add_reward(commands: Any) -> None:
    """The command `reward`."""
    option = shared.command(
        commands,
        "reward",
        _reward,
        "the rewards of files of answers, and the verdicts behind them",
        "Judges every statement, citation and gold answer, and prints the rewards that follow; "
        "--json has each with its place in the text.",
        "reward answers_asqa.json",
        "reward answers.jsonl --dataset eli5 --verifier MODEL --json rewards.json",
        "reward answers.jsonl --correctness 0 --json - | jq .means",
    ).add_argument
    shared.add_answers(option)
    shared.add_verifier(option)
    shared.add_rewards(option)


def _reward(arguments: argparse.Namespace) -> None:
    """Print the rewards of files of answers and write them with the verdicts behind them."""
    from citepipe.options import RewardOptions
    from citepipe.rewards import reward_file

    options = RewardOptions(**shared.given(arguments, RewardOptions))
    shared.check_writable(arguments.json)
    files = shared.answers_of(arguments)
    verifier = shared.verifier_of(arguments)
    results = {name: reward_file(file, verifier, options) for name, file in files.items()}
    shared.tell_levels(verifier)
    shared.publish(arguments.json, shared.together(results), _rewards(results))


def _rewards(results: dict[str, Any]) -> Iterator[str]:
    """A line of totals per answer, and their means; of several files each behind its name."""
    names = list(next(iter(results.values()))["means"])
    yield "".join([f"{'id':<24}", *(f"{name:>20}" for name in names)])
    for file, result in results.items():
        lead = f"{file} " if len(results) > 1 else ""
        rows = [(own["id"], own["totals"]) for own in result["per_example"]]
        for label, totals in [*rows, ("mean", result["means"])]:
            yield "".join([f"{lead + label:<24}", *(f"{totals[n]:>+20.2f}" for n in names)])
