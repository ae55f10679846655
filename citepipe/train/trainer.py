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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import get_scheduler

from citepipe.errors import InputError
from citepipe.models.load import computing, device, language_model_of, load_trainable
from citepipe.models.save import save_model
from citepipe.options import SupervisedOptions
from citepipe.progress import Progress, say
from citepipe.train.batch import (
    Row,
    TokenBudget,
    answer_log_probs,
    answer_logits,
    lay_out,
    micro_batches,
)
from citepipe.train.checkpoint import Run
from citepipe.train.job import Job, Processes

LEARNING = 3
"""What a token costs that is learnt from, where one that is only read costs 1."""


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

    `stage` is the configuration's section, for messages.
    """

    stage: str
    job: Job
    options: SupervisedOptions
    losses: Losses
    tokenizer: Any

    def __post_init__(self) -> None:
        job, options = self.job, self.options
        self.processes = Processes()
        self.model = load_trainable(job.model, job.start, job.seed)
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=options.learning_rate, weight_decay=0.0
        )
        save = partial(save_model, self.model)
        self._run = Run(
            self.stage, job, options, self.processes, self.parameters, self._optimizer, save
        )
        self._budget = TokenBudget(options.tokens_per_pass, device(), self.stage)
        self._language_model = language_model_of(self.model)
        self._read: Callable[[int], None] = lambda _: None

    def fit(self, items: Sequence[Item], dev_items: Sequence[Item]) -> dict[str, Any]:
        """Train from the last checkpoint on, and publish; returns figures for the summary line.

        Where no step has a lower dev loss than the start, that is published, unchanged.
        """
        options, optimizer, run = self.options, self._optimizer, self._run
        of_a_pass = -(-len(items) // options.batch_size)
        steps = options.max_steps or max(1, round(options.epochs * of_a_pass))
        warmup = round(options.warmup * steps)
        schedule = get_scheduler(options.schedule, optimizer, warmup, steps).lr_lambdas[0]
        run.restore(steps)
        at, read = run.at, 0
        every = max(1, steps // options.evaluations)
        learnt, evaluated = (
            sum(r.length for i in own for r in i.rows) for own in (items, dev_items)
        )
        work = LEARNING * learnt * steps / of_a_pass + evaluated * (1 + -(-steps // every))
        progress = Progress(self.stage, steps, "steps", done=at.step, work=work)
        self._read = lambda tokens: progress.advance(0, tokens)
        shown: dict[str, float] = {}
        if at.step == 0:
            shown["dev_loss"] = self._evaluate(dev_items)
        while at.step < steps:
            # 1. Compute the gradient of a batch, and clip it.
            batch = batch_of_step(items, options.batch_size, at.step, self.job.seed)
            figures = self.learn(batch, at.step + 1)
            norm = clip_grad_norm_(self.parameters.values(), options.max_grad_norm)
            figures["grad_norm"] = float(norm)
            self._check_finite(figures, at.step + 1)
            # 2. Update the weights.
            figures["learning_rate"] = options.learning_rate * schedule(at.step)
            optimizer.param_groups[0]["lr"] = figures["learning_rate"]
            optimizer.step()
            at.step += 1
            run.report(figures)
            read += sum(row.length for item in batch for row in item.rows)
            shown |= {"loss": figures["loss"], "tokens/s": read / max(progress.elapsed, 1e-9)}
            # 3. Compute the dev loss now and then; 4. save.
            if at.step == steps or at.step % every == 0:
                shown["dev_loss"] = self._evaluate(dev_items)
            if at.step < steps:
                run.save_if_due()
            progress.advance(1, 0, **shown)
        if at.best_step == 0:
            say(f"{self.stage}: no step has a lower dev loss than the start, which is kept")
        run.publish(self.tokenizer)
        best = {"best step": at.best_step, "best dev loss": -at.best_score}
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

    @torch.no_grad()
    def _evaluate(self, dev_items: Sequence[Item]) -> float:
        """Report the dev loss, keep the weights if it is the lowest, and return it."""
        self.model.eval()
        where = f"step {self._run.at.step}"
        means = self._budget.keep(where, lambda: self._means(dev_items))
        figures = {f"eval_{name}": own for name, own in means.items()}
        self._check_finite(figures, self._run.at.step)
        self._run.report(figures)
        self._run.keep_best(-figures["eval_loss"])
        return figures["eval_loss"]

    def _means(self, items: Sequence[Item]) -> dict[str, float]:
        """The mean figures over all processes; with gradients enabled, also the gradients."""
        weight = sum(item.weight for item in items)
        sums: dict[str, Any] = {}
        for chosen in self._passes(items):
            part = [items[i] for i in chosen]
            figures = self.losses(self._forward(part), part)
            read = self.processes.count * sum(row.length for item in part for row in item.rows)
            if torch.is_grad_enabled():
                (figures["loss"] / weight).backward()
                read *= LEARNING
            self._read(read)
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
        batch = lay_out(prompts, answers, pad_id, device())
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
