"""A model that answers questions chunk by chunk, and whose run goes on where it was cut off.

Every draw depends on the seed and the question alone, so what comes out is the same however often
a run is cut off, and among however many jobs the questions are shared out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_jsonl
from citepipe.data.prompts import Prompt
from citepipe.generate.completion import Completion, Done, FinishReason, Generator, Request
from citepipe.generate.journal import Journal
from citepipe.models.encode import encode_prompts, end_token, stops
from citepipe.models.load import check_trained, load_for_inference, load_tokenizer
from citepipe.options import (
    BestOfNOptions,
    ModelOptions,
    PromptOptions,
    RewardOptions,
    SegmentSearchOptions,
    ServerOptions,
)
from citepipe.progress import Progress, say, summary
from citepipe.rewards import Rewarder, standing
from citepipe.runstate import append_journal, claim, discard, read_journal

Record = dict[str, Any]
"""What is kept of a question: `id`, `dataset`, and `candidates`, best first, each as
`answer_record` has it; where answers are sampled for training also `sampled_tokens` and the
likeliest answer (`greedy`), and of a search its `steps`. Whole answers to the first `SHOWN`
questions also have their rewards at the characters where they stand (`standing`)."""

SHOWN = 100

Ids = tuple[int, ...]

Sample = Callable[[Sequence[Example], Sequence[Ids], Generator], list[Record]]
"""Questions, their prompts as token ids, and a generator to a record per question."""


@dataclass(frozen=True, slots=True)
class Job:
    """What answers questions, and where its run is kept until it has finished.

    Attributes:
        adapter: the adapter or whole model that answers, or None for the bare base.
        server: where the model is served; None to load it in this process.
        state: folder of the unfinished run.
        fingerprint: of everything the result depends on; another one starts clean.
        verifier: the one that finds rewards, with the file of its decisions (`cache`).
    """

    model: ModelOptions
    adapter: Path | None
    prompt: PromptOptions
    server: ServerOptions | None
    state: Path
    fingerprint: str
    seed: int
    threads: int
    reward: RewardOptions = field(default_factory=RewardOptions)
    verifier: str = "lexical"
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """The questions that one of several jobs samples answers to.

    Of the file `questions` it is number `shard` (from 0) of `shards` shares; a JSON line per
    question, with every candidate, goes to `out`.
    """

    questions: Path
    shard: int
    shards: int
    out: Path


@dataclass(frozen=True, slots=True)
class Method:
    """How questions are answered.

    Attributes:
        unit: what is generated at a time, plural.
        sample: answers a chunk of questions.
        per_question: sequences that a question takes at a time; None for one, and then all
            questions are one chunk.
        rewarder: whose pairs are counted, if there is one.
        levels: how often a question takes its sequences, about.
    """

    label: str
    unit: str
    sample: Sample
    per_question: int | None = None
    rewarder: Rewarder | None = None
    levels: int = 1


def sample_share(
    job: Job, share: Share, options: BestOfNOptions | SegmentSearchOptions, method: Method
) -> str:
    """Answer a job's share of the questions and write their records; returns a summary line.

    The likeliest answer to each question is generated and rewarded too. Raises as
    `answer_questions` does.
    """
    assert method.rewarder is not None
    rewarder = method.rewarder
    chosen = choose_questions(share.questions, options.questions, job.seed)
    examples = chosen[share.shard :: share.shards]
    shown = {name_of(example.dataset, example.id) for example in chosen[:SHOWN]}

    def sample(
        examples: Sequence[Example], prompts: Sequence[Ids], generator: Generator
    ) -> list[Record]:
        requests = greedy_requests(examples, prompts, options.max_new_tokens)
        beside = _Beside(generator, requests)
        records = method.sample(examples, prompts, beside)
        likeliest = [said for [said] in beside.found]
        rewards = rewarder.reward(examples, [said.text for said in likeliest])
        for example, record, said, own in zip(examples, records, likeliest, rewards, strict=True):
            record["greedy"] = answer_record(said.text, len(said.token_ids), said.finish, own)
            if name_of(example.dataset, example.id) in shown:
                answers = [*record["candidates"], record["greedy"]]
                texts = [answer["text"] for answer in answers]
                spans = rewarder.spans([example] * len(texts), texts)
                for answer, found in zip(answers, spans, strict=True):
                    end = len(answer["text"])
                    characters = [(n, min(n + 1, end)) for n in range(end + 1)]
                    answer["standing"] = standing(found, characters)
        return records

    records, figures = answer_questions(
        job, examples, options.batch_size, replace(method, sample=sample)
    )
    write_jsonl(share.out, records)
    discard(job.state)
    tokens = sum(record["sampled_tokens"] for record in records)
    return summary(method.label, {"questions": len(records), "tokens sampled": tokens, **figures})


def answer_questions(
    job: Job, examples: Sequence[Example], batch_size: int | None, method: Method
) -> tuple[list[Record], dict[str, float]]:
    """Load what a job names and answer questions; the caller discards the job's state.

    At most `batch_size` sequences are generated at once; None for what memory allows.

    Returns:
        Per question its record, and figures for the summary line.

    Raises:
        InputError: a model, an adapter or the server is not what it should be.
    """
    import torch

    torch.set_num_threads(job.threads)
    if job.adapter is not None:
        check_trained(job.adapter)
    tokenizer = load_tokenizer(job.model)
    prompts = encode_prompts(examples, job.prompt, tokenizer, method.label)
    ends = end_token(tokenizer, job.prompt), stops(tokenizer, job.prompt)
    claim(job.state, job.fingerprint, method.label)
    generator: Generator
    if job.server is not None:
        from citepipe.generate.server import ServerGenerator

        base, revision = job.model.base, job.model.revision
        generator = ServerGenerator(job.server, base, job.adapter, tokenizer, *ends, revision)
    else:
        from citepipe.generate.engine import HuggingFaceGenerator

        model = load_for_inference(job.model, job.adapter)
        generator = HuggingFaceGenerator(model, tokenizer, batch_size, *ends)
    with closing(generator):
        records, rates = chunk_by_chunk(method, examples, prompts, generator, job.state)
    return records, {**rates, "prompts shortened": sum(prompt.shortened for prompt in prompts)}


def chunk_by_chunk(
    method: Method,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    generator: Generator,
    state: Path,
) -> tuple[list[Record], dict[str, float]]:
    """Answer as many questions at once as keep the generator busy, keeping what is done.

    A run that is cut off has its finished questions in `state`, and of the others all that was
    generated for them.

    Returns:
        Per question its record, and what was done per second.
    """
    label, unit, per_question = method.label, method.unit, method.per_question
    finished = state / "candidates.jsonl"
    done = by_name(read_journal(finished))
    if done:
        say(f"{label}: going on after {len(done)} of {len(examples)} questions")
    work = (per_question or 1) * method.levels
    counting = _Counting(
        generator, lambda: progress.advance(0 if per_question else 1, 1, **rates())
    )
    journal = Journal(state / "completions.jsonl", counting)
    if journal.known:
        say(f"{label}: {journal.known} {unit} of unfinished questions are there already")
    known = 0 if per_question else journal.known
    progress = Progress(
        label, len(examples), "questions", done=len(done) + known, work=len(examples) * work
    )

    def rates() -> dict[str, float]:
        passed = max(progress.elapsed, 1e-9)
        shown = {f"{unit}/s": counting.completions / passed, "tokens/s": counting.tokens / passed}
        judged = method.rewarder
        return shown | ({"pairs/s": judged.pairs / passed} if judged else {})

    left = [
        (example, prompt.token_ids)
        for example, prompt in zip(examples, prompts, strict=True)
        if name_of(example.dataset, example.id) not in done
    ]
    at_once = max(1, generator.capacity // per_question if per_question else len(left))
    for start in range(0, len(left), at_once):
        chunk, ids = zip(*left[start : start + at_once], strict=True)
        before = counting.completions
        records = method.sample(chunk, ids, journal)
        append_journal(finished, records)
        journal.forget()
        done |= by_name(records)
        if per_question:
            best = [r["candidates"][0]["reward"] for r in done.values() if r["candidates"]]
            mean = sum(best) / max(len(best), 1)
            rest = max(0, len(records) * work - (counting.completions - before))
            progress.advance(len(records), rest, **rates(), **{"mean best reward": mean})
    return [done[name_of(example.dataset, example.id)] for example in examples], rates()


class _Counting:
    """A generator that counts what another one completes, and reports after each."""

    def __init__(self, generator: Generator, report: Callable[[], None]) -> None:
        self._generator, self._report = generator, report
        self.capacity = generator.capacity
        self.close = generator.close
        self.completions = self.tokens = 0

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""

        def count(number: int, sample: int, completion: Completion) -> None:
            self.completions += 1
            self.tokens += len(completion.token_ids)
            if done is not None:
                done(number, sample, completion)
            self._report()

        return self._generator.generate(requests, count, keep)


class _Beside:
    """A generator that completes some requests more beside the first it is given.

    `found` is what they came to.
    """

    def __init__(self, generator: Generator, more: Sequence[Request]) -> None:
        self._generator, self._more = generator, list(more)
        self.capacity = generator.capacity
        self.close = generator.close
        self.found: list[list[Completion]] = []

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        completed = self._generator.generate([*requests, *self._more], done, keep)
        self.found += completed[len(requests) :]
        self._more = []
        return completed[: len(requests)]


def greedy_requests(
    examples: Sequence[Example], prompts: Sequence[Ids], max_new_tokens: int
) -> list[Request]:
    """What to request for the likeliest answer to each question."""
    return [
        Request(prompt, name_of(example.dataset, example.id), max_new_tokens)
        for example, prompt in zip(examples, prompts, strict=True)
    ]


def answer_record(
    text: str, tokens: int, finish: FinishReason, rewards: Mapping[str, float]
) -> dict[str, Any]:
    """The record of an answer, whole or partial, with its rewards by component and their sum."""
    return {
        "text": text.strip(),
        "reward": round(sum(rewards.values()), 6),
        "rewards": {name: round(value, 6) for name, value in rewards.items()},
        "tokens": tokens,
        "finish": finish,
    }


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
