"""Proximal policy optimization with rewards on the tokens that earned them.

Every step samples answers to a few questions, finds their rewards, places them on tokens, takes
off the KL penalty against the adapter that training started from, works out advantages, and
updates policy and value model. Simplified against FineGrainedRLHF: no dropout while training, and
no padding of prompts to a fixed length.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_jsonl
from citepipe.errors import InputError
from citepipe.generate.completion import Generator, Request, Sampling
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.models.encode import encode_prompt
from citepipe.models.load import check_adapter, load_tokenizer, partial_directory, publish
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.reward import RewardOptions
from citepipe.options.rl import PPOOptions
from citepipe.progress import Progress, say, summary
from citepipe.rewards.answers import Rewarder
from citepipe.rewards.place import Placement
from citepipe.runstate import claim, discard
from citepipe.train.actor_critic import ActorCritic, Batch
from citepipe.train.checkpoint import Snapshot, restore, save
from citepipe.train.losses import policy_loss, value_loss
from citepipe.train.rollout import Rollout, collect


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


def update(
    actor: ActorCritic,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    chosen: Sequence[int],
    options: PPOOptions,
    pad_id: int,
) -> dict[str, float]:
    """One optimizer step on the answers to the questions `chosen` of a rollout.

    Returns:
        `policy_loss`, `value_loss`, `clipped` (share of tokens), `grad_norm` (of the policy).

    Raises:
        ArithmeticError: a loss or a gradient is not finite; nothing was changed.
    """
    count = options.samples_per_prompt
    tokens = float(sum(len(rollout.answers[q * count + i]) for q in chosen for i in range(count)))
    totals = {"policy_loss": 0.0, "value_loss": 0.0, "clipped": 0.0}
    optimizer.zero_grad(set_to_none=True)
    device = actor.model.device
    at_once = max(1, options.micro_batch_size // count)
    for start in range(0, len(chosen), at_once):
        questions = chosen[start : start + at_once]
        rows = [q * count + i for q in questions for i in range(count)]
        batch = Batch.build(
            [rollout.prompts[q] for q in questions],
            [rollout.answers[row] for row in rows],
            pad_id,
            device,
        )
        length = batch.answers.shape[1]
        old_log_probs, old_values, advantages, returns = (
            tensor[rows, :length].to(device)
            for tensor in (rollout.log_probs, rollout.values, rollout.advantages, rollout.returns)
        )
        with actor.using("policy"):
            loss, clipped = policy_loss(
                actor.log_probs(batch, "policy"),
                old_log_probs,
                advantages,
                batch.mask,
                options.clip_ratio,
                tokens,
            )
            loss.backward()
        with actor.using("value"):
            squared = value_loss(
                actor.values(batch), old_values, returns, batch.mask, options.clip_value, tokens
            )
            (options.value_coef * squared).backward()
        totals["policy_loss"] += float(loss.detach())
        totals["value_loss"] += float(squared.detach())
        totals["clipped"] += float(clipped) / tokens
    norm = nn.utils.clip_grad_norm_(actor.policy_parameters().values(), options.max_grad_norm)
    nn.utils.clip_grad_norm_(actor.value_parameters().values(), options.max_grad_norm)
    if not all(math.isfinite(value) for value in (*totals.values(), float(norm))):
        raise ArithmeticError
    optimizer.step()
    return totals | {"grad_norm": float(norm)}


def evaluate(
    generator: Generator,
    rewarder: Rewarder,
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
) -> dict[str, float]:
    """Greedy answers to dev questions, and their mean rewards: `dev_reward` and by component."""
    requests = [Request(prompt, f"dev/{i}", max_new_tokens) for i, prompt in enumerate(prompts)]
    completions = generator.generate(requests, Sampling())
    totals = rewarder.reward(examples, [completion.text for completion in completions])
    count = len(examples)
    figures = {"dev_reward": sum(sum(total.values()) for total in totals) / count}
    for component in sorted({name for total in totals for name in total}):
        figures[f"dev_{component}"] = sum(t.get(component, 0.0) for t in totals) / count
    figures["dev_tokens"] = sum(len(c.token_ids) for c in completions) / count
    return figures


def run(
    train: Path,
    dev: Path,
    model: ModelOptions,
    prompt: PromptOptions,
    options: PPOOptions,
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
) -> str:
    """Train the adapter at `start` and write the best policy to `out`.

    The best is the one with the highest mean reward of greedy answers to dev questions, measured
    before the first step, `options.evaluations` times on the way, and after the last.

    Args:
        train: questions to sample answers to.
        dev: questions to choose the best policy by.
        model: the base model.
        prompt: the prompt's templates and budget.
        options: how to train.
        reward: the size of each reward.
        placement: rewards on the tokens that earned them, or their sum on the last token.
        verifier: which entailment verifier finds the rewards.
        cache: file of the verifier's decisions, or None.
        start: the adapter that training starts from, which is also the reference.
        out: the trained adapter's directory, with tokenizer and `metrics.jsonl`.
        state: folder of the snapshots while the run is unfinished.
        fingerprint: of everything the result depends on; another one starts clean.
        seed: of the questions' order, the samples and the minibatches.
        threads: CPU threads.

    Returns:
        A line that says what was done.

    Raises:
        InputError: bad input, or a loss that is not finite (the message names the step).
    """
    torch.set_num_threads(threads)
    questions, dev_questions = read_examples(train), read_examples(dev)
    check_adapter(start)
    rewarder = Rewarder(verifier, reward, cache)
    tokenizer = load_tokenizer(model)
    if len(dev_questions) > options.dev_questions:
        dev_questions = random.Random("dev").sample(dev_questions, options.dev_questions)
    dev_prompts = [encode_prompt(e, prompt, tokenizer).token_ids for e in dev_questions]
    pad_id = int(tokenizer.pad_token_id)
    claim(state, fingerprint, "ppo")
    actor = ActorCritic(model, start)
    per_rollout = options.prompts_per_step * options.samples_per_prompt
    generator = HuggingFaceGenerator(
        actor.model, tokenizer, max(per_rollout, options.dev_questions)
    )
    value_rate = options.value_learning_rate or options.learning_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": list(actor.policy_parameters().values()), "peak": options.learning_rate},
            {"params": list(actor.value_parameters().values()), "peak": value_rate},
        ],
        weight_decay=0.0,
    )
    parameters = actor.policy_parameters() | actor.value_parameters()
    snapshot = restore(state, parameters, optimizer)
    steps = max(1, options.episodes // per_rollout)
    if snapshot is None:
        snapshot = Snapshot()
    else:
        say(f"ppo: going on after step {snapshot.step} of {steps}")
    updates = steps * options.epochs_per_rollout * options.minibatches
    progress = Progress("ppo", steps, "steps", done=snapshot.step)
    every = max(1, steps // options.evaluations)

    def assess() -> None:
        figures = evaluate(generator, rewarder, dev_questions, dev_prompts, options.max_new_tokens)
        snapshot.metrics.append({"step": snapshot.step, **figures})
        if figures["dev_reward"] > snapshot.best_reward:
            snapshot.best_reward, snapshot.best_step = figures["dev_reward"], snapshot.step
            snapshot.best = {
                name: value.detach().cpu().clone()
                for name, value in actor.policy_parameters().items()
            }

    if snapshot.best_step is None:
        assess()
    while snapshot.step < steps:
        chosen = questions_of_step(len(questions), snapshot.step, options.prompts_per_step, seed)
        rollout = collect(
            actor,
            generator,
            rewarder,
            [questions[i] for i in chosen],
            [encode_prompt(questions[i], prompt, tokenizer).token_ids for i in chosen],
            options,
            placement,
            pad_id,
            key=f"rollout/{snapshot.step}",
            seed=seed,
        )
        figures = dict(rollout.figures)
        for epoch in range(options.epochs_per_rollout):
            order = list(range(len(rollout.prompts)))
            random.Random(f"{seed}/{snapshot.step}/{epoch}").shuffle(order)
            size = -(-len(order) // options.minibatches)
            for first in range(0, len(order), size):
                factor = learning_rate_factor(snapshot.updates, updates, options.warmup_steps)
                for group in optimizer.param_groups:
                    group["lr"] = factor * group["peak"]
                try:
                    figures |= update(
                        actor, optimizer, rollout, order[first : first + size], options, pad_id
                    )
                except ArithmeticError:
                    raise InputError(
                        f"ppo, step {snapshot.step + 1}: the loss is not finite; a lower "
                        "rl.learning_rate or a higher rl.kl_coef may help"
                    ) from None
                snapshot.updates += 1
        snapshot.step += 1
        snapshot.metrics.append({"step": snapshot.step, **figures})
        runaway = figures["kl"] > options.max_kl
        if snapshot.step % every == 0 or snapshot.step == steps or runaway:
            assess()
        if snapshot.step % options.save_every == 0 and snapshot.step < steps:
            save(state, snapshot, parameters, optimizer)
        progress.advance(
            1,
            sampled_reward=round(figures["reward"], 4),
            kl=figures["kl"],
            best_dev_reward=snapshot.best_reward,
            tokens_per_answer=figures["tokens"],
        )
        if runaway:
            say(f"ppo: stopped at step {snapshot.step}, KL {figures['kl']:.3g} > rl.max_kl")
            break
    with torch.no_grad():
        for name, parameter in actor.policy_parameters().items():
            parameter.copy_(snapshot.best[name])
    if snapshot.best_step == 0:
        say("ppo: no step was better on dev than the start, which is kept")
    partial = partial_directory(out)
    actor.save_policy(partial)
    tokenizer.save_pretrained(partial)
    write_jsonl(partial / "metrics.jsonl", snapshot.metrics)
    publish(partial, out)
    discard(state)
    return summary(
        "ppo",
        {
            "steps": snapshot.step,
            "episodes": snapshot.step * per_rollout,
            "best step": snapshot.best_step,
            "dev reward at start": snapshot.metrics[0]["dev_reward"],
            "best dev reward": snapshot.best_reward,
            "steps/s": (progress.done - progress.first) / progress.elapsed,
        },
    )


def _order(count: int, passing: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/questions/{passing}").shuffle(order)
    return order
