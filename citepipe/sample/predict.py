"""Prediction by search: test questions answered by the beams whose citations are worth most.

The verifier is asked as in training, but no gold answer is read: only the rewards of citations
count. An answer that a verifier chose flatters that verifier's scores; those of another one tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from citepipe.data.example import Example
from citepipe.data.prompts import Prompt
from citepipe.generate.completion import Generator
from citepipe.generate.predict import PredictJob, predict
from citepipe.options import RewardOptions, SegmentSearchOptions
from citepipe.rewards import Rewarder
from citepipe.sample.merge import Record, name_of
from citepipe.sample.record import chunk_by_chunk
from citepipe.sample.segment_search import segment_search
from citepipe.text.sentences import load_splitter

LABEL = "predict by search"


def run(
    job: PredictJob,
    search: SegmentSearchOptions,
    reward: RewardOptions,
    verifier: str,
    cache: Path | None,
) -> str:
    """Answer every question of every test file by the segment-level search.

    Args:
        job: what answers what; its seed decides the draws.
        search: how it is searched; answers are as long as `job.options` has it.
        reward: the size of the rewards of citations; that of correctness is not used.
        verifier: which entailment verifier finds them.
        cache: file of the verifier's decisions, or None.

    Returns:
        A line that says what was done.

    Raises:
        InputError: a file, model, verifier or server is not what it should be.
    """
    reward = reward.model_copy(update={"correctness": 0.0})
    options = search.model_copy(update={"max_new_tokens": job.options.max_new_tokens})
    splitter = load_splitter(reward.splitter)
    rewarder = Rewarder(verifier, reward, cache)

    def answer(
        examples: Sequence[Example], prompts: Sequence[Prompt], generator: Generator
    ) -> tuple[list[str], dict[str, float]]:
        known = {
            name_of(example.dataset, example.id): prompt.token_ids
            for example, prompt in zip(examples, prompts, strict=True)
        }

        def sample(chunk: Sequence[Example], generator: Generator) -> list[Record]:
            chosen = [known[name_of(example.dataset, example.id)] for example in chunk]
            records = segment_search(
                chunk, chosen, generator, rewarder, options, splitter, job.seed
            )
            return [
                {
                    "id": record["id"],
                    "dataset": record["dataset"],
                    "candidates": [c for c in record["candidates"] if c["text"]][:1],
                }
                for record in records
            ]

        per_question = search.beams * search.samples_per_beam
        records, rates = chunk_by_chunk(
            LABEL, "segments", examples, sample, generator, rewarder, per_question, job.state
        )
        texts = [c["text"] for r in records for c in r["candidates"] or [{"text": ""}]]
        return texts, rates

    decoding = {
        "decoding": "segment_search",
        "verifier": verifier,
        "beams": search.beams,
        "samples_per_beam": search.samples_per_beam,
        "temperature": search.temperature,
        "top_k": search.top_k,
    }
    return predict(LABEL, job, decoding, answer)
