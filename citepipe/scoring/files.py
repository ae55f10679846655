"""Scores of answer files: one file for the command line, every dataset of a system for the DAG."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import AnswerFile, read_answers, write_json
from citepipe.errors import InputError
from citepipe.judgement import Judgement, answerable, gold_declines, judge, verdict_records
from citepipe.options import ScoreOptions
from citepipe.progress import say
from citepipe.provenance import digest_of
from citepipe.scoring import alce
from citepipe.scoring.evidence import passage_of
from citepipe.scoring.means import columns, intervals
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import Answer, notes_of, rules_of
from citepipe.verify.base import Verifier, identity_of, is_graded, provenance_of
from citepipe.verify.load import load_verifier

_version = cache(lambda name: (name, version(name)))


def chosen_metrics(options: ScoreOptions) -> frozenset[str]:
    """The metrics that are wanted; by default all but those that need a model of their own.
    Raises InputError if there is no such metric."""
    if options.metrics is None:
        return frozenset(alce.METRICS) - {*alce.READER, *alce.MAUVE}
    for name in options.metrics:
        if name not in alce.METRICS:
            raise InputError(f"metric {name!r}: expected some of {', '.join(alce.METRICS)}")
    return frozenset(options.metrics)


def read_all(file: AnswerFile, options: ScoreOptions) -> list[Answer]:
    """The answers of a file, each as its rules read it."""
    splitter = load_splitter(options.splitter)
    return [
        e.read(e.output or "", splitter, rules_of(e.dataset, options.rules), noting=True)
        for e in file.examples
    ]


class Scorer:
    """Scores a file of answers under any number of verifiers. What depends on none is computed
    once: ROUGE, QA-EM, MAUVE; `device` is where the models of the last two run.

    Raises:
        InputError: a metric, splitter or model that does not exist, or a row that lacks what a
            metric needs.
    """

    def __init__(self, file: AnswerFile, options: ScoreOptions, device: str = "auto") -> None:
        self._file, self._options = file, options
        self._wanted = chosen_metrics(options)
        self._needed = alce.computed(self._wanted)
        self._splitter = load_splitter(options.splitter)
        self._answers = read_all(file, options)
        for line in notes_of(self._answers):
            say(f"{file.path}: {line}")
        self._scores = alce.text_scores(file.examples, self._answers, self._splitter, self._needed)
        self._mauve: dict[str, float] = {}
        self._models: dict[str, Mapping[str, Any]] = {}
        bare = [answer.bare for answer in self._answers]
        if self._needs(alce.READER):
            from citepipe.scoring.reader import Reader, qa_scores

            reader = Reader(options.reader, device)
            self._models["reader"] = reader.provenance
            read = qa_scores(file.examples, bare, reader)
            self._scores = [own | more for own, more in zip(self._scores, read, strict=True)]
        if self._needs(alce.MAUVE):
            from citepipe.scoring.mauve import mauve_score

            self._models["mauve"] = options.model_dump(include={"mauve_model", "mauve_seed"})
            self._mauve["mauve"] = mauve_score(
                file.examples, bare, options.mauve_model, options.mauve_seed, device
            )

    def under(
        self, verifier: Verifier | None, elsewhere: bool = False, passages: bool = True
    ) -> dict[str, Any]:
        """The scores under one verifier; None if no wanted metric needs one. With `elsewhere` the
        documents that are not cited are looked through for what is not supported; without
        `passages` it is not looked for the sentence that decides on each statement.

        Returns:
            `metrics` (ALCE's names, 0 to 100), `intervals` (per metric `[low, high]`), `n` (how
            many answers have it), `counts`, `reasons` (of statements and citations, how often
            each), `datasets` (these five of each, if there are several), `per_example` (the
            question, a digest of its documents, scores and verdicts, with spans in the output;
            the id is the row's place if `is_numbered`),
            `left_out` (the complaints about bad rows) and `provenance`.
        """
        examples, options = self._file.examples, self._options
        judgements = judge(
            examples,
            self._answers,
            verifier,
            options.at_most_citations,
            citations=self._needs((*alce.CITATIONS, *alce.WEIGHTED)),
            claims=self._needs(alce.CLAIMS),
            elsewhere=elsewhere,
            refusals=True,
            # It asks for more pairs, to no purpose where verdicts are yes or no.
            first=self._needs(alce.WEIGHTED) and (bool(options.metrics) or is_graded(verifier)),
        )
        declined = self._answerable(judgements, verifier)
        rows: list[dict[str, Any]] = []
        for place, (example, answer, own, judgement) in enumerate(
            zip(examples, self._answers, self._scores, judgements, strict=True)
        ):
            scores = own | alce.judged_scores(example, answer, judgement)
            counts = alce.unit_counts(example, answer, judgement)
            if place in declined:
                decision = judgement.refused, declined[place]
                scores |= alce.refusal_scores(*decision)
                counts |= alce.refusal_counts(*decision)
            rows.append(
                {
                    "id": example.id,
                    **({"is_numbered": True} if example.is_numbered else {}),
                    "dataset": example.dataset,
                    "question": example.question,
                    "documents": _digest(example),
                    **{name: value for name, value in scores.items() if name in self._needed},
                    "counts": counts,
                    **verdict_records(judgement),
                }
            )
            for statement in rows[-1]["statements"] if passages else ():
                statement["passage"] = passage_of(example, statement)
        result = self._summary(rows)
        result["metrics"] |= self._mauve
        datasets = list(dict.fromkeys(example.dataset for example in examples))
        if len(datasets) > 1:
            result["datasets"] = {
                name: self._summary([row for row in rows if row["dataset"] == name])
                for name in datasets
            }
        return result | {
            "per_example": rows,
            "left_out": self._file.left_out,
            "provenance": self._provenance(verifier),
        }

    def _answerable(
        self, judgements: Sequence[Judgement], verifier: Verifier | None
    ) -> dict[int, bool | None]:
        """Whether the documents hold a gold answer, by the places of the answers, for datasets in
        which some answer or gold answer declines, or all if metrics of refusals are named."""
        examples = self._file.examples
        if not self._needs(alce.REFUSALS):
            return {}
        having = {
            example.dataset
            for example, judgement in zip(examples, judgements, strict=True)
            if self._options.metrics or judgement.refused or gold_declines(example)
        }
        places = [n for n, example in enumerate(examples) if example.dataset in having]
        decided = [examples[n] for n in places]
        found = (
            answerable(decided, verifier) if self._needs(("refusal_acc",)) else [None] * len(places)
        )
        return dict(zip(places, found, strict=True))

    def _needs(self, metrics: Collection[str]) -> bool:
        return not self._needed.isdisjoint(metrics)

    def _summary(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        options = self._options
        own = columns(
            [{name: row[name] for name in row if name in self._needed} for row in rows],
            [row["counts"] for row in rows],
            [row["question"] for row in rows],
        )
        means = own.means()
        bounds = intervals(own, options.resamples, options.confidence, options.seed)
        wanted = [name for name in alce.METRICS if name in self._wanted and name in means]
        return {
            "metrics": {name: means[name] for name in wanted},
            "intervals": {name: bounds[name] for name in wanted},
            "n": {
                name: sum(alce.computed([name]) <= row.keys() for row in rows) for name in wanted
            },
            "counts": {
                "examples": len(rows),
                "without_statements": sum(not row["statements"] for row in rows),
                **{key: sum(len(row[key]) for row in rows) for key in ("statements", "citations")},
            },
            "reasons": {
                key: dict(Counter(one["reason"] for row in rows for one in row[key]).most_common())
                for key in ("statements", "citations")
            },
        }

    def _provenance(self, verifier: Verifier | None) -> dict[str, Any]:
        options = self._options
        about: dict[str, Any] = {"verifier": None}
        if verifier is not None:
            about = {"verifier": verifier.name, "identity": identity_of(verifier)}
            about |= provenance_of(verifier)
        packages = ["citepipe", "nltk", "numpy", "rouge-score"]
        packages += ["torch", "transformers"] if "model" in about or self._models else []
        packages += ["mauve-text"] if self._mauve else []
        return {
            **about,
            "splitter": options.splitter,
            "rules": " and ".join(sorted({answer.rules for answer in self._answers})),
            "at_most_citations": options.at_most_citations,
            **self._models,
            "bootstrap": options.model_dump(include={"resamples", "confidence", "seed"}),
            "input": {"file": self._file.path.name, "sha256": self._file.sha256},
            "versions": {"python": platform.python_version(), **dict(map(_version, packages))},
        }


def _digest(example: Example) -> str:
    return digest_of([doc.passage for doc in example.docs])


def run(
    predictions: Mapping[str, Path],
    verifiers: Mapping[str, str],
    options: ScoreOptions,
    cache: Path | None,
    out: Path,
) -> str:
    """Score a system's answers to every dataset under every verifier.

    Args:
        predictions: result files by dataset.
        verifiers: specs by their names in the report.
        options: how answers are judged and scored.
        cache: where a model's decisions are kept.
        out: is written as `{verifier: {dataset: Scorer(...).under(verifier)}}`.

    Returns:
        A line with the citation F1 under each verifier.
    """
    scorers = {
        dataset: Scorer(read_answers(path, dataset), options)
        for dataset, path in predictions.items()
    }
    results: dict[str, dict[str, Any]] = {}
    lines = []
    for name, spec in verifiers.items():
        verifier = load_verifier(spec, cache)
        results[name] = {dataset: scorer.under(verifier) for dataset, scorer in scorers.items()}
        for dataset, result in results[name].items():
            f1 = result["metrics"].get("citation_f1")
            shown = "no answer" if f1 is None else f"citation F1 {f1:.1f}"
            lines.append(f"{name}, {dataset}: {shown} over {result['counts']['examples']} answers")
    write_json(out, results)
    return f"{out}: {'; '.join(lines)}"
