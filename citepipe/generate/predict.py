"""Prediction: answers to test questions, written as ALCE result files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_result
from citepipe.data.prompts import Prompt
from citepipe.generate.completion import Generator, Request
from citepipe.generate.counting import Counting
from citepipe.generate.journal import Journal
from citepipe.generate.load import load_generator
from citepipe.models.encode import encode_prompt, end_token
from citepipe.models.load import check_trained, load_tokenizer
from citepipe.options import ModelOptions, PredictOptions, PromptOptions, ServerOptions
from citepipe.progress import Progress, say, summary
from citepipe.runstate import claim, discard


@dataclass(frozen=True, slots=True)
class PredictJob:
    """What answers which questions, and where the answers go.

    Attributes:
        tests: a file of examples per dataset.
        model: the base model.
        prompt: the prompt's templates and budget.
        options: how long answers may be.
        adapter: the adapter or whole model to answer with, or None for the bare base.
        server: where the model is served; None to load it in this process.
        outs: where the result file of each dataset goes.
        state: folder of the unfinished run.
        fingerprint: of everything the result depends on; another one starts clean.
        seed: recorded in the result files; greedy decoding draws nothing.
        threads: CPU threads.
    """

    tests: Mapping[str, Path]
    model: ModelOptions
    prompt: PromptOptions
    options: PredictOptions
    adapter: Path | None
    server: ServerOptions | None
    outs: Mapping[str, Path]
    state: Path
    fingerprint: str
    seed: int
    threads: int


Answer = Callable[
    [Sequence[Example], Sequence[Prompt], Generator], tuple[list[str], dict[str, float]]
]
"""Questions, their prompts and a generator to their answers, and what was done per second."""


def run(job: PredictJob) -> str:
    """Answer every question of every test file greedily.

    Returns:
        A line that says what was done.

    Raises:
        InputError: a file, a model or the server is not what it should be.
    """

    def answer(
        examples: Sequence[Example], prompts: Sequence[Prompt], generator: Generator
    ) -> tuple[list[str], dict[str, float]]:
        counting = Counting(generator, lambda: progress.advance(1, **rates()))
        journal = Journal(job.state / "completions.jsonl", counting)
        if journal.known:
            say(f"predict: going on after {journal.known} of {len(examples)} answers")
        progress = Progress("predict", len(examples), "answers", done=journal.known)

        def rates() -> dict[str, float]:
            return {"tokens/s": counting.tokens / max(progress.elapsed, 1e-9)}

        requests = [
            Request(prompt.token_ids, f"{example.dataset}/{example.id}", job.options.max_new_tokens)
            for example, prompt in zip(examples, prompts, strict=True)
        ]
        texts = [completion.text for [completion] in journal.generate(requests)]
        return texts, {
            "answers/s": counting.completions / max(progress.elapsed, 1e-9),
            **rates(),
        }

    return predict("predict", job, {"decoding": "greedy"}, answer)


def predict(label: str, job: PredictJob, decoding: Mapping[str, Any], answer: Answer) -> str:
    """Load what a job names, have its questions answered, and write the result files.

    Args:
        label: the stage's name in progress lines.
        job: what answers what.
        decoding: what the result files say of how it was decoded.
        answer: answers questions.

    Returns:
        A line that says what was done.
    """
    import torch

    torch.set_num_threads(job.threads)
    examples = {dataset: read_examples(path, dataset) for dataset, path in job.tests.items()}
    if job.adapter is not None:
        check_trained(job.adapter)
    tokenizer = load_tokenizer(job.model)
    asked = [example for rows in examples.values() for example in rows]
    prompts = [encode_prompt(example, job.prompt, tokenizer) for example in asked]
    end_id = end_token(tokenizer, job.prompt)
    claim(job.state, job.fingerprint, label)
    with closing(
        load_generator(
            job.model, job.adapter, tokenizer, end_id, job.options.batch_size, job.server
        )
    ) as generator:
        texts, rates = answer(asked, prompts, generator)
    outputs = iter(texts)
    for dataset, rows in examples.items():
        args = {
            "model": job.model.base,
            "adapter": None if job.adapter is None else str(job.adapter),
            "dataset": dataset,
            **decoding,
            "max_new_tokens": job.options.max_new_tokens,
            "seed": job.seed,
        }
        answered = [replace(example, output=next(outputs).strip()) for example in rows]
        write_result(job.outs[dataset], args, answered)
    discard(job.state)
    shortened = sum(prompt.shortened for prompt in prompts)
    if shortened:
        say(f"{label}: documents of {shortened} prompts were shortened to fit max_input_tokens")
    return summary(label, {"answers": len(texts), **rates, "prompts shortened": shortened})
