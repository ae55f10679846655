"""Prediction: greedy answers to test questions, written as ALCE result files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from citepipe.data.files import read_examples, write_result
from citepipe.generate.completion import Request
from citepipe.generate.local import HuggingFaceGenerator
from citepipe.models.encode import encode_prompt, end_token
from citepipe.models.load import check_trained, load_for_inference, load_tokenizer
from citepipe.options.model import ModelOptions
from citepipe.options.predict import PredictOptions
from citepipe.options.prompt import PromptOptions
from citepipe.progress import Progress, say, summary


def run(
    tests: Mapping[str, Path],
    model: ModelOptions,
    prompt: PromptOptions,
    options: PredictOptions,
    adapter: Path | None,
    outs: Mapping[str, Path],
    seed: int,
    threads: int,
) -> str:
    """Answer every question of every test file.

    Args:
        tests: a file of examples per dataset.
        model: the base model.
        prompt: the prompt's templates and budget.
        options: how long answers may be.
        adapter: the adapter or whole model to answer with, or None for the bare base.
        outs: where the result file of each dataset goes.
        seed: recorded in the result files; greedy decoding draws nothing.
        threads: CPU threads.

    Returns:
        A line that says what was done.
    """
    import torch

    torch.set_num_threads(threads)
    examples = {dataset: read_examples(path, dataset) for dataset, path in tests.items()}
    if adapter is not None:
        check_trained(adapter)
    tokenizer = load_tokenizer(model)
    generator = HuggingFaceGenerator(
        load_for_inference(model, adapter),
        tokenizer,
        options.batch_size,
        end_token(tokenizer, prompt),
    )
    progress = Progress("predict", sum(map(len, examples.values())), "answers")
    tokens = shortened = 0
    for dataset, rows in examples.items():
        prompts = [encode_prompt(example, prompt, tokenizer) for example in rows]
        shortened += sum(p.shortened for p in prompts)
        answered = []
        for start in range(0, len(rows), 4 * options.batch_size):
            chunk = slice(start, start + 4 * options.batch_size)
            completions = generator.generate(
                [
                    Request(p.token_ids, f"{dataset}/{e.id}", options.max_new_tokens)
                    for p, e in zip(prompts[chunk], rows[chunk], strict=True)
                ]
            )
            for example, [completion] in zip(rows[chunk], completions, strict=True):
                answered.append(replace(example, output=completion.text.strip()))
                tokens += len(completion.token_ids)
            progress.advance(len(completions), tokens_per_s=tokens / progress.elapsed)
        args = {
            "model": model.base,
            "adapter": None if adapter is None else str(adapter),
            "dataset": dataset,
            "decoding": "greedy",
            "max_new_tokens": options.max_new_tokens,
            "seed": seed,
        }
        write_result(outs[dataset], args, answered)
    if shortened:
        say(f"predict: documents of {shortened} prompts were shortened to fit max_input_tokens")
    return summary(
        "predict",
        {
            "answers": progress.done,
            "tokens": tokens,
            "tokens/s": tokens / progress.elapsed,
            "prompts shortened": shortened,
        },
    )
