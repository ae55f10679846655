"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) on sampled answers.

Of the answers that were sampled to a question, the one with the higher reward is preferred. The
reference is the model that training starts from; its log-probabilities are computed once, before
the first step. Simplified: no dropout while training, so that policy and reference begin alike.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from citepipe.data.example import Example
from citepipe.data.files import read_examples, read_jsonl
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.models.load import check_start, load_tokenizer, load_trainable, without_dropout
from citepipe.options import DPOOptions, ModelOptions, PromptOptions
from citepipe.progress import summary
from citepipe.train.batch import Row
from citepipe.train.trainer import (
    AnswerTrainer,
    Item,
    check_schedule,
    claim_together,
    system_errors,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from citepipe.tracking import Tracker


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to a question, of which one has the higher reward.

    Attributes:
        question: the question's id.
        chosen: the preferred answer.
        rejected: the other.
        difference: of their rewards, above 0.
    """

    question: str
    chosen: str
    rejected: str
    difference: float


@dataclass(frozen=True, slots=True)
class Pair(Item):
    """A preference as token ids: the rows of the chosen and of the rejected answer.

    Attributes:
        reference: the log-probabilities of both answers under the start.
    """

    reference: tuple[float, float] = (0.0, 0.0)


def pairs(candidates: Path, per_question: int = 1, margin: float = 0.0) -> list[Preference]:
    """The preferences among sampled answers.

    Of a question's distinct answers the best is paired with the worst, the second best with the
    second worst, and so on; empty ones are left out.

    Args:
        candidates: what sampling wrote (`candidates.jsonl`): per question a line with `id` and
            `candidates`, each with `text` and total `reward`.
        per_question: pairs of a question, at most.
        margin: rewards differ by more than this.

    Raises:
        InputError: the file is not of this form.
    """
    preferences = []
    for number, record in enumerate(read_jsonl(candidates), start=1):
        where = f"{candidates}, record {number}"
        question, answers = _answers(record, where)
        # Best first; of equals the one found first stays in front.
        ranked = sorted(answers.items(), key=lambda item: -item[1])
        for place in range(min(per_question, len(ranked) // 2)):
            (chosen, high), (rejected, low) = ranked[place], ranked[-1 - place]
            if high - low > margin:
                preferences.append(Preference(question, chosen, rejected, high - low))
    return preferences


def hold_out(preferences: Sequence[Preference], seed: int) -> tuple[list[int], list[int]]:
    """Indices of the preferences to learn and of those held out: a tenth of the questions.

    Args:
        preferences: of at least two questions.
        seed: of the choice.
    """
    questions = list(dict.fromkeys(p.question for p in preferences))
    count = max(1, round(len(questions) / 10))
    held = set(random.Random(f"{seed}/held out").sample(questions, count))
    return (
        [i for i, p in enumerate(preferences) if p.question not in held],
        [i for i, p in enumerate(preferences) if p.question in held],
    )


def preference_loss(
    log_ratios: torch.Tensor, beta: float, label_smoothing: float = 0.0
) -> torch.Tensor:
    """The loss of each pair (arXiv 2305.18290, eq. 7; smoothed as in its authors' code).

    Args:
        log_ratios: (B,), log-probability under the policy less that under the reference, of the
            chosen answer less of the rejected one.
        beta: how strongly the reference holds.
        label_smoothing: the probability that a preference is the wrong way round.
    """
    margins = beta * log_ratios
    right, wrong = -F.logsigmoid(margins), -F.logsigmoid(-margins)
    return (1 - label_smoothing) * right + label_smoothing * wrong


class DPOTrainer(AnswerTrainer):
    """The mean loss of pairs, and their implicit rewards (beta times the log-ratio)."""

    options: DPOOptions
    figures: ClassVar[tuple[str, ...]] = ("loss", "reward_margin", "reward_accuracy")

    def losses(
        self, log_probs: torch.Tensor, owners: torch.Tensor, items: Sequence[Item]
    ) -> dict[str, torch.Tensor]:
        both = log_probs.new_zeros(2 * len(items)).index_add(0, owners, log_probs).view(-1, 2)
        reference = both.new_tensor([item.reference for item in items if isinstance(item, Pair)])
        log_ratios = (both - reference) @ both.new_tensor([1.0, -1.0])
        beta = self.options.beta
        return {
            "loss": preference_loss(log_ratios, beta, self.options.label_smoothing).sum(),
            "reward_margin": beta * log_ratios.sum(),
            "reward_accuracy": (log_ratios > 0).float().sum(),
        }


def encode_pairs(
    preferences: Sequence[Preference],
    questions: dict[str, Example],
    prompt: PromptOptions,
    tokenizer: PreTrainedTokenizerBase,
    max_output_tokens: int,
) -> list[Pair]:
    """Preferences as token ids, without the reference's log-probabilities yet."""
    encoded = []
    for preference in preferences:
        asked = encode_prompt(questions[preference.question], prompt, tokenizer)
        chosen, rejected = (
            Row.of(asked.token_ids, encode_answer(asked, text, tokenizer, max_output_tokens))
            for text in (preference.chosen, preference.rejected)
        )
        encoded.append(Pair((chosen, rejected), weight=1))
    return encoded


def run(
    samples: Path,
    questions: Path,
    model: ModelOptions,
    prompt: PromptOptions,
    options: DPOOptions,
    start: Path | None,
    out: Path,
    state: Path,
    fingerprint: str,
    seed: int,
    threads: int,
    tracker: Tracker | None = None,
) -> str:
    """Train on preferences and write the weights with the lowest loss on held-out ones to `out`.

    Args:
        samples: the answers that were sampled (`candidates.jsonl`).
        questions: the questions that they answer.
        model: the base model.
        prompt: the prompt's templates and budget.
        options: how to train, and which answers are paired.
        start: the adapter or whole model to go on from, which is also the reference; None for the
            base.
        out: the result's directory, with tokenizer and `metrics.jsonl` (figures by step), and the
            last weights in its folder `last`.
        state: folder of the unfinished run.
        fingerprint: of everything the result depends on; another one starts clean.
        seed: of the adapter's start, of the pairs held out and of the order of the others.
        threads: CPU threads.
        tracker: takes the figures too.

    Returns:
        A line that says what was done.

    Raises:
        InputError: the samples or questions are not what they should be, or make no pairs for
            training and dev; a model cannot be loaded; a loss is not finite; or memory does not
            suffice.
    """
    torch.set_num_threads(threads)
    check_schedule("dpo", options)
    asked = {example.id: example for example in read_examples(questions)}
    preferences = pairs(samples, options.pairs_per_question, options.margin)
    for preference in preferences:
        if preference.question not in asked:
            raise InputError(f"{samples}: {questions} has no question {preference.question!r}")
    if len({preference.question for preference in preferences}) < 2:
        raise InputError(
            f"{samples}: expected two questions, one to learn from and one to hold out, with "
            f"answers whose rewards differ by more than dpo.margin = {options.margin:g}"
        )
    if start is not None:
        check_start(start, model)
    tokenizer = load_tokenizer(model)
    items = encode_pairs(preferences, asked, prompt, tokenizer, options.max_output_tokens)
    learnt, held = hold_out(preferences, seed)
    claim_together(state, fingerprint, "dpo")
    trained = load_trainable(model, start, seed)
    without_dropout(trained)
    pad_id = int(tokenizer.pad_token_id)
    trainer = DPOTrainer(
        "dpo",
        trained,
        model,
        options,
        [items[i] for i in learnt],
        [items[i] for i in held],
        pad_id,
        state,
        seed,
        tracker,
    )
    reference = _reference(trainer, items, state / "reference.safetensors")
    items = [replace(item, reference=both) for item, both in zip(items, reference, strict=True)]
    trainer.train_dataset = [items[i] for i in learnt]
    trainer.dev_items = [items[i] for i in held]
    figures = trainer.fit(out, tokenizer)
    return summary("dpo", {"pairs": len(learnt), "dev pairs": len(held), **figures})


def _reference(trainer: DPOTrainer, items: Sequence[Pair], path: Path) -> list[tuple[float, float]]:
    """The log-probabilities of both answers of each pair under the start, computed once."""
    if not path.exists():
        sums = trainer.score(items)
        if trainer.processes.is_main:
            partial = path.with_name(f".{path.name}.partial")
            with system_errors(path.parent):
                save_file({"reference": sums.cpu()}, partial)
            partial.replace(path)
        trainer.processes.wait()
    return [(chosen, rejected) for chosen, rejected in load_file(path)["reference"].tolist()]


def _answers(record: Any, where: str) -> tuple[str, dict[str, float]]:
    """A record's question, and the reward of each of its distinct answers."""
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        raise InputError(f"{where}, field id: expected the id of a question")
    candidates = record.get("candidates")
    if not isinstance(candidates, list):
        raise InputError(f"{where}, field candidates: expected a list of answers")
    answers: dict[str, float] = {}
    for number, candidate in enumerate(candidates):
        place = f"{where}, field candidates[{number}]"
        text = candidate.get("text") if isinstance(candidate, dict) else None
        if not isinstance(text, str):
            raise InputError(f"{place}.text: expected the text of an answer")
        reward = candidate.get("reward")
        if isinstance(reward, bool) or not isinstance(reward, int | float):
            raise InputError(f"{place}.reward: expected a number")
        if not math.isfinite(reward):
            raise InputError(f"{place}.reward: expected a finite number, got {reward}")
        if text.strip():
            answers.setdefault(text.strip(), float(reward))
    return record["id"], answers
