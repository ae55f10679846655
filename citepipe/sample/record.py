"""What both ways of sampling share: the job, and records that survive a kill.

The questions can be shared out among several jobs. Every draw depends on the seed and the question
alone, so what comes out is the same however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import write_jsonl
from citepipe.generate.completion import FinishReason, Generator
from citepipe.generate.counting import Counting
from citepipe.generate.journal import Journal
from citepipe.generate.load import load_generator
from citepipe.models.encode import encode_prompt, end_token
from citepipe.models.load import check_trained, load_tokenizer
from citepipe.options import ModelOptions, PromptOptions, RewardOptions, ServerOptions
from citepipe.progress import Progress, say, summary
from citepipe.rewards import Rewarder
from citepipe.runstate import append_journal, claim, discard, read_journal
from citepipe.sample.merge import Record, by_name, choose_questions, name_of

Search = Callable[[Sequence[Example], Sequence[tuple[int, ...]], Generator, Rewarder], list[Record]]
"""Questions and their prompts, a generator and a rewarder, to a record per question."""

Sample = Callable[[Sequence[Example], Generator], list[Record]]
"""Questions and a generator to a record per question."""


def answer_record(
    text: str, tokens: int, finish: FinishReason, rewards: Mapping[str, float]
) -> dict[str, Any]:
    """The record of an answer, whole or partial.

    Args:
        text: what it says; kept without the spaces around it.
        tokens: how many it has.
        finish: why it ended.
        rewards: by component; their sum is kept as `reward`.
    """
    return {
        "text": text.strip(),
        "reward": round(sum(rewards.values()), 6),
        "rewards": {name: round(value, 6) for name, value in rewards.items()},
        "tokens": tokens,
        "finish": finish,
    }


@dataclass(frozen=True, slots=True)
class Job:
    """What to sample from, how to reward it, and where everything goes.

    Attributes:
        questions: file of the questions to sample from.
        model: the base model.
        adapter: the adapter (or whole model) that answers.
        prompt: the prompt's templates and budget.
        reward: the size of each reward.
        verifier: which entailment verifier finds the rewards.
        cache: file of the verifier's decisions, or None.
        server: where the model is served; None to load it in this process.
        shard: which share of the questions is this job's, from 0.
        shards: how many shares there are.
        out: per question a JSON line with every candidate.
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
    server: ServerOptions | None
    shard: int
    shards: int
    out: Path
    state: Path
    fingerprint: str
    seed: int
    threads: int


def run_job(
    label: str,
    unit: str,
    job: Job,
    questions: int | None,
    batch_size: int | None,
    per_question: int,
    search: Search,
) -> str:
    """Load what a job names and sample answers to its share of the questions.

    Args:
        label: the stage's name in progress lines.
        unit: what is generated at a time, plural.
        job: inputs, outputs and seed.
        questions: how many questions are asked by all shares; None for all.
        batch_size: sequences generated at once; None for what memory allows.
        per_question: sequences that a question takes at a time.
        search: finds the candidates of a chunk of questions.

    Returns:
        A line that says what was done.

    Raises:
        InputError: a file, model, adapter, verifier or server is not what it should be.
    """
    import torch

    torch.set_num_threads(job.threads)
    examples = choose_questions(job.questions, questions, job.seed)[job.shard :: job.shards]
    check_trained(job.adapter)
    rewarder = Rewarder(job.verifier, job.reward, job.cache)
    tokenizer = load_tokenizer(job.model)
    prompts: dict[str, tuple[int, ...]] = {}
    for example in examples:
        encoded = encode_prompt(example, job.prompt, tokenizer)
        prompts[name_of(example.dataset, example.id)] = encoded.token_ids
    end_id = end_token(tokenizer, job.prompt)

    def sample(chunk: Sequence[Example], generator: Generator) -> list[Record]:
        chosen = [prompts[name_of(e.dataset, e.id)] for e in chunk]
        return search(chunk, chosen, generator, rewarder)

    with closing(
        load_generator(job.model, job.adapter, tokenizer, end_id, batch_size, job.server)
    ) as generator:
        figures = sample_all(label, unit, examples, sample, generator, rewarder, per_question, job)
    return summary(label, figures)


def sample_all(
    label: str,
    unit: str,
    questions: Sequence[Example],
    sample: Sample,
    generator: Generator,
    rewarder: Rewarder,
    per_question: int,
    job: Job,
) -> dict[str, Any]:
    """Sample answers to questions and write them; see `chunk_by_chunk`.

    Returns:
        Figures for the summary line.
    """
    claim(job.state, job.fingerprint, label)
    records, rates = chunk_by_chunk(
        label, unit, questions, sample, generator, rewarder, per_question, job.state
    )
    write_jsonl(job.out, records)
    discard(job.state)
    return {"questions": len(records), **rates}


def chunk_by_chunk(
    label: str,
    unit: str,
    questions: Sequence[Example],
    sample: Sample,
    generator: Generator,
    rewarder: Rewarder,
    per_question: int,
    state: Path,
) -> tuple[list[Record], dict[str, float]]:
    """Sample answers to as many questions at once as keep the generator busy, keeping what is done.

    A run that is cut off has its finished questions in `state`, and of the others all that was
    generated for them.

    Args:
        label: the stage's name in progress lines.
        unit: what is generated at a time, plural.
        questions: what to ask.
        sample: finds the candidates of a chunk of questions, with a generator.
        generator: the one behind it.
        rewarder: whose pairs are counted.
        per_question: sequences that a question takes at a time.
        state: folder of the unfinished run.

    Returns:
        Per question its record, and what was done per second.
    """
    finished = state / "candidates.jsonl"
    done = by_name(read_journal(finished))
    if done:
        say(f"{label}: going on after {len(done)} of {len(questions)} questions")
    progress = Progress(label, len(questions), "questions", done=len(done))
    counting = Counting(generator, lambda: progress.advance(0, **rates()))
    journal = Journal(state / "completions.jsonl", counting)
    if journal.known:
        say(f"{label}: {journal.known} {unit} of unfinished questions are there already")

    def rates() -> dict[str, float]:
        passed = max(progress.elapsed, 1e-9)
        return {
            f"{unit}/s": counting.completions / passed,
            "tokens/s": counting.tokens / passed,
            "pairs/s": rewarder.pairs / passed,
        }

    left = [q for q in questions if name_of(q.dataset, q.id) not in done]
    at_once = max(1, generator.capacity // per_question)
    for start in range(0, len(left), at_once):
        records = sample(left[start : start + at_once], journal)
        append_journal(finished, records)
        journal.forget()
        done |= by_name(records)
        best = [r["candidates"][0]["reward"] for r in done.values() if r["candidates"]]
        progress.advance(
            len(records), **rates(), **{"mean best reward": sum(best) / max(len(best), 1)}
        )
    return [done[name_of(q.dataset, q.id)] for q in questions], rates()
