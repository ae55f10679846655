"""Sampling on a GPU at the size of LLaMA-2-7B, with a verifier of the size of T5-XL.

    SECTIONS=sample benchmarks/gpu.sh            # on a machine with a GPU, under ten minutes
    SECTIONS=sample benchmarks/gpu.sh --small    # the same program at a toy size, without one

Weights are random and built in place: no hub, no download. Measured are the segment-level search
over 256 questions with five passages of a hundred words, against the paper's way of it on a few of
them (`plain_search.py`: a question and a pair at a time), and tokens per second against
`model.generate` and against what the machine allows (`generate.py`).

Random weights write nothing that ends or could be rewarded. Both ways sample in earnest; a segment
ends after about as many tokens as a statement has, and in its place stands a statement from the
question's own passages with citations, the same for both ways and another one for every segment.

Each part has a time of its own; what was not reached by then is left out. The paper's way comes
first, then ours on some questions, then ours on all.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import generate
import plain_search
import torch
from gpu_train import FULL, SMALL, Entailment, Measurement, Sizes
from machine import RESULTS, Report
from odd_answers import wordy_examples
from paper_training import OneByOne
from sample import SEED, Questions, Run, Timed
from sample import our_way as our_sampling

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Done, Request
from citepipe.models import load
from citepipe.models.encode import encode_prompt
from citepipe.options import RewardOptions, SegmentSearchOptions
from citepipe.sample import segment_search
from citepipe.verify.base import Pair

_BAR = 10.0
_TOKENS = 28
"""Of a segment, about."""
_WORDS = 22
"""Of the statement in its place."""
# Seconds.
_LIMITS = {"tokens": 90, "loading": 50, "paper": 80, "some": 50, "all": 250}
_SEARCH = SegmentSearchOptions(max_new_tokens=200)


def ends_after(characters: int) -> Callable[..., int | None]:
    """In the place of `segment_end`: a segment ends after so many characters."""

    def end(text: str, listing: bool, splitter: object) -> int | None:
        return characters if len(text) > characters else None

    return end


class Statements:
    """What is said in the place of what was sampled: words of a passage, with a citation or, of
    three in ten, with three."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._passages = {
            f"{example.dataset}/{example.id}": [
                doc.text.replace(".", "").split() for doc in example.docs
            ]
            for example in examples
        }

    def put(self, request: Request, sample: int, completion: Completion) -> Completion:
        """A completion with another text, which what was asked decides."""
        passages = self._passages[request.key.rsplit("/", 2)[0]]
        rng = random.Random(f"{request.key}/{sample}")
        cited = rng.sample(range(len(passages)), 3)[: 3 if rng.random() < 0.3 else 1]
        words = passages[cited[0]]
        begin = rng.randrange(max(1, len(words) - _WORDS))
        said = " ".join(words[begin : begin + _WORDS])
        marks = "".join(f"[{place + 1}]" for place in cited)
        return replace(completion, text=f" {said} {marks}.", offsets=())


class Scripted(Timed):
    """Samples in earnest, and says something else."""

    statements: Statements

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        found = super().generate(requests, done, keep)
        return [
            [self.statements.put(request, i, said) for i, said in enumerate(own)]
            for request, own in zip(requests, found, strict=True)
        ]


class ScriptedPlainly(plain_search.PlainWay):
    """The same, the paper's way."""

    statements: Statements

    def _continue(self, requests: Sequence[Request]) -> list[list[Completion]]:
        return [
            [self.statements.put(request, i, said) for i, said in enumerate(own)]
            for request, own in zip(requests, super()._continue(requests), strict=True)
        ]


class SampleMeasurement(Measurement):
    """All parts, one after the other; see `Measurement`.

    Args:
        questions: searched by ours, at first some of them.
        singles: of these, searched the paper's way.
    """

    def __init__(
        self,
        sizes: Sizes,
        device: str,
        folder: Path,
        report: Report,
        questions: tuple[int, int],
        singles: int,
    ) -> None:
        super().__init__(sizes, device, folder, report)
        examples = wordy_examples(questions[1], sizes.words, 0.3, seed=9)
        self.asked = [replace(example, id=f"{n}") for n, example in enumerate(examples)]
        self.some, self.singles = questions[0], singles
        self.paper: Run | None = None

    def run(self) -> None:
        """Measure, and report as it comes."""
        model = self._build_base(self.model)
        prompts = [encode_prompt(e, self.prompt, self.tokenizer).token_ids for e in self.asked]
        asked = Questions(self.asked, prompts, model, self.tokenizer)
        self._part("tokens per second", _LIMITS["tokens"], lambda: self._tokens(model))
        entailments: list[Entailment] = []
        self._part("loading", _LIMITS["loading"], lambda: entailments.append(self._prepare(asked)))
        if not entailments:
            return
        lengths = [len(prompt) for prompt in prompts]
        self.report(
            f"  {len(self.asked)} questions, prompts of {statistics.mean(lengths):.0f} tokens "
            f"({min(lengths)} to {max(lengths)}); {_SEARCH.beams} beams, "
            f"{_SEARCH.samples_per_beam} samples per beam, depth {_SEARCH.depth}"
        )
        name = "segment-level search"
        self._part(
            f"{name}, the paper's way", _LIMITS["paper"], lambda: self._plain(asked, entailments[0])
        )
        for count, limit in ((self.some, "some"), (len(self.asked), "all")):
            chosen = Questions(self.asked[:count], prompts[:count], model, self.tokenizer)
            self._part(
                f"{name}, ours on {count} questions",
                _LIMITS[limit],
                lambda chosen=chosen: self._ours(chosen, entailments[0]),  # type: ignore[misc]
            )

    def _tokens(self, model: Any) -> None:
        size = self.sizes.matmul
        machine = generate.Machine.measure(self.device, model.dtype, size)
        told = f"{machine.operations / 1e12:.2f} TFLOP/s, {machine.bytes / 1e9:.1f} GB/s"
        self.report(f"  the machine's rates: {told}")
        self.report(generate.HEAD)
        speed = generate.Speed(model, self.tokenizer)
        long = 900 if self.device == "cuda" else 100
        for case in (
            generate.Case(8, 1, 8, long, (32,)),
            generate.Case(64, 1, 64, long, (32,)),
            generate.Case(8, 16, 128, long, (32,)),
            generate.Case(16, 16, 128, long, (8, 16, 32, 64)),
        ):
            generate.measure(speed, case, machine, 1, self.report)

    def _prepare(self, asked: Questions) -> Entailment:
        """The verifier, and what is said; two questions our way, so that no first call is timed."""
        ids = list(range(len(self.tokenizer)))
        width = statistics.mean(map(len, self.tokenizer.convert_ids_to_tokens(ids)))
        end = ends_after(int(width * _TOKENS))
        segment_search.segment_end = end
        plain_search.segment_end = end
        Scripted.statements = ScriptedPlainly.statements = Statements(asked.examples)
        entailment = self._verifier()
        few = Questions(asked.examples[-2:], asked.prompts[-2:], asked.model, asked.tokenizer)
        our_sampling(few, _SEARCH, _spec(entailment), RewardOptions(), Scripted)
        return entailment

    def _plain(self, asked: Questions, entailment: Entailment) -> None:
        single = OneByOne(entailment.model, entailment.tokenizer)
        single.entails([Pair(asked.examples[-1].docs[0].text, asked.examples[-1].question)])
        plain = ScriptedPlainly(asked.model, asked.tokenizer, single, RewardOptions())
        self._reset_memory()
        began, found = time.perf_counter(), []
        for example, prompt in zip(asked.examples[: self.singles], asked.prompts, strict=False):
            found.append(plain.search(example, prompt, _SEARCH, SEED))
        whole = time.perf_counter() - began
        seconds = {**plain.seconds, "whole": whole}
        self.paper = Run(found, seconds, plain.tokens, plain.verifier.pairs)
        self._tell(self.paper)

    def _ours(self, asked: Questions, entailment: Entailment) -> None:
        self._reset_memory()
        run = our_sampling(asked, _SEARCH, _spec(entailment), RewardOptions(), Scripted)
        self._tell(run)
        paper = self.paper
        if paper is None:
            return
        told = []
        for part in ("generation", "rewards", "whole"):
            theirs = paper.seconds[part] / len(paper.found)
            told.append((part, theirs / (run.seconds[part] / len(run.found))))
        apart = sum(a != b for a, b in zip(run.found, paper.found, strict=False))
        self.report(
            "  a question, times as quick: "
            + ", ".join(f"{part} {ratio:.1f}" for part, ratio in told)
            + f"; bar {_BAR:g}, {'reached' if told[-1][1] >= _BAR else 'NOT REACHED'}"
        )
        self.report(f"  of {len(paper.found)} asked both ways, with other answers: {apart}")

    def _tell(self, run: Run) -> None:
        seconds, questions = run.seconds, len(run.found)
        self.report(
            f"  {questions} questions in {seconds['whole']:.1f} s (generation "
            f"{seconds['generation']:.1f} s, rewards {seconds['rewards']:.1f} s), {run.tokens} "
            f"tokens and {run.pairs} pairs; per second {questions / seconds['whole']:.2f} "
            f"questions, {run.tokens / seconds['generation']:.0f} tokens, "
            f"{run.pairs / seconds['rewards']:.0f} pairs{self._told_memory()}"
        )


def _spec(entailment: Entailment) -> str:
    """How `load_verifier` finds our verifier over a model."""
    return f"gpu_train:built?{entailment.directory}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a toy size, on any machine")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_sample.txt")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.small:
        print("gpu_sample.py: no GPU here; --small runs without one", file=sys.stderr)
        return 1
    report = Report(arguments.out, "torch", "transformers", "peft")
    sizes = replace(SMALL if arguments.small else FULL, words=20 if arguments.small else 100)
    with tempfile.TemporaryDirectory() as folder:
        load.device = lambda: torch.device(device)  # type: ignore[assignment]
        measurement = SampleMeasurement(
            sizes,
            device,
            Path(folder),
            report,
            questions=(4, 8) if arguments.small else (32, 256),
            singles=2 if arguments.small else 4,
        )
        measurement.run()
    return 1 if measurement.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
