"""Scores of answer files: every dataset of a system under every verifier."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_json
from citepipe.errors import InputError
from citepipe.judge.judge import Judgement, judge
from citepipe.options.score import ScoreOptions
from citepipe.progress import say
from citepipe.score.alce import Scores, judged_scores, mean_scores, text_scores
from citepipe.score.intervals import intervals
from citepipe.text.normalize import clean_output
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.verify.base import Verifier, identity_of
from citepipe.verify.load import load_verifier


@dataclass(frozen=True, slots=True)
class Answers:
    """A file of answers, read once for all verifiers.

    Attributes:
        examples: what was asked.
        texts: the cleaned answers.
        scores: the metrics that need no verifier.
    """

    examples: list[Example]
    texts: list[str]
    scores: list[Scores]


def read_answers(
    path: Path, dataset: str | None, splitter: Splitter, options: ScoreOptions
) -> Answers:
    """Read an ALCE result file, or a list of examples with `output`.

    Args:
        path: the file.
        dataset: the dataset of all rows; None takes what the rows say.
        splitter: finds sentences for ROUGE.
        options: say whether ROUGE is computed.

    Raises:
        InputError: a bad row, one without `output`, or one of another dataset.
    """
    examples = read_examples(path, dataset)
    texts = []
    for number, example in enumerate(examples):
        if dataset is not None and example.dataset != dataset:
            raise InputError(
                f"{path}, row {number}, field dataset: expected {dataset}, got {example.dataset}"
            )
        if example.output is None:
            raise InputError(f"{path}, row {number}, field output: missing")
        texts.append(clean_output(example.output))
    return Answers(examples, texts, text_scores(examples, texts, splitter, options.rouge))


def score_answers(
    answers: Answers, verifier: Verifier, splitter: Splitter, options: ScoreOptions
) -> dict[str, Any]:
    """The scores of a file under one verifier.

    Returns:
        `metrics` (ALCE's names, 0 to 100), `intervals` (per metric `[low, high]`), `counts`,
        `per_example`, and `provenance`: all that the figures depend on.
    """
    examples = answers.examples
    judgements = judge(examples, answers.texts, verifier, splitter, options.judge)
    scores = [
        own | judged_scores(example, text, judgement, options.skip_empty)
        for own, example, text, judgement in zip(
            answers.scores, examples, answers.texts, judgements, strict=True
        )
    ]
    return {
        "metrics": mean_scores(scores),
        "intervals": intervals(scores, options.resamples, options.confidence, options.seed),
        "counts": _counts(judgements),
        "per_example": [
            {"id": example.id, **own, "statements": len(judgement.statements)}
            for example, own, judgement in zip(examples, scores, judgements, strict=True)
        ],
        "provenance": {
            "verifier": verifier.name,
            "identity": identity_of(verifier),
            "options": options.model_dump(),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("citepipe", "nltk", "rouge-score")},
            },
        },
    }


def run(
    predictions: Mapping[str, Path],
    verifiers: Mapping[str, str],
    options: ScoreOptions,
    cache: Path | None,
    out: Path,
) -> str:
    """Score a system's answers to every dataset under every verifier.

    Args:
        predictions: per dataset its result file.
        verifiers: per name in the report the spec of a verifier.
        options: how answers are judged and scored.
        cache: where a model's decisions are kept.
        out: is written as `{verifier: {dataset: score_answers(...)}}`.

    Returns:
        A line that names the file and the citation F1 under each verifier.

    Raises:
        InputError: a bad file, or there is no such verifier.
    """
    splitter = load_splitter(options.splitter)
    files = {
        dataset: read_answers(path, dataset, splitter, options)
        for dataset, path in predictions.items()
    }
    results: dict[str, dict[str, Any]] = {}
    for name, spec in verifiers.items():
        verifier = load_verifier(spec, cache)
        results[name] = {}
        for dataset, answers in files.items():
            results[name][dataset] = score_answers(answers, verifier, splitter, options)
            figures = results[name][dataset]["metrics"]
            say(f"{name}, {dataset}: {_citation_f1(figures)} over {len(answers.examples)} answers")
    write_json(out, results)
    means = {
        name: ", ".join(f"{d} {_citation_f1(r['metrics'])}" for d, r in datasets.items())
        for name, datasets in results.items()
    }
    return f"{out}: " + "; ".join(f"{name}: {line}" for name, line in means.items())


def _counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    statements = [s for judgement in judgements for s in judgement.statements]
    return {
        "examples": len(judgements),
        "without_statements": sum(not judgement.statements for judgement in judgements),
        "statements": len(statements),
        "citations": sum(len(statement.citations) for statement in statements),
    }


def _citation_f1(metrics: Mapping[str, float]) -> str:
    return f"citation F1 {metrics['citation_f1']:.1f}" if "citation_f1" in metrics else "no answer"
