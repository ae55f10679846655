"""What both ways of sampling share: which questions are asked, and records that survive a kill."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_examples, write_jsonl
from citepipe.generate.completion import Generator
from citepipe.generate.local import HuggingFaceGenerator
from citepipe.models.encode import encode_prompt, end_token
from citepipe.models.load import check_trained, load_for_inference, load_tokenizer
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.reward import RewardOptions
from citepipe.progress import Progress, say, summary
from citepipe.rewards.answers import Rewarder
from citepipe.runstate import claim, discard

Candidates = list[list[dict[str, Any]]]
"""Per question its candidates, best first: `text`, `reward` and `rewards` by component."""

Sample = Callable[[Sequence[Example]], Candidates]
Search = Callable[[Sequence[Example], Sequence[tuple[int, ...]], Generator, Rewarder], Candidates]
"""Questions and their prompts, a generator and a rewarder, to candidates."""


def candidate(text: str, rewards: Mapping[str, float]) -> dict[str, Any]:
    """The record of a sampled answer: its text, its total reward, and the reward by component."""
    return {
        "text": text.strip(),
        "reward": round(sum(rewards.values()), 6),
        "rewards": {name: round(value, 6) for name, value in rewards.items()},
    }


def choose_questions(path: Path, count: int | None, seed: int) -> list[Example]:
    """The questions to sample answers for: all of the file, or `count` of them by the seed."""
    examples = read_examples(path)
    if count is None or count >= len(examples):
        return examples
    return random.Random(f"{seed}/questions").sample(examples, count)


@dataclass(frozen=True, slots=True)
class Job:
    """What to sample from, how to reward it, and where everything goes.

    Attributes:
        questions: file of the questions to sample from.
        model: the base model.
        adapter: the adapter that answers.
        prompt: the prompt's templates and budget.
        reward: the size of each reward.
        verifier: which entailment verifier finds the rewards.
        cache: file of the verifier's decisions, or None.
        out_answers: examples with the chosen answer as `output`; a question without a single
            non-empty candidate is left out, and counted.
        out_candidates: per question a JSON line with every candidate.
        state: folder of the unfinished run.
        fingerprint: of everything the result depends on; another one starts clean.
        seed: of the choice of questions and of all draws.
        threads: CPU threads.
    """

    questions: Path
    model: ModelOptions
    adapter: Path
    prompt: PromptOptions
    reward: RewardOptions
    verifier: str
    cache: Path | None
    out_answers: Path
    out_candidates: Path
    state: Path
    fingerprint: str
    seed: int
    threads: int


def run_job(
    label: str, job: Job, questions: int | None, batch_size: int, at_once: int, search: Search
) -> str:
    """Load what a job names, sample answers to its questions, and keep the best.

    Args:
        label: the stage's name in progress lines.
        job: inputs, outputs and seed.
        questions: how many questions are asked; None for all.
        batch_size: sequences generated at once.
        at_once: questions searched at once.
        search: finds the candidates of a chunk of questions.

    Returns:
        A line that says what was done.

    Raises:
        InputError: a file, model, adapter or verifier is not what it should be.
    """
    import torch

    torch.set_num_threads(job.threads)
    examples = choose_questions(job.questions, questions, job.seed)
    check_trained(job.adapter)
    rewarder = Rewarder(job.verifier, job.reward, job.cache)
    tokenizer = load_tokenizer(job.model)
    model = load_for_inference(job.model, job.adapter)
    end_id = end_token(tokenizer, job.prompt)
    generator = HuggingFaceGenerator(model, tokenizer, batch_size, end_id)

    def sample(chunk: Sequence[Example]) -> Candidates:
        prompts = [encode_prompt(example, job.prompt, tokenizer).token_ids for example in chunk]
        return search(chunk, prompts, generator, rewarder)

    return summary(label, sample_all(label, examples, sample, at_once, job))


def sample_all(
    label: str, questions: Sequence[Example], sample: Sample, at_once: int, job: Job
) -> dict[str, Any]:
    """Sample answers chunk by chunk, keeping what is done, and write the chosen ones.

    Args:
        label: the stage's name in progress lines.
        questions: what to ask.
        sample: finds candidates for a chunk of questions.
        at_once: questions per chunk.
        job: where state and results go.

    Returns:
        Figures for the summary line.
    """
    claim(job.state, job.fingerprint, label)
    journal = job.state / "candidates.jsonl"
    done = _read_journal(journal)
    if done:
        say(f"{label}: going on after {len(done)} of {len(questions)} questions")
    open_questions = [q for q in questions if q.id not in done]
    progress = Progress(label, len(questions), "questions", done=len(done))
    for start in range(0, len(open_questions), at_once):
        chunk = open_questions[start : start + at_once]
        records: list[dict[str, Any]] = [
            {"id": example.id, "dataset": example.dataset, "candidates": candidates}
            for example, candidates in zip(chunk, sample(chunk), strict=True)
        ]
        with journal.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            stream.flush()
            os.fsync(stream.fileno())
        done |= {record["id"]: record for record in records}
        best = [r["candidates"][0]["reward"] for r in done.values() if r["candidates"]]
        progress.advance(len(chunk), mean_best_reward=sum(best) / max(len(best), 1))
    chosen, rewards = [], []
    for question in questions:
        candidates = [c for c in done[question.id]["candidates"] if c["text"]]
        if candidates:
            chosen.append(replace(question, output=candidates[0]["text"]))
            rewards.append(candidates[0]["reward"])
    write_jsonl(job.out_candidates, (done[question.id] for question in questions))
    write_examples(job.out_answers, chosen)
    discard(job.state)
    return {
        "questions": len(questions),
        "without answer": len(questions) - len(chosen),
        "mean reward of the chosen": sum(rewards) / max(len(rewards), 1),
        "questions/s": (progress.done - progress.first) / progress.elapsed,
    }


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """The whole records of a journal; a last line that a kill cut off is dropped, also on disk."""
    if not path.exists():
        return {}
    records: dict[str, dict[str, Any]] = {}
    whole = 0
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            record = json.loads(line)
            records[record["id"]] = record
            whole += len(line)
    with path.open("rb+") as stream:
        stream.truncate(whole)
    return records
