"""Supervised fine-tuning on cited answers; loss on the answer only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from citepipe.data.example import Example
from citepipe.data.files import read_examples
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.models.load import load_tokenizer
from citepipe.options import PromptOptions, SFTOptions
from citepipe.progress import say, summary
from citepipe.train.batch import Row
from citepipe.train.job import Job
from citepipe.train.trainer import Item, Trainer


def losses(log_probs: torch.Tensor, _: Sequence[Item]) -> dict[str, torch.Tensor]:
    """The negative log-probability of the answers' tokens."""
    return {"loss": -log_probs.sum()}


def encode_examples(
    examples: Sequence[Example], prompt: PromptOptions, tokenizer: Any, max_output_tokens: int
) -> list[Item]:
    """Each example with an answer: its prompt and answer, which weighs as many as it has tokens."""
    items = []
    for example in examples:
        if output := (example.output or "").strip():
            encoded = encode_prompt(example, prompt, tokenizer)
            answer = encode_answer(encoded, output, tokenizer, max_output_tokens)
            items.append(Item((Row(encoded.token_ids, answer),), len(answer)))
    return items


def run(job: Job, train: Path, dev: Path, options: SFTOptions) -> str:
    """Train on the answers (`output`) of examples; the weights with the lowest dev loss are kept.

    Their directory also has the tokenizer, `metrics.jsonl` (figures by step), and the last weights
    in `last/`. If no dev question has an answer (there is no teacher, answers are sampled), a tenth
    of the others is kept for that. Returns a line with the run's figures.

    Raises:
        InputError: no answers, no such model, a loss that is not finite, or too little memory.
    """
    torch.set_num_threads(job.threads)
    tokenizer = load_tokenizer(job.model)
    items, dev_items = (
        encode_examples(read_examples(path), job.prompt, tokenizer, options.max_output_tokens)
        for path in (train, dev)
    )
    if not dev_items:
        dev_items = items[::10]
        items = [item for place, item in enumerate(items) if place % 10]
        say(f"sft: no dev question has an answer; {len(dev_items)} others choose the best weights")
    for path, rows in ((train, items), (dev, dev_items)):
        if not rows:
            raise InputError(f"{path}: expected rows with an answer in field output, none has one")
    figures = Trainer("sft", job, options, losses, tokenizer).fit(items, dev_items)
    return summary("sft", {"answers": len(items), **figures})
