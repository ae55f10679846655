"""The shares of several sampling jobs, put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from citepipe.data.files import read_jsonl, write_examples, write_jsonl
from citepipe.errors import InputError
from citepipe.progress import summary
from citepipe.sample.job import Record, by_name, choose_questions, name_of


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
