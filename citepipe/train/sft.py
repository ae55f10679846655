"""Supervised fine-tuning on cited answers; loss on the answer only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from citepipe.data.example import Example
from citepipe.data.files import read_examples
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompts, end_token, stops
from citepipe.models.load import load_tokenizer
from citepipe.options import PromptOptions, SFTOptions
from citepipe.progress import say, summary
from citepipe.text.layout import without_thoughts
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import is_behind_stop, is_list
from citepipe.train.batch import Row
from citepipe.train.job import Job
from citepipe.train.trainer import Item, Trainer


def losses(log_probs: torch.Tensor, _: Sequence[Item]) -> dict[str, torch.Tensor]:
    """The negative log-probability of the answers' tokens."""
    return {"loss": -log_probs.sum()}


def encode_examples(
    examples: Sequence[Example], prompt: PromptOptions, tokenizer: Any, max_output_tokens: int
) -> list[Item]:
    """Each example with an answer: its prompt and answer, which weighs as many as it has tokens.

    Thoughts are not learnt, as they are not judged. Answers end before their first stop string, as
    generated ones do; where that is a newline, the statements of several lines become one line
    first. What is cut is said.
    """
    answered = [example for example in examples if (example.output or "").strip()]
    stop = "|".join(map(re.escape, stops(tokenizer, prompt))) or r"\Z"
    end, items = end_token(tokenizer, prompt), []
    in_a_line = "\n" in stops(tokenizer, prompt)
    joined = stopped = cut = 0
    for example, encoded in zip(
        answered, encode_prompts(answered, prompt, tokenizer, "sft"), strict=True
    ):
        output = _judged(example, in_a_line)
        joined += in_a_line and "\n" in (example.output or "").strip()
        said = re.split(stop, output, maxsplit=1)[0]
        answer = encode_answer(encoded, said, tokenizer, max_output_tokens)
        stopped += said != output
        cut += answer[-1] != end
        items.append(Item((Row(encoded.token_ids, answer),), len(answer)))
    if joined:
        say(f"sft: the lines of {joined} of {len(items)} answers are put in one (prompt.stop)")
    for count, why in ((stopped, "before a stop string (prompt.stop)"), (cut, "max_output_tokens")):
        if count:
            say(f"sft: {count} of {len(items)} answers are cut: {why}")
    return items


def _judged(example: Example, in_a_line: bool) -> str:
    """What rewards judge of an example's answer, in a line if it can have no more."""
    output = without_thoughts(example.output or "").strip()
    if not in_a_line or "\n" not in output:
        return output
    texts = [" ".join(s.text.split()) for s in example.read(output, load_splitter()).statements]
    if is_list(example.dataset):
        return ", ".join(text.rstrip(" ,.") for text in texts) + "."
    return " ".join(t if is_behind_stop(t, 0, len(t)) else f"{t}." for t in texts)


def run(job: Job, train: Path, dev: Path | None, options: SFTOptions) -> str:
    """Train on the answers (`output`) of examples; the weights with the lowest dev loss are kept.

    Their directory also has the tokenizer, `metrics.jsonl` (figures by step), and the last weights
    in `last/`. Sampled answers have no `dev`, for the loss of a teacher's answers could only rise
    where better ones are learnt; for them, and where `dev` has no answers, every tenth is held out.
    Returns a line with the run's figures.

    Raises:
        InputError: no answers, or one where one is held out; no such model, a loss that is not
            finite, or too little memory.
    """
    torch.set_num_threads(job.threads)
    tokenizer = load_tokenizer(job.model)

    items, dev_items = (
        encode_examples(
            read_examples(path) if path else [], job.prompt, tokenizer, options.max_output_tokens
        )
        for path in (train, dev)
    )
    if dev and not dev_items:
        say(f"sft: {dev} has no answers; every tenth one of {train} is held out in their place")
    if not dev_items:
        items, dev_items = [item for i, item in enumerate(items) if i % 10], items[::10]
    if not items:
        raise InputError(
            f"{train}: expected rows with an answer in field output and another to hold out, got "
            f"{len(dev_items)}"
        )
    figures = Trainer("sft", job, options, losses, tokenizer).fit(items, dev_items)
    return summary("sft", {"answers": len(items), "dev answers": len(dev_items), **figures})
