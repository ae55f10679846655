"""What supervised fine-tuning and direct preference optimization share: transformers' Trainer.

The loop, the optimizer, its schedule, checkpoints and the sharding of weights are the Trainer's.
Different are:

- Only the logits of answers' tokens are computed (`TokenHead`). A batch of the Trainer is a whole
  optimizer step, cut into passes of like length within a budget of tokens; a loss is a sum, divided
  by what the whole step weighs over all devices. So the budget and the number of devices change a
  gradient by its rounding only.
- Gradients are summed over devices once a step, not by the hooks of DistributedDataParallel, as
  devices may need different numbers of passes, and do a step again where memory runs out.
- What a step draws at random (its items, dropout) comes from the seed and the step.
- Checkpoints appear whole; the best weights are kept apart from them.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from accelerate import PartialState
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    broadcast_object_list,
)
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, register_fsdp_forward_method
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from citepipe.data.files import write_jsonl
from citepipe.errors import InputError
from citepipe.models.load import computing, device, language_model_of
from citepipe.models.memory import is_out_of_memory
from citepipe.models.save import partial_directory, publish, save_model, system_errors
from citepipe.options import ModelOptions, SupervisedOptions
from citepipe.progress import Progress, say
from citepipe.runstate import claim, discard
from citepipe.train.batch import Batch, Row, padding_free, separate_rows
from citepipe.train.log_probs import TokenHead
from citepipe.train.micro_batches import TokenBudget, micro_batches, with_back_off
from citepipe.train.processes import Processes

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from citepipe.tracking import Tracker

SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
"""The Trainer's schedules that need nothing but the number of steps and of those that warm up."""


@dataclass(frozen=True, slots=True)
class Item:
    """What a batch consists of: rows that one loss is made from, and what that weighs in a mean."""

    rows: tuple[Row, ...]
    weight: float

    @property
    def length(self) -> int:
        """Tokens of its longest row."""
        return max(row.length for row in self.rows)


def answer_log_probs(head: TokenHead, batch: Batch) -> torch.Tensor:
    """(N,): the log-probabilities of the answers' tokens."""
    hidden = head.hidden(**batch.inputs)
    return head(hidden.flatten(0, 1)[batch.before], batch.targets)[0]


class Order:
    """Which items each step takes: passes over all of them, each in an order of its own.

    The last step of a pass takes what is left.

    Args:
        count: of the items.
        batch_size: items per step, over all devices.
        steps: of the run.
        seed: of the orders.
    """

    def __init__(self, count: int, batch_size: int, steps: int, seed: int) -> None:
        self.count, self.batch_size, self.steps, self.seed = count, batch_size, steps, seed
        self.per_pass = -(-count // batch_size)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        order: list[int] = []
        for step in range(self.steps):
            number, place = divmod(step, self.per_pass)
            if place == 0:
                order = list(range(self.count))
                random.Random(f"{self.seed}/order/{number}").shuffle(order)
            yield order[place * self.batch_size : (place + 1) * self.batch_size]


class AnswerTrainer(Trainer, ABC):
    """Trains on items whose loss is made from the log-probabilities of their answers' tokens.

    Subclasses say what the loss is (`losses`, `figures`).

    Args:
        stage: the name of the stage and of its options, in what is said.
        model: what is trained, an adapter or all weights.
        model_options: how it is computed.
        options: how to train.
        items: what to learn.
        dev_items: what to choose the best weights by.
        pad_id: the padding token.
        state: the folder of the unfinished run.
        seed: of the items' order and of dropout.
        tracker: takes the figures too.
    """

    figures: ClassVar[tuple[str, ...]] = ("loss",)
    """What `losses` returns, the loss first."""

    model: Any

    def __init__(
        self,
        stage: str,
        model: PeftModel | PreTrainedModel,
        model_options: ModelOptions,
        options: SupervisedOptions,
        items: Sequence[Item],
        dev_items: Sequence[Item],
        pad_id: int,
        state: Path,
        seed: int,
        tracker: Tracker | None = None,
    ) -> None:
        self.stage, self.options, self.model_options = stage, options, model_options
        self.dev_items, self.pad_id, self.seed, self.tracker = dev_items, pad_id, seed, tracker
        self.folder = state
        self.processes = Processes()
        per_pass = -(-len(items) // options.batch_size)
        self.steps = options.max_steps or max(1, round(options.epochs * per_pass))
        self.order = Order(len(items), options.batch_size, self.steps, seed)
        on_gpu = device().type == "cuda"
        sharded = bool(getattr(options, "fsdp", False))
        super().__init__(
            model=model,
            args=TrainingArguments(
                output_dir=str(state / ".saving"),
                max_steps=self.steps,
                learning_rate=options.learning_rate,
                lr_scheduler_type=options.schedule,
                warmup_steps=round(options.warmup * self.steps),
                max_grad_norm=options.max_grad_norm,
                eval_strategy="no",
                save_strategy="no",
                logging_steps=1,
                logging_nan_inf_filter=False,
                report_to=[],
                disable_tqdm=True,
                log_level="error",
                seed=seed,
                use_cpu=not on_gpu,
                fsdp=sharded or None,  # type: ignore[arg-type]
            ),
            train_dataset=items,
            callbacks=[_Times(self)],
        )
        # Its printing of every log entry on stdout.
        self.remove_callback(PrinterCallback)
        self.budget = TokenBudget(options.tokens_per_pass, on_gpu, stage)
        language_model = language_model_of(model)
        self.padding_free = "flash" in str(language_model.config._attn_implementation)
        self._score = partial(answer_log_probs, TokenHead(language_model))
        self._last: dict[str, float] = {}
        self._read = self._learnt = 0

    @abstractmethod
    def losses(
        self, log_probs: torch.Tensor, owners: torch.Tensor, items: Sequence[Item]
    ) -> dict[str, torch.Tensor]:
        """Sums over items of what `figures` names.

        Args:
            log_probs: (N,), of the tokens of all answers of the items' rows, in order.
            owners: (N,), the row of each.
            items: what the rows belong to.
        """

    def fit(self, out: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Train from the last checkpoint on, and publish.

        `out` gets the weights with the lowest dev loss, the tokenizer, `metrics.jsonl`, and in
        `out/last` the last weights.

        Returns:
            Figures for the summary line.

        Raises:
            InputError: a loss is not finite, or memory does not suffice.
        """
        whole = (path.parent for path in self.folder.glob("checkpoint-*/trainer_state.json"))
        checkpoint = max(whole, key=_step_of, default=None)
        first = 0 if checkpoint is None else _step_of(checkpoint)
        if checkpoint is not None and self.processes.is_main:
            say(f"{self.stage}: going on after step {first} of {self.steps}")
        self.progress = Progress(self.stage, self.steps, "steps", done=first)
        self.saved_at = time.monotonic()
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        rates = self.rates()
        building = partial_directory(out) if self.processes.is_main else out
        self._write_model(building / "last")
        if self.processes.is_main:
            history = (entry for entry in self.state.log_history if "train_runtime" not in entry)
            # The Trainer's own state, when gone on from, has keys in another order.
            entries = ({"step": e["step"], **dict(sorted(e.items()))} for e in history)
            with system_errors(building):
                shutil.copytree(self._best(), building, dirs_exist_ok=True)
                tokenizer.save_pretrained(building)
                write_jsonl(building / "metrics.jsonl", entries)
            publish(building, out)
            discard(self.folder)
        self.processes.wait()
        best = {"best step": self.state.best_global_step, "best dev loss": self.state.best_metric}
        return {"steps": self.steps, **best, **rates}

    def rates(self) -> dict[str, float]:
        """Tokens read and learnt a second, over all devices, since the run began or went on."""
        seconds = max(self.progress.elapsed, 1e-9)
        return {"tokens/s": self._read / seconds, "answer tokens/s": self._learnt / seconds}

    def score(self, items: Sequence[Item]) -> torch.Tensor:
        """(items, rows of an item) sums of answers' log-probabilities, without dropout."""
        rows = len(items[0].rows)

        def work() -> torch.Tensor:
            sums = torch.zeros(len(items), rows, dtype=torch.float64, device=self.args.device)
            for chosen in self._passes(items):
                log_probs, owners = self._forward([items[i] for i in chosen])
                flat = sums.new_zeros(len(chosen) * rows)
                sums[chosen] = flat.index_add(0, owners, log_probs.double()).view(-1, rows)
            return sums

        self.model.eval()
        with torch.no_grad():
            return self.accelerator.reduce(self._in_memory("reference", work))

    # What the Trainer calls.

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A batch per optimizer step, that of all devices; each device picks out its own share."""
        items: Any = self.train_dataset
        return DataLoader(items, batch_sampler=self.order, collate_fn=list)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """The gradient of a whole optimizer step, and its loss."""
        if not self.model.training:
            self.model.train()
        step = self.state.global_step + 1
        rank = self.processes.rank

        def learn() -> torch.Tensor:
            self.model.zero_grad()
            # Another dropout on every device, the same when the step is done again.
            torch.manual_seed(random.Random(f"{self.seed}/{step}/{rank}").getrandbits(63))
            return self._sums(inputs)

        sums = self._in_memory(f"step {step}", learn)
        if not self.is_fsdp_enabled:
            self.processes.sum_gradients(p for p in self.model.parameters() if p.requires_grad)
        self._last = self._means(sums, inputs)
        rows = [row for item in inputs for row in item.rows]
        self._read += sum(row.length for row in rows)
        self._learnt += sum(row.answer for row in rows)
        return torch.tensor(self._last["loss"], device=self.args.device)

    def _clip_grad_norm(self, model: nn.Module) -> float:
        """Clip, and see that all is finite, before the weights change."""
        norm = float(super()._clip_grad_norm(model))
        self._check_finite("loss", self._last["loss"], self.state.global_step + 1)
        self._check_finite("gradient", norm, self.state.global_step + 1)
        return norm

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The mean dev loss; the best weights so far are kept apart."""
        self.model.eval()
        step = self.state.global_step
        with torch.no_grad():
            sums = self._in_memory(
                f"dev loss after step {step}", lambda: self._sums(self.dev_items)
            )
        figures = {f"eval_{n}": v for n, v in self._means(sums, self.dev_items).items()}
        loss = figures["eval_loss"]
        self._check_finite("dev loss", loss, step)
        self.log(figures)
        self.control.should_evaluate = False
        if self.state.best_metric is None or loss < self.state.best_metric:
            self.state.best_metric, self.state.best_global_step = loss, step
            # The one before stays until the next checkpoint, as the last one speaks of it.
            building = self.folder / ".best"
            self._write_model(building)
            if self.processes.is_main:
                publish(building, self._best())
        return figures

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step's or an evaluation's figures, with passes over the items as `epoch`."""
        if "loss" in logs:
            logs = {**self._last, **logs}
        self.state.epoch = self.state.global_step / self.order.per_pass
        super().log(logs)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if self.args.fsdp_plugin_args is None or state.num_processes == 1:
            return
        if not self.is_fsdp_enabled:
            # Torch shards over CPUs too, which accelerate does not know.
            PartialState().distributed_type = state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True
        elif self.model_options.dtype != "float32":
            # Weights travel as they are computed with. The Trainer's own bf16 would also sum
            # gradients and hand out log-probabilities in it.
            state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                getattr(torch, self.model_options.dtype), reduce_dtype=torch.float32
            )

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer would go through all parameters at every step for it."""
        return 0

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        # Accelerate wraps what has to be; a single process never spreads over several GPUs.
        return model

    def _prepare_for_training(self, *args: Any, **more: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **more)
        if self.is_fsdp_enabled:
            # Weights are gathered around this method as they are around `forward`.
            self.model.answer_log_probs = self._score
            register_fsdp_forward_method(self.model, "answer_log_probs")
            self._score = self.model.answer_log_probs
        return prepared

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's checkpoint, put in its place when it is whole."""
        with system_errors(self.folder):
            super()._save_checkpoint(model, trial)
        self.processes.wait()
        if self.processes.is_main:
            older = list(self.folder.glob("checkpoint-*"))
            name = f"checkpoint-{self.state.global_step}"
            os.replace(self.folder / ".saving" / name, self.folder / name)
            for path in [*older, *self.folder.glob("best-*")]:
                if path != self._best():
                    shutil.rmtree(path)
        self.saved_at = time.monotonic()
        self.processes.wait()

    # Its own.

    def overdue(self) -> bool:
        """Whether the state was saved too long ago, by the main process' clock."""
        overdue = time.monotonic() - self.saved_at > 60 * self.options.save_minutes
        if self.processes.count == 1:
            return overdue
        return bool(broadcast_object_list([overdue])[0])

    def _best(self) -> Path:
        return self.folder / f"best-{self.state.best_global_step}"

    def _write_model(self, directory: Path) -> None:
        """The weights as they are published; all processes take part, where they are sharded."""
        whole = self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None
        if not self.processes.is_main:
            return
        directory.mkdir()
        with system_errors(directory):
            if whole is None:
                save_model(self.model, directory)
            else:
                # Gathered weights that are tied are copies, of which a model's files have one.
                kept = {n for n, _ in (*self.model.named_parameters(), *self.model.named_buffers())}
                whole = {name: value for name, value in whole.items() if name in kept}
                self.model.save_pretrained(directory, state_dict=whole)

    def _check_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise InputError(
                f"{self.stage}, step {step}: the {what} is not finite; a lower "
                f"{self.stage}.learning_rate may help"
            )

    def _forward(self, items: Sequence[Item]) -> tuple[torch.Tensor, torch.Tensor]:
        """(N,) log-probabilities of the tokens of all answers, and (N,) the row of each."""
        rows = [row for item in items for row in item.rows]
        if self.padding_free:
            batch = padding_free(rows, self.args.device)
        else:
            batch = separate_rows(rows, self.pad_id, self.args.device)
        with computing(self.model_options):
            return self._score(batch), batch.owners

    def _passes(self, items: Sequence[Item]) -> list[list[int]]:
        """This device's share of the items, in passes; an idle pass is an empty one."""
        order = sorted(range(len(items)), key=lambda i: -items[i].length)
        budget = self.budget.tokens // len(items[0].rows)

        def passes(share: Sequence[int]) -> list[list[int]]:
            batches = micro_batches([items[i].length for i in share], budget)
            return [[share[i] for i in batch] for batch in batches]

        own = passes(self.processes.share(order))
        if self.is_fsdp_enabled:
            # Weights are gathered in every pass, for which all devices are needed.
            count = self.processes.count
            most = max(len(passes(order[rank::count])) for rank in range(count))
            own += [[]] * (most - len(own))
        return own

    def _sums(self, items: Sequence[Item]) -> torch.Tensor:
        """The figures of this device's share; with gradients on, also that of the mean loss."""
        sums = torch.zeros(len(self.figures), dtype=torch.float64, device=self.args.device)
        # Sharded gradients are averaged over devices, where others are summed.
        scale = (self.processes.count if self.is_fsdp_enabled else 1) / _weight(items)
        for chosen in self._passes(items):
            part = [items[i] for i in chosen] or [min(items, key=lambda item: item.length)]
            figures = self.losses(*self._forward(part), part)
            if torch.is_grad_enabled():
                (figures["loss"] * (scale if chosen else 0)).backward()
            if chosen:
                sums += torch.stack([figures[name].detach() for name in self.figures])
        return sums

    def _means(self, sums: torch.Tensor, items: Sequence[Item]) -> dict[str, float]:
        """Over all devices."""
        means = self.accelerator.reduce(sums) / _weight(items)
        return dict(zip(self.figures, means.tolist(), strict=True))

    def _in_memory(self, where: str, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        if not self.is_fsdp_enabled:
            return with_back_off(self.budget, where, self.args.device, work)
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # The other devices wait for this one inside a pass, which cannot be done again.
            raise InputError(
                f"{self.stage}, {where}: memory ran out; a lower {self.stage}.tokens_per_pass, "
                "model.gradient_checkpointing or more devices may do"
            ) from None


class _Times(TrainerCallback):
    """When dev loss and state are due, and what is said of each step."""

    def __init__(self, trainer: AnswerTrainer) -> None:
        self.trainer = trainer
        self.figures: dict[str, float] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: Any,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "train_runtime" in logs or not self.trainer.processes.is_main:
            return
        for name, shown in (("loss", "loss"), ("eval_loss", "dev_loss")):
            if name in logs:
                self.figures[shown] = logs[name]
        if self.trainer.tracker is not None:
            self.trainer.tracker.log(state.global_step, logs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any
    ) -> None:
        trainer, step = self.trainer, state.global_step
        ended = step >= trainer.steps
        every = max(1, trainer.steps // trainer.options.evaluations)
        control.should_evaluate = ended or step % every == 0
        due = trainer.overdue() or step % trainer.options.save_every == 0
        control.should_save = due and not ended
        if trainer.processes.is_main:
            trainer.progress.advance(1, **self.figures, **trainer.rates())


def check_schedule(stage: str, options: SupervisedOptions) -> None:
    """Check the name of the schedule.

    Raises:
        InputError: it is none of `SCHEDULES`.
    """
    if options.schedule not in SCHEDULES:
        raise InputError(
            f"{stage}.schedule: expected one of {', '.join(SCHEDULES)}, got {options.schedule!r}"
        )


def claim_together(state: Path, fingerprint: str, label: str) -> None:
    """`runstate.claim` by the main process, while the others wait; half-written files go."""
    processes = Processes()
    if processes.is_main:
        claim(state, fingerprint, label)
        for name in (".saving", ".best"):
            shutil.rmtree(state / name, ignore_errors=True)
    processes.wait()


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _weight(items: Sequence[Item]) -> float:
    return sum(item.weight for item in items)
