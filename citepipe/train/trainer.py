"""The loop that supervised fine-tuning and direct preference optimization share.

A step's batch is computed in passes of like length within a budget of tokens, with the logits of
answers' tokens only. A loss is a sum, divided by what the step's items weigh over all devices, so
the budget and the number of devices change a gradient by its rounding only. Every random draw
(order, dropout) has a seed of its own, made from the run's and the step: a run that was killed ends
with the same weights.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import get_scheduler

from citepipe.data.files import write_jsonl
from citepipe.errors import InputError
from citepipe.models.load import computing, device, language_model_of, load_trainable
from citepipe.models.save import building, save_model
from citepipe.options import SupervisedOptions
from citepipe.progress import Progress, say
from citepipe.runstate import claim, discard
from citepipe.train.batch import Layout, Row, TokenBudget, lay_out, micro_batches
from citepipe.train.checkpoint import Checkpoints, Snapshot
from citepipe.train.job import Job
from citepipe.train.log_probs import answer_log_probs, answer_logits
from citepipe.train.processes import Processes


@dataclass(frozen=True, slots=True)
class Item:
    """Rows that one loss is computed from, and its weight in a mean loss (in tokens or pairs).

    `reference` is the log-probability of each row's answer under the reference policy, if any.
    """

    rows: tuple[Row, ...]
    weight: float
    reference: tuple[float, ...] = ()


Losses: TypeAlias = Callable[[torch.Tensor, Sequence[Item]], dict[str, torch.Tensor]]
"""From the log-probabilities (items, rows) of answers, and their items: sums over the items, of
`loss` and of further figures."""


@dataclass
class Trainer:
    """Trains an adapter or all weights; all processes work together, each on a share of a batch.

    Args:
        stage: the configuration's section, for messages.
        job: of what model, from where, to where.
        options: how to train.
        losses: what is minimised.
        tokenizer: the model's.
    """

    stage: str
    job: Job
    options: SupervisedOptions
    losses: Losses
    tokenizer: Any

    def __post_init__(self) -> None:
        job = self.job
        self.processes = Processes()
        if self.processes.is_main:
            claim(job.state, job.fingerprint, self.stage)
        self.processes.wait()
        self.model = load_trainable(job.model, job.start, job.seed)
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self._budget = TokenBudget(self.options.tokens_per_pass, device(), self.stage)
        self._language_model = language_model_of(self.model)
        attention = str(self._language_model.config._attn_implementation)
        self._layout: Layout = "packed" if "flash" in attention else "separate"

    def fit(self, items: Sequence[Item], dev_items: Sequence[Item]) -> dict[str, Any]:
        """Train from the last checkpoint on, and publish; returns figures for the summary line."""
        job, options, is_main = self.job, self.options, self.processes.is_main
        of_a_pass = -(-len(items) // options.batch_size)
        steps = options.max_steps or max(1, round(options.epochs * of_a_pass))
        every = max(1, steps // options.evaluations)
        parameters = self.parameters.values()
        optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.0)
        warmup = round(options.warmup * steps)
        schedule = get_scheduler(options.schedule, optimizer, warmup, steps).lr_lambdas[0]
        checkpoints = Checkpoints(job.state, self.parameters, optimizer)
        snapshot = checkpoints.restore() or Snapshot()
        if snapshot.step and is_main:
            say(f"{self.stage}: going on after step {snapshot.step} of {steps}")
        progress = Progress(self.stage, steps, "steps", done=snapshot.step)
        saved, read = time.monotonic(), 0
        shown: dict[str, float] = {}

        def report(figures: dict[str, float]) -> None:
            snapshot.metrics.append({"step": snapshot.step, **figures})
            job.tracker.log(snapshot.step, figures)

        while snapshot.step < steps:
            batch = batch_of_step(items, options.batch_size, snapshot.step, job.seed)
            figures = self.learn(batch, snapshot.step + 1)
            figures["grad_norm"] = float(clip_grad_norm_(parameters, options.max_grad_norm))
            self._check_finite(figures, snapshot.step + 1)
            figures["learning_rate"] = options.learning_rate * schedule(snapshot.step)
            optimizer.param_groups[0]["lr"] = figures["learning_rate"]
            optimizer.step()
            snapshot.step += 1
            report(figures)
            read += sum(row.length for item in batch for row in item.rows)
            shown |= {"loss": figures["loss"], "tokens/s": read / max(progress.elapsed, 1e-9)}
            ended = snapshot.step == steps
            if ended or snapshot.step % every == 0:
                self.model.eval()
                with torch.no_grad():
                    means = self._means(dev_items)
                dev = {f"eval_{name}": value for name, value in means.items()}
                self._check_finite(dev, snapshot.step)
                report(dev)
                shown["dev_loss"] = dev["eval_loss"]
                # A snapshot keeps the highest score: the loss with its sign turned.
                if -dev["eval_loss"] > snapshot.best_reward:
                    snapshot.best_reward, snapshot.best_step = -dev["eval_loss"], snapshot.step
                    if is_main:
                        checkpoints.keep_best(snapshot.step, partial(save_model, self.model))
            late = time.monotonic() - saved > 60 * options.save_minutes
            if is_main and not ended and (late or snapshot.step % options.save_every == 0):
                checkpoints.save(snapshot)
                saved = time.monotonic()
            if is_main:
                progress.advance(1, **shown)
        if is_main:
            with building(job.out) as out:
                checkpoints.copy_best(snapshot.best_step, out)
                (out / "last").mkdir()
                save_model(self.model, out / "last")
                self.tokenizer.save_pretrained(out)
                write_jsonl(out / "metrics.jsonl", snapshot.metrics)
            discard(job.state)
        self.processes.wait()
        best = {"best step": snapshot.best_step, "best dev loss": -snapshot.best_reward}
        return {"steps": steps, **best, "tokens/s": shown["tokens/s"]}

    def learn(self, items: Sequence[Item], step: int) -> dict[str, float]:
        """Compute the gradient of the mean loss; returns the mean figures."""
        self.model.train()
        # Different dropout in each process, and the same when memory runs out and it works again.
        dropout = random.Random(f"{self.job.seed}/{step}/{self.processes.rank}").getrandbits(63)

        def work() -> dict[str, float]:
            self.model.zero_grad()
            torch.manual_seed(dropout)
            return self._means(items)

        figures = self._budget.keep(f"step {step}", work)
        self.processes.sum_gradients(self.parameters.values())
        return figures

    @torch.no_grad()
    def log_probs(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Log-probabilities of each item's answers, without dropout."""
        self.model.eval()
        own: list[tuple[int, list[float]]] = []
        for chosen in self._passes(items):
            scores = self._forward([items[i] for i in chosen])
            own += zip(chosen, scores.tolist(), strict=True)
        parts = self.processes.gather([own])
        return [tuple(scores) for _, scores in sorted(pair for part in parts for pair in part)]

    def _means(self, items: Sequence[Item]) -> dict[str, float]:
        """The mean figures over all processes; with gradients enabled, also the gradients."""
        weight = sum(item.weight for item in items)
        sums: dict[str, Any] = {}
        for chosen in self._passes(items):
            part = [items[i] for i in chosen]
            figures = self.losses(self._forward(part), part)
            if torch.is_grad_enabled():
                (figures["loss"] / weight).backward()
            for name, value in figures.items():
                sums[name] = sums.get(name, 0) + value.detach().double()
        # A process without a share has no figures.
        parts = self.processes.gather([{name: float(value) for name, value in sums.items()}])
        return {name: sum(part.get(name, 0) for part in parts) / weight for name in parts[0]}

    def _passes(self, items: Sequence[Item]) -> list[list[int]]:
        """Indices of this process' share of the items, in passes."""
        lengths = [max(row.length for row in item.rows) for item in items]
        own = self.processes.share(sorted(range(len(items)), key=lambda i: -lengths[i]))
        budget = self._budget.tokens // len(items[0].rows)
        passes = micro_batches([lengths[i] for i in own], budget)
        return [[own[i] for i in chosen] for chosen in passes]

    def _forward(self, items: Sequence[Item]) -> torch.Tensor:
        """(items, rows): log-probabilities of the items' answers."""
        rows = [row for item in items for row in item.rows]
        prompts, answers = [row.prompt for row in rows], [[row.answer] for row in rows]
        pad_id = self.tokenizer.pad_token_id
        batch = lay_out(prompts, answers, pad_id, device(), self._layout)
        with computing(self.job.model):
            logits, _ = answer_logits(self._language_model, batch)
            return answer_log_probs(logits, batch).sum(dim=1).view(len(items), -1)

    def _check_finite(self, figures: dict[str, float], step: int) -> None:
        for name in ("loss", "grad_norm", "eval_loss"):
            if not math.isfinite(figures.get(name, 0)):
                raise InputError(
                    f"{self.stage}, step {step}: {name} is not finite; a lower "
                    f"{self.stage}.learning_rate may help"
                )


def batch_of_step(items: Sequence[Item], batch_size: int, step: int, seed: int) -> list[Item]:
    """The items of a step (from 0): each pass has its own order, and its last step what is left."""
    passing, place = divmod(step, -(-len(items) // batch_size))
    order = list(range(len(items)))
    random.Random(f"{seed}/order/{passing}").shuffle(order)
    return [items[i] for i in order[place * batch_size : (place + 1) * batch_size]]
