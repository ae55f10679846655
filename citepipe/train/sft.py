"""Supervised fine-tuning on cited answers with transformers' Trainer; loss on the answer only."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_jsonl
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.models.load import (
    check_adapter,
    device,
    load_tokenizer,
    load_trainable,
    partial_directory,
    publish,
)
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.sft import SFTOptions
from citepipe.progress import Progress, say, summary
from citepipe.runstate import claim, discard

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, TrainerCallback

IGNORED = -100
"""The label of tokens without loss, as transformers has it."""

_WHOLE = "whole"
"""A file of this name says that a checkpoint was written to its end."""


def encode_examples(
    examples: Sequence[Example],
    prompt: PromptOptions,
    tokenizer: PreTrainedTokenizerBase,
    max_output_tokens: int,
) -> list[dict[str, list[int]]]:
    """Each example with an answer as `input_ids` and `labels` (`IGNORED` on the prompt)."""
    rows = []
    for example in examples:
        if not (example.output or "").strip():
            continue
        assert example.output is not None
        asked = encode_prompt(example, prompt, tokenizer)
        answer = encode_answer(asked, example.output.strip(), tokenizer, max_output_tokens)
        rows.append(
            {
                "input_ids": [*asked.token_ids, *answer],
                "labels": [IGNORED] * len(asked.token_ids) + answer,
            }
        )
    return rows


def collate(rows: Sequence[dict[str, list[int]]], pad_id: int) -> dict[str, torch.Tensor]:
    """A batch (rows, longest): right-padded ids, attention mask and labels."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([v + [filler] * (longest - len(v)) for v in values])

    return {
        "input_ids": padded([row["input_ids"] for row in rows], pad_id),
        "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
        "labels": padded([row["labels"] for row in rows], IGNORED),
    }


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
) -> str:
    """Train an adapter and write the one with the lowest dev loss to `out`.

    Args:
        train: examples whose `output` is learnt; rows without one are passed over.
        dev: the same, to choose the best checkpoint by.
        model: the base model.
        prompt: the prompt's templates and budget.
        options: how to train.
        start: the adapter to go on from, or None for a new one.
        out: the adapter's directory, with tokenizer and `metrics.jsonl` (loss by step).
        state: folder of checkpoints while the run is unfinished.
        fingerprint: of everything the result depends on; another one starts clean.
        seed: of the adapter's start, of dropout and of the order of the examples.
        threads: CPU threads.

    Returns:
        A line that says what was done.

    Raises:
        InputError: no example has an answer, or a model or adapter cannot be loaded.
    """
    import torch
    from transformers import Trainer, TrainingArguments

    torch.set_num_threads(threads)
    train_rows, dev_rows = read_examples(train), read_examples(dev)
    if start is not None:
        check_adapter(start)
    tokenizer = load_tokenizer(model)
    encoded = [
        encode_examples(rows, prompt, tokenizer, options.max_output_tokens)
        for rows in (train_rows, dev_rows)
    ]
    for path, rows in zip((train, dev), encoded, strict=True):
        if not rows:
            raise InputError(f"{path}: expected rows with an answer in field output, none has one")
    claim(state, fingerprint, "sft")
    per_epoch = -(-len(encoded[0]) // (options.batch_size * options.accumulate))
    steps = options.max_steps or max(1, round(options.epochs * per_epoch))
    every = max(1, steps // options.evaluations)
    on_gpu = device().type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(state),
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=max(8, options.batch_size),
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=round(options.warmup * steps),
        max_grad_norm=options.max_grad_norm,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=max(1, steps // 50),
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        seed=seed,
        bf16=on_gpu and model.dtype == "bfloat16",
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    pad_id = int(tokenizer.pad_token_id)
    checkpoint = _last_checkpoint(state)
    first = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    if checkpoint is not None:
        say(f"sft: going on after step {first} of {steps}")
    trained = load_trainable(model, start, seed)
    trainer = Trainer(
        model=trained,
        args=arguments,
        train_dataset=encoded[0],
        eval_dataset=encoded[1],
        data_collator=lambda rows: collate(rows, pad_id),
        callbacks=[_callback(Progress("sft", steps, "steps", done=first))],
    )
    _quiet(trainer)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    partial = partial_directory(out)
    trained.save_pretrained(str(partial))
    # PEFT's model card is a form that nobody has filled in.
    (partial / "README.md").unlink(missing_ok=True)
    tokenizer.save_pretrained(partial)
    write_jsonl(partial / "metrics.jsonl", history)
    publish(partial, out)
    discard(state)
    tokens = sum(len(row["input_ids"]) for row in encoded[0])
    figures: dict[str, Any] = {
        "answers": len(encoded[0]),
        "tokens": tokens,
        "steps": steps,
        "best dev loss": float(trainer.state.best_metric or float("nan")),
    }
    return summary("sft", figures)


def _callback(progress: Progress) -> TrainerCallback:
    """Progress lines, and a mark on every checkpoint that is complete."""
    from transformers import TrainerCallback

    figures: dict[str, float] = {}

    class Callback(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            for name, shown in (("loss", "loss"), ("eval_loss", "dev_loss")):
                if name in (logs or {}):
                    figures[shown] = float(logs[name])

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress.advance(1, **figures)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (checkpoint / _WHOLE).touch()

    return Callback()


def _last_checkpoint(state: Path) -> Path | None:
    """The newest checkpoint that was written to its end; cut-off ones are removed."""
    whole = []
    for path in state.glob("checkpoint-*"):
        if (path / _WHOLE).exists():
            whole.append(path)
        else:
            shutil.rmtree(path)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _quiet(trainer: Any) -> None:
    """Without the Trainer's own printing of every log entry on stdout."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
