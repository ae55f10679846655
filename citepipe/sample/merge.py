"""The shares of several sampling jobs, put together again, and the answers to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from citepipe.data.example import Example
from citepipe.data.files import read_jsonl, write_examples, write_json, write_jsonl
from citepipe.errors import InputError
from citepipe.options import MinReward
from citepipe.progress import summary
from citepipe.sample.job import Record, by_name, choose_questions, name_of
from citepipe.text.statements import ended


def merge(
    questions: Path,
    count: int | None,
    min_reward: MinReward,
    seed: int,
    parts: Sequence[Path],
    out_answers: Path,
    out_candidates: Path,
) -> str:
    """Put the shares of all jobs together, in the order of the questions.

    Args:
        questions, count, seed: as of `choose_questions`.
        min_reward: what the best sample has to exceed; `greedy` for the likeliest answer's reward.
        parts: what the jobs wrote, in the order of their shards.
        out_answers: examples with the best answer as `output` that has an end of its own. Questions
            without one, or whose best is no better than `min_reward`, are left out; the counts are
            in `account.json` beside it.
        out_candidates: per question a JSON line with every candidate.

    Returns:
        A line that says what was done.

    Raises:
        InputError: a part lacks a question, or `min_reward` leaves nothing to learn from.
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
    is_greedy = min_reward == "greedy"
    weak = "no better than greedy" if is_greedy else f"not above {min_reward}"
    dropped = dict.fromkeys(("without answer", "cut off", weak), 0)
    chosen: list[Example] = []
    rewards: list[tuple[float, float]] = []
    for example, record in zip(examples, records, strict=True):
        said = [candidate for candidate in record["candidates"] if candidate["text"]]
        whole = [candidate for candidate in said if candidate["finish"] != "length"]
        likeliest = record["greedy"]["reward"]
        least = likeliest if is_greedy else min_reward
        if not whole:
            dropped["cut off" if said else "without answer"] += 1
        elif least is not None and whole[0]["reward"] <= least:
            dropped[weak] += 1
        else:
            chosen.append(replace(example, output=ended(whole[0]["text"], example.dataset)))
            rewards.append((whole[0]["reward"], likeliest))
    if not chosen and min_reward is not None:
        counts = ", ".join(f"{count} {why}" for why, count in dropped.items() if count)
        raise InputError(
            f"{questions}: expected questions with a sample worth learning from, of "
            f"{len(examples)} there is none: {counts} (min_reward)"
        )
    write_jsonl(out_candidates, records)
    write_examples(out_answers, chosen)
    account: dict[str, object] = {
        "questions": len(examples),
        "chosen": len(chosen),
        **{why: count for why, count in dropped.items() if count},
        "tokens sampled": sum(record["sampled_tokens"] for record in records),
    }
    if chosen:
        best, likeliest = (sum(column) / len(chosen) for column in zip(*rewards, strict=True))
        account |= {"mean reward of the chosen": best, "of their greedy answers": likeliest}
    written = {name.replace(" ", "_"): figure for name, figure in account.items()}
    write_json(out_answers.with_name("account.json"), written)
    return summary("merged", account)
