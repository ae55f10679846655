"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) on sampled answers.

Of the answers that were sampled to a question, the one with the higher reward is preferred. The
reference is the model that training starts from; its log-probabilities are computed before the
first step. Simplified: no dropout while training, so that policy and reference begin alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from citepipe.data.files import read_examples, read_jsonl
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompts
from citepipe.models.load import load_tokenizer, without_dropout
from citepipe.options import DPOOptions
from citepipe.progress import summary
from citepipe.train.batch import Row
from citepipe.train.job import Job
from citepipe.train.trainer import Item, Trainer


class Preference(NamedTuple):
    """Two answers to a question (by its id), of which the chosen one has the higher reward."""

    question: str
    chosen: str
    rejected: str


def pairs(samples: Path, per_question: int = 1, margin: float = 0.0) -> list[Preference]:
    """The preferences among sampled answers (`candidates.jsonl`).

    Of a question's distinct answers the best is paired with the worst, the second best with the
    second worst, and so on, `per_question` pairs at most; their rewards differ by more than
    `margin`. Empty answers are left out.
    """
    found = []
    for record in read_jsonl(samples):
        rewards: dict[str, float] = {}
        for candidate in record["candidates"]:
            if candidate["text"].strip():
                rewards.setdefault(candidate["text"].strip(), candidate["reward"])
        # Best first; of equals the one sampled first stays in front.
        ranked = sorted(rewards, key=lambda text: -rewards[text])
        for chosen, rejected in list(zip(ranked, reversed(ranked), strict=True))[:per_question]:
            if rewards[chosen] - rewards[rejected] > margin:
                found.append(Preference(record["id"], chosen, rejected))
    return found


def held_out(preferences: Sequence[Preference], seed: int) -> set[str]:
    """A tenth of the questions, at least one: all their pairs choose the best weights."""
    questions = list(dict.fromkeys(preference.question for preference in preferences))
    count = max(1, round(len(questions) / 10))
    return set(random.Random(f"{seed}/held out").sample(questions, count))


def losses(
    log_probs: torch.Tensor, items: Sequence[Item], beta: float, label_smoothing: float
) -> dict[str, torch.Tensor]:
    """The loss (arXiv 2305.18290, eq. 7; smoothed as in its authors' code) and implicit rewards.

    `log_probs` (B, 2) are of the chosen and the rejected answer under the policy; the items have
    the same under the reference.
    """
    log_ratios = log_probs - log_probs.new_tensor([item.reference for item in items])
    margins = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    right, wrong = -F.logsigmoid(margins), -F.logsigmoid(-margins)
    return {
        "loss": ((1 - label_smoothing) * right + label_smoothing * wrong).sum(),
        "reward_margin": margins.sum(),
        "reward_accuracy": (margins > 0).float().sum(),
    }


def run(job: Job, samples: Path, questions: Path, options: DPOOptions) -> str:
    """Train on preferences among the `samples` (`candidates.jsonl`) of answers to `questions`.

    The weights with the lowest loss on held-out questions are published; the model that training
    starts from is also the reference. Returns a line with the run's figures.

    Raises:
        InputError: as `sft.run`; or the samples make no pairs for training and dev.
    """
    torch.set_num_threads(job.threads)
    examples = {example.id: example for example in read_examples(questions)}
    preferences = pairs(samples, options.pairs_per_question, options.margin)
    if len({preference.question for preference in preferences}) < 2:
        raise InputError(
            f"{samples}: expected two questions, one to learn from and one to hold out, with "
            f"answers whose rewards differ by more than dpo.margin = {options.margin:g}"
        )
    tokenizer = load_tokenizer(job.model)
    rows = []
    asked = [examples[preference.question] for preference in preferences]
    prompts = encode_prompts(asked, job.prompt, tokenizer, "dpo")
    for encoded, (_, *answers) in zip(prompts, preferences, strict=True):
        tokens = [encode_answer(encoded, a, tokenizer, options.max_output_tokens) for a in answers]
        rows.append(tuple(Row(encoded.token_ids, own) for own in tokens))
    loss = partial(losses, beta=options.beta, label_smoothing=options.label_smoothing)
    trainer = Trainer("dpo", job, options, loss, tokenizer)
    without_dropout(trainer.model)
    held = held_out(preferences, job.seed)
    learnt: list[Item] = []
    dev: list[Item] = []
    reference = trainer.log_probs([Item(both, 1) for both in rows])
    for both, preference, log_probs in zip(rows, preferences, reference, strict=True):
        part = dev if preference.question in held else learnt
        part.append(Item(both, 1, log_probs))
    figures = trainer.fit(learnt, dev)
    return summary("dpo", {"pairs": len(learnt), "dev pairs": len(dev), **figures})
