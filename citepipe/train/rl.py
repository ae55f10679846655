"""Reinforcement learning with rewards on tokens: PPO, GRPO and RLOO by one loop (`run`).

What sets the methods apart is in `methods`, the mathematics in `advantages` and `losses`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from citepipe.data.example import Example
from citepipe.data.files import read_examples
from citepipe.errors import InputError
from citepipe.generate.completion import Done, Generator, Request, Sampling
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.models.encode import encode_prompts, end_token, stops
from citepipe.models.load import check_start, load_tokenizer
from citepipe.options import RewardOptions, RLOptions
from citepipe.progress import Progress, say, summary
from citepipe.rewards import Placement, Reward, Rewarder, place, standing, total
from citepipe.train.actor_critic import ActorCritic
from citepipe.train.advantages import explained_variance, masked_mean
from citepipe.train.batch import Batch, Row, TokenBudget, passes
from citepipe.train.checkpoint import Run, Snapshot
from citepipe.train.job import Job, Processes
from citepipe.train.losses import kl_loss, policy_loss, value_loss
from citepipe.train.methods import METHODS, Rollout, Sample, Targets
from citepipe.train.watch import divergences, habits, probe

_SAMPLES_SHOWN = 8
_DIVERGED = 2
"""Evaluations in a row, from which on a run has diverged."""


def run(
    job: Job,
    train: Path,
    dev: Path,
    method: str,
    options: RLOptions,
    reward: RewardOptions,
    placement: Placement,
    verifier: str,
    cache: Path | None,
    watch: tuple[str, str] | None = None,
) -> str:
    """Train a policy on rewards of its own answers; returns a line with the run's figures.

    The best policy on dev is published, with the tokenizer, `metrics.jsonl`, and the last policy in
    `last/`. The model that training starts from is also the KL reference.

    Args:
        train: questions to sample answers to.
        dev: questions to choose the best policy by.
        method: a key of `METHODS`, of which are the options.
        cache: file of the verifiers' decisions, or None.
        watch: name and spec of another verifier, which judges dev answers and rewards nothing.

    Raises:
        InputError: bad input, a loss that is not finite (the message names the step; the last
            saved state stays), or memory that does not suffice.
    """
    assert job.start is not None
    torch.set_num_threads(job.threads)
    processes = Processes()
    questions, dev_questions = read_examples(train), read_examples(dev)
    check_start(job.start, job.model)
    rewarder = Rewarder(verifier, reward, cache)
    tokenizer = load_tokenizer(job.model)
    if len(dev_questions) > options.dev_questions:
        dev_questions = random.Random("dev").sample(dev_questions, options.dev_questions)
    prompts, dev_prompts = (
        [prompt.token_ids for prompt in encode_prompts(examples, job.prompt, tokenizer, method)]
        for examples in (questions, dev_questions)
    )
    actor = ActorCritic(job.model, job.start, METHODS[method].has_values)
    ends = end_token(tokenizer, job.prompt), stops(tokenizer, job.prompt)
    generator = HuggingFaceGenerator(actor.model, tokenizer, options.batch_size, *ends)
    pad_id = int(tokenizer.pad_token_id)
    learner = Learner(
        method, options, placement, actor, generator, rewarder, pad_id, job.seed, processes
    )
    if watch is not None:
        learner.judges[f"_{watch[0]}"] = Rewarder(watch[1], reward, cache)
    parameters, optimizer = actor.policy_parameters() | actor.value_parameters(), learner.optimizer
    run = Run(method, job, options, processes, parameters, optimizer, actor.save_policy)
    run.at.kl_coef = options.kl_coef
    per_rollout = options.prompts_per_step * options.samples_per_prompt
    steps = max(1, options.episodes // per_rollout)
    run.restore(steps)
    learner.snapshot = at = run.at
    every = max(1, steps // options.evaluations)
    # In answers: an update takes about as long as sampling does.
    updating = per_rollout * options.epochs_per_rollout
    work = steps * (per_rollout + updating) + len(dev_prompts) * (1 + -(-steps // every))
    progress = Progress(method, steps, "steps", done=at.step, work=work)
    learner.answered = lambda *_: progress.advance(0, processes.count)

    def evaluate() -> None:
        figures, rows = learner.evaluate(dev_questions, dev_prompts)
        if at.best_step is None:
            figures |= probe(dev_questions, [row["answer"] for row in rows], rewarder)
        run.report(figures)
        shown = rows[:_SAMPLES_SHOWN]
        job.tracker.samples(at.step, [{k: row[k] for k in row if k != "standing"} for row in shown])
        at.samples += [{"step": at.step, **row} for row in shown]
        if not diverging():
            run.keep_best(figures["dev_reward"])

    def diverging() -> int:
        """How many evaluations in a row are better by the rewards only."""
        if watch is None or not options.stop_when_diverging:
            return 0
        return divergences(at.metrics, at.best_step, f"dev_citation_f1_{watch[0]}")

    if at.best_step is None:
        evaluate()
    while at.step < steps:
        # 1. Sample answers to some questions; 2. find and place their rewards; 3. compute
        #    log-probabilities and values.
        chosen = questions_of_step(len(questions), at.step, options.prompts_per_step, job.seed)
        rollout = learner.collect(
            [questions[i] for i in chosen], [prompts[i] for i in chosen], f"rollout/{at.step}"
        )
        if at.step == 0 and reward.citation_precision:
            say(f"{method}: {whether_citing_pays(rollout.figures['citations_right'], reward)}")
        # 4. Estimate advantages; 5. update policy and value model.
        learnt = learner.learn(rollout, steps)
        at.step += 1
        figures = rollout.figures | {"kl_coef": at.kl_coef} | learnt
        run.report(figures)
        # 6. Adapt the KL penalty.
        at.kl_coef = next_kl_coef(at.kl_coef, figures["kl"], per_rollout, options)
        runaway = figures["kl"] > options.max_kl
        ended = runaway or at.step == steps
        # 7. Evaluate now and then; 8. save.
        if ended or at.step % every == 0:
            evaluate()
        diverged = diverging() >= _DIVERGED
        if not (ended or diverged):
            run.save_if_due()
        progress.advance(
            1,
            updating,
            sampled_reward=round(figures["reward"], 4),
            kl=figures["kl"],
            best_dev_reward=at.best_score,
            tokens_per_answer=figures["tokens"],
        )
        if runaway:
            limit = f"{METHODS[method].section}.max_kl"
            say(f"{method}: stopped at step {at.step}, KL {figures['kl']:.3g} > {limit}")
            break
        if diverged:
            both = [own for own in at.metrics if own["step"] in (at.best_step, at.step)]
            kept, last = (own for own in both if "dev_reward" in own)
            rise, fall = (
                f"{name} {kept[name]:.3f} -> {last[name]:.3f}"
                for name in ("dev_reward", f"dev_citation_f1_{watch and watch[0]}")
            )
            say(
                f"{method}: stopped at step {at.step}, rewards rise ({rise}) and another verdict "
                f"falls ({fall}); step {at.best_step} is kept"
            )
            break
    if at.best_step == 0:
        say(f"{method}: no step was better on dev than the start, which is kept")
    cites = {own["step"]: own["dev_citations"] for own in at.metrics if "dev_citations" in own}
    before, after = cites.get(0, 0.0), cites.get(at.best_step, 0.0)
    if after < before:
        say(
            f"{method}: the published policy cites less on dev than its start, {after:.2f} "
            f"citations per answer and not {before:.2f}"
        )
    run.publish(tokenizer)
    return summary(
        method,
        {
            "steps": at.step,
            "episodes": at.step * per_rollout,
            "best step": at.best_step,
            "dev reward at start": at.metrics[0]["dev_reward"],
            "best dev reward": at.best_score,
            "dev citations per answer": f"{before:.2f} -> {after:.2f}",
            "steps/s": (progress.done - progress.first) / progress.elapsed,
        },
    )


@dataclass
class Learner:
    """The parts of a run by a method of `METHODS`, and what a step does with them.

    `snapshot` is where the run stands; the `optimizer` has a group for the policy and one for the
    value model, each with its own `peak` learning rate; `seed` is that of samples and minibatches;
    `answered` is told of every answer.
    """

    method: str
    options: Any
    placement: Placement
    actor: ActorCritic
    generator: Generator
    rewarder: Rewarder
    pad_id: int
    seed: int
    processes: Processes = field(default_factory=Processes)
    answered: Done | None = None

    def __post_init__(self) -> None:
        options = self.options
        self.snapshot = Snapshot(kl_coef=options.kl_coef)
        self.judges = {"": self.rewarder}
        section = METHODS[self.method].section
        self.budget = TokenBudget(options.tokens_per_pass, self.actor.model.device, section)
        value_rate = getattr(options, "value_learning_rate", None)
        groups = [
            (self.actor.policy_parameters(), options.learning_rate),
            (self.actor.value_parameters(), value_rate or options.learning_rate),
        ]
        self.optimizer = torch.optim.AdamW(
            [{"params": list(own.values()), "peak": peak} for own, peak in groups if own],
            weight_decay=0.0,
        )

    def collect(
        self, examples: Sequence[Example], prompts: Sequence[tuple[int, ...]], key: str
    ) -> Rollout:
        """Sample `options.samples_per_prompt` answers to each question, reward and score them.

        `key` names the rollout; with the seed it decides the draws.
        """
        options, count = self.options, self.options.samples_per_prompt
        sampling = Sampling(options.temperature, options.top_k, self.seed)
        length = options.max_new_tokens
        # Every process does its share of the questions; all get the whole.
        mine = self.processes.share(range(len(prompts)))
        requests = [
            Request(prompts[i], f"{key}/{i}", length, samples=count, sampling=sampling)
            for i in mine
        ]
        with self.actor.sampling():
            answers = list(chain.from_iterable(self.generator.generate(requests, self.answered)))
        owners = [i for i in mine for _ in range(count)]
        found = self.rewarder.spans([examples[i] for i in owners], [own.text for own in answers])
        samples = [
            Sample(
                Row(prompts[i], answer.token_ids),
                answer.text,
                place(rewards, answer.offsets, self.placement),
                total(rewards),
                list(answer.log_probs),
                [own.value > 0 for own in rewards if own.component == "citation_precision"],
                self._parts(rewards, answer.offsets),
            )
            for i, answer, rewards in zip(owners, answers, found, strict=True)
        ]
        scores = self.budget.keep(key, lambda: self._score(samples))
        own = list(zip(samples, scores, strict=True))
        whole = self.processes.gather([own[i : i + count] for i in range(0, len(own), count)])
        return _rollout(list(chain.from_iterable(whole)))

    def _parts(
        self, rewards: Sequence[Reward], offsets: Sequence[tuple[int, int]]
    ) -> list[list[float]]:
        """The rewards of each component on tokens, if they are normalised apart."""
        if getattr(self.options, "normalize", "sum") == "sum":
            return []
        return [
            place([own for own in rewards if own.component == name], offsets, self.placement)
            for name in total(rewards)
        ]

    def learn(self, rollout: Rollout, steps: int) -> dict[str, float]:
        """All updates by a rollout, of `steps` in the run; returns the means of their figures, and
        how much the values knew of the returns before (`explained_variance`)."""
        options, at = self.options, self.snapshot
        dense = self.placement == "fine_grained"
        targets = METHODS[self.method].targets(rollout, options, at.kl_coef, dense)
        updates = steps * options.epochs_per_rollout * options.minibatches
        figures = []
        for epoch in range(options.epochs_per_rollout):
            order = list(range(len(rollout.samples) // options.samples_per_prompt))
            random.Random(f"{self.seed}/{at.step}/{epoch}").shuffle(order)
            size = -(-len(order) // options.minibatches)
            for first in range(0, len(order), size):
                factor = learning_rate_factor(at.updates, updates, options.warmup_steps)
                for group in self.optimizer.param_groups:
                    group["lr"] = factor * group["peak"]
                figures.append(self.update(rollout, targets, order[first : first + size]))
                at.updates += 1
        means = {name: _mean([own[name] for own in figures]) for name in figures[0]}
        if targets.returns is not None and targets.values is not None:
            means["explained_variance"] = explained_variance(
                targets.values, targets.returns, rollout.mask
            )
        return means

    def update(self, rollout: Rollout, targets: Targets, chosen: Sequence[int]) -> dict[str, float]:
        """One optimizer step on the answers to the questions `chosen` of a rollout.

        Returns `policy_loss`, `clip_fraction` (share of tokens), `grad_norm` and `learning_rate` of
        the policy, unless the values learn first, and `value_loss` with a value model.

        Raises:
            InputError: a loss or gradient is not finite (no weight was changed), or the memory does
                not suffice.
        """
        method, count = METHODS[self.method], self.options.samples_per_prompt
        where = f"step {self.snapshot.step + 1}"
        policy_learns = self.snapshot.step >= getattr(self.options, "value_warmup", 0)
        questions = [range(count * i, count * (i + 1)) for i in chosen]
        tokens = float(rollout.mask[list(chain.from_iterable(questions))].sum())
        mine = self.processes.share(questions)

        def add_gradients() -> dict[str, float]:
            self.optimizer.zero_grad(set_to_none=True)
            sums = {"policy_loss": 0.0, "clip_fraction": 0.0} if policy_learns else {}
            if method.has_values:
                sums["value_loss"] = 0.0
            for rows, batch in self._passes(rollout.samples, mine):
                self._add_gradients(batch, targets.of(rows, batch.mask), tokens, sums)
            return sums

        sums = self.processes.gather([self.budget.keep(where, add_gradients)])
        figures = {name: sum(own[name] for own in sums) for name in sums[0]}
        learning = [group["params"] for group in self.optimizer.param_groups]
        learning = learning[0 if policy_learns else 1 :]
        self.processes.sum_gradients(chain.from_iterable(learning))
        limit = self.options.max_grad_norm
        norms = [float(nn.utils.clip_grad_norm_(own, limit)) for own in learning]
        if not all(map(math.isfinite, [*figures.values(), *norms])):
            raise InputError(
                f"{self.method}, {where}: the loss is not finite; a lower "
                f"{method.section}.learning_rate or a higher {method.section}.kl_coef may help"
            )
        self.optimizer.step()
        if policy_learns:
            rate = self.optimizer.param_groups[0]["lr"]
            figures |= {"grad_norm": norms[0], "learning_rate": rate}
        return figures

    def _add_gradients(
        self, batch: Batch, old: Targets, tokens: float, sums: dict[str, float]
    ) -> None:
        """One forward and backward pass of the losses named in `sums`; its part is added there."""
        options, mask = self.options, batch.mask

        def of_policy(log_probs: torch.Tensor) -> torch.Tensor:
            loss, clipped = policy_loss(
                log_probs, old.log_probs, old.advantages, mask, options.clip_ratio, tokens
            )
            if METHODS[self.method].kl_in_loss:
                divergence = kl_loss(log_probs, old.reference_log_probs, mask, tokens)
                loss = loss + self.snapshot.kl_coef * divergence
            sums["policy_loss"] += loss.item()
            sums["clip_fraction"] += clipped.item() / tokens
            return loss

        def of_values(values: torch.Tensor) -> torch.Tensor:
            assert old.values is not None
            assert old.returns is not None
            loss = options.value_coef * value_loss(
                values, old.values, old.returns, mask, options.clip_value, tokens
            )
            sums["value_loss"] += loss.item()
            return loss

        self.actor.backward(
            batch,
            of_policy if "policy_loss" in sums else None,
            of_values if "value_loss" in sums else None,
        )

    def evaluate(
        self, examples: Sequence[Example], prompts: Sequence[tuple[int, ...]]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Figures of greedy answers to dev questions, and the answers with their rewards.

        They are `dev_reward` and its components, means over questions; `dev_citation_f1`, `_rec`
        and `_prec` in percent, means over datasets, judged as the rewards are, and the same with
        the name behind them by a verifier that rewards nothing; and `dev_citations`, `dev_tokens`
        and `habits` per answer.
        """
        mine = self.processes.share(range(len(prompts)))
        requests = [Request(prompts[i], f"dev/{i}", self.options.max_new_tokens) for i in mine]
        with self.actor.sampling():
            answers = [own[0] for own in self.generator.generate(requests, self.answered)]
        judged = {
            suffix: judge.judged([examples[i] for i in mine], [own.text for own in answers])
            for suffix, judge in self.judges.items()
        }
        read = self.rewarder.read([examples[i] for i in mine], [own.text for own in answers])
        own = []
        for place_of, (i, answer) in enumerate(zip(mine, answers, strict=True)):
            rewards = judged[""][place_of][1]
            parts = total(rewards)
            row: dict[str, Any] = {"question": examples[i].question, "answer": answer.text}
            row |= {"reward": sum(parts.values()), **parts}
            row["standing"] = standing(rewards, answer.offsets, self.placement)
            verdicts = {suffix: found[place_of][0] for suffix, found in judged.items()}
            cited = {s: (v.citation_rec, v.citation_prec) for s, v in verdicts.items()}
            count = sum(len(own.citations) for own in verdicts[""].statements)
            more: dict[str, float] = {"citations": count, "tokens": len(answer.token_ids)}
            more |= habits(examples[i], read[place_of])
            own.append((row, cited, more))
        rows, cited_by, more_by = zip(*self.processes.gather(own), strict=True)
        names = ("reward", *sorted(rows[0].keys() - {"question", "answer", "reward", "standing"}))
        figures = {f"dev_{name}": _mean([row[name] for row in rows]) for name in names}
        for suffix in self.judges:
            scores: dict[str, list[tuple[float, float]]] = {}
            for example, cited in zip(examples, cited_by, strict=True):
                scores.setdefault(example.dataset, []).append(cited[suffix])
            means = [tuple(map(fmean, zip(*own, strict=True))) for own in scores.values()]
            f1 = [2 * rec * prec / (rec + prec or 1) for rec, prec in means]
            figures[f"dev_citation_f1{suffix}"] = fmean(f1)
            figures[f"dev_citation_rec{suffix}"] = fmean(rec for rec, _ in means)
            figures[f"dev_citation_prec{suffix}"] = fmean(prec for _, prec in means)
        for name in more_by[0]:
            figures[f"dev_{name}"] = _mean([more[name] for more in more_by])
        return figures, list(rows)

    def _score(self, samples: Sequence[Sample]) -> list[tuple[torch.Tensor, ...]]:
        """Per answer the rows of `Scores` that there are, each (its tokens,), on the CPU."""
        count = self.options.samples_per_prompt
        questions = [range(i, i + count) for i in range(0, len(samples), count)]
        scored: list[tuple[torch.Tensor, ...]] = [()] * len(samples)
        for rows, batch in self._passes(samples, questions):
            tensors = [t.cpu() for t in self.actor.scores(batch) if t is not None]
            for row, own in zip(rows, zip(*tensors, strict=True), strict=True):
                length = len(samples[row].row.answer)
                scored[row] = tuple(values[:length].clone() for values in own)
        return scored

    def _passes(
        self, samples: Sequence[Sample], questions: Sequence[range]
    ) -> Iterator[tuple[list[int], Batch]]:
        """The answers to some questions as the models read them: places in `samples`, a batch."""
        rows = [own.row for own in samples]
        for parts in passes(rows, questions, self.actor.shared, self.budget.tokens):
            prompts = [rows[part[0]].prompt for part in parts]
            answers = [[rows[i].answer for i in part] for part in parts]
            yield list(chain.from_iterable(parts)), self.actor.batch(prompts, answers, self.pad_id)


def questions_of_step(count: int, step: int, per_step: int, seed: int) -> list[int]:
    """Which of `count` questions a step takes: passes over all of them, each in its own order."""

    def order(number: int) -> list[int]:
        questions = list(range(count))
        random.Random(f"{seed}/questions/{number}").shuffle(questions)
        return questions

    places = range(step * per_step, (step + 1) * per_step)
    return [order(place // count)[place % count] for place in places]


def whether_citing_pays(right: float, reward: RewardOptions) -> str:
    """A line on the share of citations that are right, against the share at which citing pays.

    A statement earns r + c with a right citation, -r - c with a wrong one and -r without any: with
    one citation a statement, citing pays where P(right) > c / (2 (r + c)).
    """
    r, c = reward.citation_recall, reward.citation_precision
    even = c / (2 * (r + c)) if r + c else 0.0
    line = f"{right:.0%} of the start's sampled citations are right, citing pays above {even:.0%}"
    if right > even:
        return line
    return (
        f"{line}: it does not pay, and the policy will learn not to cite; lower "
        "reward.citation_precision or take a better start"
    )


def learning_rate_factor(update: int, updates: int, warmup: int) -> float:
    """Linear warm-up over `warmup` optimizer steps, then linear decay to 0 at `updates`."""
    if update < warmup:
        return (update + 1) / warmup
    return max(0.0, (updates - update) / max(1, updates - warmup))


def next_kl_coef(kl_coef: float, kl: float, answers: int, options: RLOptions) -> float:
    """The KL penalty's weight after a rollout (Ziegler et al. 2019, arXiv 1909.08593, section 2.2).

    It grows where the rollout's KL per answer (nats) is above `options.kl_target` and shrinks where
    it is below, by at most a fifth per `options.kl_horizon` answers.
    """
    if options.kl_target is None:
        return kl_coef
    error = min(max(kl / options.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * answers / options.kl_horizon)


def _rollout(scored: Sequence[tuple[Sample, tuple[torch.Tensor, ...]]]) -> Rollout:
    """A rollout of answers with the rows of their `Scores`."""
    samples, scores = zip(*scored, strict=True)
    columns: list[Any] = [
        *zip(*scores, strict=True),
        # An answer of one token may have a whole number for a reward.
        [torch.tensor(own.rewards, dtype=torch.float32) for own in samples],
        [torch.tensor(own.log_probs) for own in samples],
        [torch.ones(len(own.row.answer)) for own in samples],
    ]
    log_probs, entropy, reference, *value, rewards, sampled, mask = (
        pad_sequence(list(rows), batch_first=True) for rows in columns
    )
    cited = list(chain.from_iterable(own.citations for own in samples))
    figures = {
        "citations": len(cited) / len(samples),
        "citations_right": sum(cited) / max(len(cited), 1),
        "reward": float(rewards.sum() / len(rewards)),
        "reward_std": float(rewards.sum(dim=1).std(correction=0)),
        **{
            f"reward_{component}": _mean([own.totals[component] for own in samples])
            for component in sorted(samples[0].totals)
        },
        "kl": float((log_probs - reference).sum() / len(rewards)),
        "entropy": float(masked_mean(entropy, mask)),
        "tokens": float(mask.sum() / len(rewards)),
        "sampled_tokens": int(mask.sum()),
        "sampler_gap": float((sampled - log_probs).abs().max()),
    }
    values = value[0] if value else None
    parts = [
        pad_sequence([torch.tensor(own, dtype=torch.float32) for own in part], batch_first=True)
        for part in zip(*(own.parts for own in samples), strict=True)
    ]
    stacked = torch.stack(parts) if parts else None
    return Rollout(list(samples), mask, rewards, log_probs, reference, values, figures, stacked)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
