"""Supervised fine-tuning on cited answers; loss on the answer only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from citepipe.data.example import Example
from citepipe.data.files import read_examples
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.models.load import check_start, load_tokenizer, load_trainable
from citepipe.options import ModelOptions, PromptOptions, SFTOptions
from citepipe.progress import say, summary
from citepipe.train.batch import Row
from citepipe.train.trainer import AnswerTrainer, Item, check_schedule, claim_together

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from citepipe.tracking import Tracker


class SFTTrainer(AnswerTrainer):
    """The mean negative log-probability of the answers' tokens."""

    def losses(
        self, log_probs: torch.Tensor, owners: torch.Tensor, items: Sequence[Item]
    ) -> dict[str, torch.Tensor]:
        return {"loss": -log_probs.sum()}


def encode_examples(
    examples: Sequence[Example],
    prompt: PromptOptions,
    tokenizer: PreTrainedTokenizerBase,
    max_output_tokens: int,
) -> list[Item]:
    """Each example with an answer: its prompt and answer, which weighs as many as it has tokens."""
    items = []
    for example in examples:
        if not (example.output or "").strip():
            continue
        assert example.output is not None
        asked = encode_prompt(example, prompt, tokenizer)
        answer = encode_answer(asked, example.output.strip(), tokenizer, max_output_tokens)
        items.append(Item((Row.of(asked.token_ids, answer),), len(answer)))
    return items


def _held_out(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """Items to learn, and every tenth, which is kept."""
    return [item for place, item in enumerate(items) if place % 10], items[::10]


def run(
    train: Path,
    dev: Path,
    model: ModelOptions,
    prompt: PromptOptions,
    options: SFTOptions,
    start: Path | None,
    out: Path,
    state: Path,
    fingerprint: str,
    seed: int,
    threads: int,
    tracker: Tracker | None = None,
) -> str:
    """Train an adapter, or all weights, and write those with the lowest dev loss to `out`.

    Args:
        train: examples whose `output` is learnt; rows without one are passed over.
        dev: the same, to choose the best weights by; if none has an answer (there is no teacher,
            answers are sampled), a tenth of the others is kept for that.
        model: the base model.
        prompt: the prompt's templates and budget.
        options: how to train.
        start: the adapter or whole model to go on from, or None.
        out: the result's directory, with tokenizer and `metrics.jsonl` (figures by step), and the
            last weights in its folder `last`.
        state: folder of the unfinished run.
        fingerprint: of everything the result depends on; another one starts clean.
        seed: of the adapter's start, of dropout and of the order of the examples.
        threads: CPU threads.
        tracker: takes the figures too.

    Returns:
        A line that says what was done.

    Raises:
        InputError: no example has an answer, a model or adapter cannot be loaded, options do not
            go together, a loss is not finite, or memory does not suffice.
    """
    torch.set_num_threads(threads)
    check_schedule("sft", options)
    if options.fsdp and model.adapter is not None:
        raise InputError(
            "sft.fsdp: shards weights that are all trained (model.adapter: null), but "
            "model.adapter has an adapter trained"
        )
    train_rows, dev_rows = read_examples(train), read_examples(dev)
    if start is not None:
        check_start(start, model)
    tokenizer = load_tokenizer(model)
    learnt, chosen_by = (
        encode_examples(rows, prompt, tokenizer, options.max_output_tokens)
        for rows in (train_rows, dev_rows)
    )
    if not chosen_by:
        learnt, chosen_by = _held_out(learnt)
        say(
            f"sft: no dev question has an answer; {len(chosen_by)} of {len(learnt + chosen_by)} "
            "answers are kept to choose the best weights by"
        )
    for path, items in ((train, learnt), (dev, chosen_by)):
        if not items:
            raise InputError(f"{path}: expected rows with an answer in field output, none has one")
    claim_together(state, fingerprint, "sft")
    trainer = SFTTrainer(
        "sft",
        load_trainable(model, start, seed),
        model,
        options,
        learnt,
        chosen_by,
        int(tokenizer.pad_token_id),
        state,
        seed,
        tracker,
    )
    figures = trainer.fit(out, tokenizer)
    read = sum(row.length for item in learnt for row in item.rows)
    return summary("sft", {"answers": len(learnt), "tokens": read, **figures})
