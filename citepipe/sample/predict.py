"""Prediction: answers to test questions, written as ALCE result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_result
from citepipe.generate.completion import Generator
from citepipe.options import PredictOptions
from citepipe.progress import summary
from citepipe.runstate import discard
from citepipe.sample.job import (
    Ids,
    Job,
    Method,
    Record,
    answer_questions,
    answer_record,
    greedy_requests,
)


def run(
    job: Job, options: PredictOptions, tests: Mapping[str, Path], outs: Mapping[str, Path]
) -> str:
    """Answer every question of every test file greedily; see `predict`."""

    def sample(
        examples: Sequence[Example], prompts: Sequence[Ids], generator: Generator
    ) -> list[Record]:
        requests = greedy_requests(examples, prompts, options.max_new_tokens)
        return [
            {
                "id": example.id,
                "dataset": example.dataset,
                "candidates": [answer_record(said.text, len(said.token_ids), said.finish, {})],
            }
            for example, [said] in zip(examples, generator.generate(requests), strict=True)
        ]

    method = Method("predict", "answers", sample)
    return predict(job, options, tests, outs, {"decoding": "greedy"}, method)


def predict(
    job: Job,
    options: PredictOptions,
    tests: Mapping[str, Path],
    outs: Mapping[str, Path],
    decoding: Mapping[str, Any],
    method: Method,
) -> str:
    """Have every question of every test file answered, and write the result files, both by dataset.

    They say that they were decoded as in `decoding`. Returns a line that says what was done; raises
    InputError for a file, model, verifier or server that is not what it should be.
    """
    examples = {dataset: read_examples(path, dataset) for dataset, path in tests.items()}
    questions = [example for rows in examples.values() for example in rows]
    records, figures = answer_questions(job, questions, options.batch_size, method)
    nothing = {"text": "", "finish": "end"}
    said = [next((c for c in record["candidates"] if c["text"]), nothing) for record in records]
    outputs = iter(own["text"] for own in said)
    for dataset, rows in examples.items():
        args = {
            "model": job.model.base,
            "adapter": None if job.adapter is None else str(job.adapter),
            "dataset": dataset,
            **decoding,
            "max_new_tokens": options.max_new_tokens,
            "seed": job.seed,
        }
        answered = [replace(example, output=next(outputs)) for example in rows]
        write_result(outs[dataset], args, answered)
    discard(job.state)
    ends = [own["finish"] for own in said]
    counts = {"answers": len(said), "cut at a stop": ends.count("stop")}
    return summary(method.label, {**counts, "cut off": ends.count("length"), **figures})
