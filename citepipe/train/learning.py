"""The loop of reinforcement learning with rewards on tokens, the same for every method.

Every step samples answers to a few questions, finds their rewards, places them on tokens, and lets
the method learn from them: PPO, GRPO or RLOO.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import nn

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_jsonl
from citepipe.errors import InputError
from citepipe.generate.completion import Generator, Request
from citepipe.generate.local import HuggingFaceGenerator
from citepipe.models.encode import encode_prompt, end_token
from citepipe.models.load import check_start, load_tokenizer
from citepipe.models.save import partial_directory, publish
from citepipe.options import ModelOptions, PromptOptions, RewardOptions, RLOptions
from citepipe.progress import Progress, say, summary
from citepipe.rewards import Placement, Rewarder, total
from citepipe.runstate import claim, discard
from citepipe.train.actor_critic import ActorCritic, ValueKind
from citepipe.train.batch import Batch
from citepipe.train.checkpoint import Checkpoints, Snapshot
from citepipe.train.micro_batches import TokenBudget, with_back_off
from citepipe.train.processes import Processes
from citepipe.train.rollout import Rollout, collect, passes

if TYPE_CHECKING:
    from citepipe.tracking import Tracker

_SAMPLES_SHOWN = 8


class Targets(NamedTuple):
    """What a rollout teaches, each tensor (B, T)."""

    log_probs: torch.Tensor
    """Under the policy that sampled."""
    reference_log_probs: torch.Tensor
    """Under the model that training started from."""
    advantages: torch.Tensor
    values: torch.Tensor | None
    """By the value model when the answers were sampled."""
    returns: torch.Tensor | None
    """What the values should be."""
    kl_coef: float

    def of(self, rows: Sequence[int], length: int, device: torch.device) -> Targets:
        """The same for some answers, up to a length, on a device."""
        chosen = list(rows)

        def part(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[chosen, :length].to(device)

        return Targets(
            part(self.log_probs),
            part(self.reference_log_probs),
            part(self.advantages),
            None if self.values is None else part(self.values),
            None if self.returns is None else part(self.returns),
            self.kl_coef,
        )


ValueLoss = Callable[[torch.Tensor, Targets, torch.Tensor, float], torch.Tensor]


class Method(Protocol):
    """A way to learn from rollouts.

    Attributes:
        name: in messages.
        section: of the configuration that it is told in.
        value_kind: what its value model is; None if it has none.
    """

    name: str
    section: str

    @property
    def options(self) -> RLOptions:
        """What all methods are told."""
        ...

    @property
    def value_kind(self) -> ValueKind | None:
        """See above."""
        ...

    @property
    def value_loss(self) -> ValueLoss | None:
        """From values (B, T), targets, mask (B, T) and the minibatch's tokens to a scalar."""
        ...

    def policy_learns(self, step: int) -> bool:
        """Whether the policy learns from the rollout of a step (from 0), or the values only."""
        ...

    def targets(self, rollout: Rollout, kl_coef: float) -> Targets:
        """What a rollout teaches, with the present weight of the KL penalty."""
        ...

    def policy_loss(
        self, log_probs: torch.Tensor, targets: Targets, mask: torch.Tensor, tokens: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From log-probabilities (B, T) to the loss, a scalar, and the number of clipped tokens."""
        ...


def questions_of_step(count: int, step: int, per_step: int, seed: int) -> list[int]:
    """Which of `count` questions a step asks: passes over all of them, each in its own order."""
    return [
        _order(count, place // count, seed)[place % count]
        for place in range(step * per_step, (step + 1) * per_step)
    ]


def learning_rate_factor(update: int, updates: int, warmup: int) -> float:
    """Linear warm-up over `warmup` optimizer steps, then linear decay to 0 at `updates`."""
    if update < warmup:
        return (update + 1) / warmup
    return max(0.0, (updates - update) / max(1, updates - warmup))


def next_kl_coef(kl_coef: float, kl: float, answers: int, options: RLOptions) -> float:
    """The KL penalty's weight after a rollout (Ziegler et al. 2019, arXiv 1909.08593, section 2.2).

    It grows where the KL is above `kl_target` and shrinks where it is below, by at most a fifth
    per `kl_horizon` answers.

    Args:
        kl_coef: the present weight.
        kl: of the rollout, per answer (nats).
        answers: in the rollout.
        options: target and horizon.
    """
    if options.kl_target is None:
        return kl_coef
    error = min(max(kl / options.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * answers / options.kl_horizon)


def update(
    actor: ActorCritic,
    optimizer: torch.optim.Optimizer,
    method: Method,
    rollout: Rollout,
    targets: Targets,
    chosen: Sequence[int],
    pad_id: int,
    budget: TokenBudget,
    processes: Processes,
    where: str = "update",
    policy_learns: bool = True,
) -> dict[str, float]:
    """One optimizer step on the answers to the questions `chosen` of a rollout.

    Args:
        actor: the models.
        optimizer: of the policy's and the value model's parameters.
        method: whose losses.
        rollout: what was sampled.
        targets: what it teaches.
        chosen: the questions of the minibatch.
        pad_id: the padding token.
        budget: tokens of a pass.
        processes: each passes over its share of the questions.
        where: in messages.
        policy_learns: False to let the value model learn only.

    Returns:
        `policy_loss`, `clipped` (share of tokens) and `grad_norm` of the policy if it learns, and
        `value_loss` with a value model.

    Raises:
        ArithmeticError: a loss or a gradient is not finite; no weight was changed.
    """
    options, asked = method.options, rollout.asked
    count = len(asked[0].answers)
    tokens = float(sum(len(answer) for q in chosen for answer in asked[q].answers))

    def add_gradients() -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        sums = {"policy_loss": 0.0, "clipped": 0.0} if policy_learns else {}
        if method.value_loss is not None:
            sums["value_loss"] = 0.0
        for parts in passes(asked, processes.share(chosen), actor.shares_prompts, budget.tokens):
            batch = actor.batch(
                [asked[part.question].prompt for part in parts],
                [asked[part.question].answers[part.first : part.last] for part in parts],
                pad_id,
            )
            rows = [p.question * count + i for p in parts for i in range(p.first, p.last)]
            own = targets.of(rows, batch.mask.shape[1], actor.device)
            _add_gradients(actor, method, batch, own, tokens, policy_learns, sums)
        return sums

    sums = with_back_off(budget, where, actor.device, add_gradients)
    learning = [list(actor.value_parameters().values())]
    if policy_learns:
        learning.append(list(actor.policy_parameters().values()))
    processes.sum_gradients([parameter for group in learning for parameter in group])
    figures = {name: sum(part) for name, part in _together(processes, sums).items()}
    norms = [float(nn.utils.clip_grad_norm_(own, options.max_grad_norm)) for own in learning]
    if not all(map(math.isfinite, [*figures.values(), *norms])):
        raise ArithmeticError
    optimizer.step()
    return figures | ({"grad_norm": norms[-1]} if policy_learns else {})


def _add_gradients(
    actor: ActorCritic,
    method: Method,
    batch: Batch,
    targets: Targets,
    tokens: float,
    policy_learns: bool,
    sums: dict[str, float],
) -> None:
    """One forward and backward pass; its part of the figures is added to `sums`."""

    def policy_loss(log_probs: torch.Tensor) -> torch.Tensor:
        loss, clipped = method.policy_loss(log_probs, targets, batch.mask, tokens)
        sums["policy_loss"] += float(loss.detach())
        sums["clipped"] += float(clipped) / tokens
        return loss

    def value_loss(values: torch.Tensor) -> torch.Tensor:
        assert method.value_loss is not None
        loss = method.value_loss(values, targets, batch.mask, tokens)
        sums["value_loss"] += float(loss.detach())
        return loss

    actor.backward(
        batch,
        policy_loss if policy_learns else None,
        None if method.value_loss is None else value_loss,
    )


def learn(
    actor: ActorCritic,
    optimizer: torch.optim.Optimizer,
    method: Method,
    rollout: Rollout,
    snapshot: Snapshot,
    steps: int,
    seed: int,
    pad_id: int,
    budget: TokenBudget,
    processes: Processes,
) -> dict[str, float]:
    """All optimizer steps on a rollout.

    Args:
        actor: the models.
        optimizer: of the policy's and the value model's parameters.
        method: how to learn.
        rollout: what was sampled.
        snapshot: where the run stands; its optimizer steps are counted on.
        steps: rollouts of the whole run, for the learning rate.
        seed: of the minibatches.
        pad_id: the padding token.
        budget: tokens of a pass.
        processes: each passes over its share.

    Returns:
        Means over minibatches of what `update` returns.

    Raises:
        InputError: a loss or gradient is not finite, or the memory does not suffice.
    """
    options, where = method.options, f"step {snapshot.step + 1}"
    updates = steps * options.epochs_per_rollout * options.minibatches
    targets = method.targets(rollout, snapshot.kl_coef)
    figures = []
    for epoch in range(options.epochs_per_rollout):
        order = list(range(len(rollout.asked)))
        random.Random(f"{seed}/{snapshot.step}/{epoch}").shuffle(order)
        size = -(-len(order) // options.minibatches)
        for first in range(0, len(order), size):
            factor = learning_rate_factor(snapshot.updates, updates, options.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
            try:
                own = update(
                    actor,
                    optimizer,
                    method,
                    rollout,
                    targets,
                    order[first : first + size],
                    pad_id,
                    budget,
                    processes,
                    where,
                    method.policy_learns(snapshot.step),
                )
            except ArithmeticError:
                raise InputError(
                    f"{method.name}, {where}: the loss is not finite; a lower "
                    f"{method.section}.learning_rate or a higher {method.section}.kl_coef may help"
                ) from None
            figures.append(own)
            snapshot.updates += 1
    return {name: sum(own[name] for own in figures) / len(figures) for name in figures[0]}


def evaluate(
    generator: Generator,
    rewarder: Rewarder,
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    processes: Processes,
) -> tuple[dict[str, float], list[dict[str, str | float]]]:
    """Greedy answers to dev questions, and what they are worth.

    Returns:
        `dev_reward` and its components, means over questions; `dev_citation_f1`, `_rec` and `_prec`
        in percent, means over datasets, judged as the rewards are; `dev_tokens` per answer. And
        the first few answers with their rewards.
    """
    mine = processes.share(range(len(prompts)))
    requests = [Request(prompts[i], f"dev/{i}", max_new_tokens) for i in mine]
    completions = [answers[0] for answers in generator.generate(requests)]
    texts = [completion.text for completion in completions]
    asked = [examples[i] for i in mine]
    judged = rewarder.judged(asked, texts)
    found = processes.gather(
        [
            (
                text,
                total(rewards),
                (judgement.citation_rec, judgement.citation_prec),
                len(completion.token_ids),
            )
            for text, (judgement, rewards), completion in zip(
                texts, judged, completions, strict=True
            )
        ]
    )
    count = len(examples)
    totals = [own for _, own, _, _ in found]
    figures = {"dev_reward": sum(sum(own.values()) for own in totals) / count}
    for component in sorted(totals[0]):
        figures[f"dev_{component}"] = sum(own[component] for own in totals) / count
    of_dataset: dict[str, list[tuple[float, float]]] = {}
    for example, (_, _, scores, _) in zip(examples, found, strict=True):
        of_dataset.setdefault(example.dataset, []).append(scores)
    figures |= _citation_scores(list(of_dataset.values()))
    figures["dev_tokens"] = sum(length for _, _, _, length in found) / count
    shown: list[dict[str, str | float]] = [
        {"question": example.question, "answer": text, "reward": sum(own.values()), **own}
        for example, (text, own, _, _) in list(zip(examples, found, strict=True))[:_SAMPLES_SHOWN]
    ]
    return figures, shown


def run(
    train: Path,
    dev: Path,
    model: ModelOptions,
    prompt: PromptOptions,
    method: Method,
    reward: RewardOptions,
    placement: Placement,
    verifier: str,
    cache: Path | None,
    start: Path,
    out: Path,
    state: Path,
    fingerprint: str,
    seed: int,
    threads: int,
    tracker: Tracker | None = None,
) -> str:
    """Train the model at `start` and write the best policy to `out`.

    The best is the one with the highest mean reward of greedy answers to dev questions, measured
    before the first step, `evaluations` times on the way, and after the last.

    Args:
        train: questions to sample answers to.
        dev: questions to choose the best policy by.
        model: the base model.
        prompt: the prompt's templates and budget.
        method: how to learn.
        reward: the size of each reward.
        placement: rewards on the tokens that earned them, or their sum on the last token.
        verifier: which entailment verifier finds the rewards.
        cache: file of the verifier's decisions, or None.
        start: the adapter or model that training starts from, which is also the reference.
        out: the trained policy's directory, with tokenizer and `metrics.jsonl`; the last policy
            is in `last/`.
        state: folder of the snapshots while the run is unfinished.
        fingerprint: of everything the result depends on; another one starts clean.
        seed: of the questions' order, the samples and the minibatches.
        threads: CPU threads.
        tracker: follows the figures, and some dev answers.

    Returns:
        A line that says what was done.

    Raises:
        InputError: bad input, a loss that is not finite (the message names the step; the last
            saved state stays), or memory that does not suffice.
    """
    torch.set_num_threads(threads)
    options, name = method.options, method.name
    processes = Processes()
    questions, dev_questions = read_examples(train), read_examples(dev)
    for path, rows in ((train, questions), (dev, dev_questions)):
        if not rows:
            raise InputError(f"{path}: expected questions, it has none")
    check_start(start, model)
    rewarder = Rewarder(verifier, reward, cache)
    tokenizer = load_tokenizer(model)
    if len(dev_questions) > options.dev_questions:
        dev_questions = random.Random("dev").sample(dev_questions, options.dev_questions)
    prompts, dev_prompts = (
        [encode_prompt(question, prompt, tokenizer).token_ids for question in asked]
        for asked in (questions, dev_questions)
    )
    pad_id = int(tokenizer.pad_token_id)
    if processes.is_main:
        claim(state, fingerprint, name)
    processes.wait()
    actor = ActorCritic(model, start, method.value_kind)
    per_rollout = options.prompts_per_step * options.samples_per_prompt
    end_id = end_token(tokenizer, prompt)
    generator = HuggingFaceGenerator(actor.model, tokenizer, options.batch_size, end_id)
    parameters = actor.policy_parameters() | actor.value_parameters()
    optimizer = _optimizer(actor, options)
    checkpoints = Checkpoints(state, parameters, optimizer)
    steps = max(1, options.episodes // per_rollout)
    snapshot = checkpoints.restore()
    processes.wait()
    if snapshot is None:
        snapshot = Snapshot(kl_coef=options.kl_coef)
    elif processes.is_main:
        say(f"{name}: going on after step {snapshot.step} of {steps}")
    budget = TokenBudget(options.tokens_per_pass, actor.device.type == "cuda", method.section)
    progress = Progress(name, steps, "steps", done=snapshot.step)
    every = max(1, steps // options.evaluations)
    saved = time.monotonic()

    def report(figures: dict[str, float]) -> None:
        snapshot.metrics.append({"step": snapshot.step, **figures})
        if tracker is not None:
            tracker.log(snapshot.step, figures)

    def assess() -> None:
        with actor.sampling():
            figures, shown = evaluate(
                generator, rewarder, dev_questions, dev_prompts, options.max_new_tokens, processes
            )
        report(figures)
        if tracker is not None:
            tracker.samples(snapshot.step, shown)
        if figures["dev_reward"] > snapshot.best_reward:
            snapshot.best_reward, snapshot.best_step = figures["dev_reward"], snapshot.step
            if processes.is_main:
                checkpoints.keep_best(snapshot.step, actor.save_policy)

    if snapshot.best_step is None:
        assess()
    while snapshot.step < steps:
        chosen = questions_of_step(len(questions), snapshot.step, options.prompts_per_step, seed)
        rollout = collect(
            actor,
            generator,
            rewarder,
            [questions[i] for i in chosen],
            [prompts[i] for i in chosen],
            options,
            placement,
            pad_id,
            f"rollout/{snapshot.step}",
            seed,
            budget,
            processes,
        )
        learnt = learn(
            actor, optimizer, method, rollout, snapshot, steps, seed, pad_id, budget, processes
        )
        snapshot.step += 1
        figures = rollout.figures | {"kl_coef": snapshot.kl_coef} | learnt
        report(figures)
        snapshot.kl_coef = next_kl_coef(snapshot.kl_coef, figures["kl"], per_rollout, options)
        runaway = figures["kl"] > options.max_kl
        ended = runaway or snapshot.step == steps
        if snapshot.step % every == 0 or ended:
            assess()
        late = time.monotonic() - saved > 60 * options.save_minutes
        if not ended and (snapshot.step % options.save_every == 0 or late) and processes.is_main:
            checkpoints.save(snapshot)
            saved = time.monotonic()
        if processes.is_main:
            progress.advance(
                1,
                sampled_reward=round(figures["reward"], 4),
                kl=figures["kl"],
                best_dev_reward=snapshot.best_reward,
                tokens_per_answer=figures["tokens"],
            )
        if runaway:
            if processes.is_main:
                say(
                    f"{name}: stopped at step {snapshot.step}, KL {figures['kl']:.3g} > "
                    f"{method.section}.max_kl"
                )
            break
    if processes.is_main:
        if snapshot.best_step == 0:
            say(f"{name}: no step was better on dev than the start, which is kept")
        partial = partial_directory(out)
        checkpoints.copy_best(snapshot.best_step, partial)
        (partial / "last").mkdir()
        actor.save_policy(partial / "last")
        tokenizer.save_pretrained(partial)
        write_jsonl(partial / "metrics.jsonl", snapshot.metrics)
        publish(partial, out)
        discard(state)
    processes.wait()
    return summary(
        name,
        {
            "steps": snapshot.step,
            "episodes": snapshot.step * per_rollout,
            "best step": snapshot.best_step,
            "dev reward at start": snapshot.metrics[0]["dev_reward"],
            "best dev reward": snapshot.best_reward,
            "steps/s": (progress.done - progress.first) / progress.elapsed,
        },
    )


def _optimizer(actor: ActorCritic, options: RLOptions) -> torch.optim.Optimizer:
    """AdamW with a group for the policy and one for the value model, each with its `peak` rate."""
    groups: list[dict[str, Any]] = [
        {"params": list(actor.policy_parameters().values()), "peak": options.learning_rate}
    ]
    of_value = list(actor.value_parameters().values())
    if of_value:
        rate = getattr(options, "value_learning_rate", None) or options.learning_rate
        groups.append({"params": of_value, "peak": rate})
    return torch.optim.AdamW(groups, weight_decay=0.0)


def _citation_scores(datasets: Sequence[Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Means over datasets of recall, precision and their harmonic mean.

    Args:
        datasets: per dataset and answer its citation recall and precision, in percent.
    """
    means = [[sum(part) / len(part) for part in zip(*own, strict=True)] for own in datasets]
    f1 = [2 * r * p / (r + p) if r + p else 0.0 for r, p in means]
    count = len(datasets)
    return {
        "dev_citation_f1": sum(f1) / count,
        "dev_citation_rec": sum(recall for recall, _ in means) / count,
        "dev_citation_prec": sum(precision for _, precision in means) / count,
    }


def _together(processes: Processes, sums: dict[str, float]) -> dict[str, list[float]]:
    """Every process' figures, by name."""
    parts = processes.gather([sums])
    return {name: [part[name] for part in parts] for name in sums}


def _order(count: int, passing: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/questions/{passing}").shuffle(order)
    return order
