"""Which questions are sampled, and how the shares of several jobs are put together again."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import read_examples, read_jsonl, write_examples, write_jsonl
from citepipe.errors import InputError
from citepipe.progress import summary

Record = dict[str, Any]
"""What is kept of a question: `id`, `dataset`, and `candidates`, best first, each as
`record.answer_record` has it; of a search also its `steps`."""


def choose_questions(path: Path, count: int | None, seed: int) -> list[Example]:
    """The questions to sample answers for: all of the file, or `count` of them by the seed."""
    examples = read_examples(path)
    if count is None or count >= len(examples):
        return examples
    return random.Random(f"{seed}/questions").sample(examples, count)


def name_of(dataset: str, question: str) -> str:
    """Ids are unique within a dataset."""
    return f"{dataset}/{question}"


def by_name(records: Iterable[Record]) -> dict[str, Record]:
    """Records by the names of their questions."""
    return {name_of(record["dataset"], record["id"]): record for record in records}


def merge(
    questions: Path,
    count: int | None,
    seed: int,
    parts: Sequence[Path],
    out_answers: Path,
    out_candidates: Path,
) -> str:
    """Put the shares of all jobs together, in the order of the questions.

    Args:
        questions: file of the questions that were sampled from.
        count: how many of them were asked; None for all.
        seed: of their choice.
        parts: what the jobs wrote, in the order of their shards.
        out_answers: examples with the best answer as `output`; a question without a single
            non-empty candidate is left out, and counted.
        out_candidates: per question a JSON line with every candidate.

    Returns:
        A line that says what was done.

    Raises:
        InputError: a part lacks a question.
    """
    examples = choose_questions(questions, count, seed)
    found: dict[str, Record] = {}
    for part in parts:
        found |= by_name(read_jsonl(part))
    records = []
    for number, example in enumerate(examples):
        name = name_of(example.dataset, example.id)
        if name not in found:
            part = parts[number % len(parts)]
            raise InputError(f"{part}: expected the question {name}, it is not there")
        records.append(found[name])
    chosen, rewards = [], []
    for example, record in zip(examples, records, strict=True):
        candidates = [candidate for candidate in record["candidates"] if candidate["text"]]
        if candidates:
            chosen.append(replace(example, output=candidates[0]["text"]))
            rewards.append(candidates[0]["reward"])
    write_jsonl(out_candidates, records)
    write_examples(out_answers, chosen)
    return summary(
        "merged",
        {
            "questions": len(examples),
            "without answer": len(examples) - len(chosen),
            "mean reward of the chosen": sum(rewards) / max(len(rewards), 1),
        },
    )
