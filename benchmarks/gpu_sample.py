"""Sampling on a GPU at the size of LLaMA-2-7B, with a verifier of the size of T5-XL.

    SECTIONS=sample benchmarks/gpu.sh            # on a machine with a GPU, under ten minutes
    SECTIONS=sample benchmarks/gpu.sh --small    # the same program at a toy size, without one

Weights are random and built in place: no hub, no download. Measured are the segment-level search
over 256 questions with five passages of a hundred words, against the paper's way of it on a few of
them (`plain_search.py`: a question and a pair at a time), and tokens per second against
`model.generate` and against what the machine allows (`generate.py`).

Random weights write nothing that ends or could be rewarded. Both ways sample in earnest; a segment
ends after so many characters, and in its place stands a statement with citations, the same for
both.

Each part has a time of its own; what was not reached by then is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import generate
import plain_search
import torch
from gpu_train import FULL, SMALL, AsUsual, Measurement, Sizes
from machine import RESULTS, Report
from odd_answers import wordy_examples
from sample import SEED, Questions, Run, Timed
from sample import our_way as our_sampling

from citepipe.generate.completion import Completion, Done, Request
from citepipe.models import load
from citepipe.models.encode import encode_prompt
from citepipe.options.reward import RewardOptions
from citepipe.options.sample import SegmentSearchOptions
from citepipe.sample import segment_search

_BAR = 10.0
_CHARACTERS = 110
"""Of a segment: about 28 tokens."""
_LIMITS = {"search": 420, "tokens": 100}
_SEARCH = SegmentSearchOptions(max_new_tokens=200)


def by_length(text: str, listing: bool, splitter: object) -> int | None:
    """In the place of `segment_end`."""
    return _CHARACTERS if len(text) > _CHARACTERS else None


class Statements:
    """What is said in the place of what was sampled: statements of the question's own answer."""

    def __init__(self, examples: Sequence[Any]) -> None:
        self._said = {
            f"{example.dataset}/{example.id}": [
                f" {part.strip()}." for part in (example.output or "").split(".") if part.strip()
            ]
            for example in examples
        }

    def put(self, request: Request, sample: int, completion: Completion) -> Completion:
        """A completion with another text, chosen by what was asked."""
        question = request.key.rsplit("/", 2)[0]
        chosen = hashlib.sha256(f"{request.key}/{sample}".encode()).digest()[0]
        said = self._said[question]
        return replace(completion, text=said[chosen % len(said)], offsets=())


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
        questions: searched by ours.
        singles: of these, searched the paper's way.
    """

    def __init__(
        self,
        sizes: Sizes,
        device: str,
        folder: Path,
        report: Report,
        questions: int,
        singles: int,
    ) -> None:
        super().__init__(sizes, device, folder, report)
        statements = [example.output for example in self.examples]
        examples = wordy_examples(questions, sizes.words, 0.3, seed=9)
        self.asked = [
            replace(example, id=f"{number}", output=statements[number % len(statements)])
            for number, example in enumerate(examples)
        ]
        self.singles = singles

    def run(self) -> None:
        """Measure, and report as it comes."""
        model = self._build_base(self.model)
        prompts = [encode_prompt(e, self.prompt, self.tokenizer).token_ids for e in self.asked]
        asked = Questions(self.asked, prompts, model, self.tokenizer)
        self._part("tokens per second", _LIMITS["tokens"], lambda: self._tokens(model))
        self._part("segment-level search", _LIMITS["search"], lambda: self._search(asked))

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

    def _search(self, asked: Questions) -> None:
        entailment = self._verifier()
        statements = Statements(asked.examples)
        Scripted.statements = ScriptedPlainly.statements = statements
        segment_search.segment_end = by_length  # type: ignore[assignment]
        plain_search.segment_end = by_length  # type: ignore[assignment]
        spec, rewards = f"gpu_train:built?{entailment.directory}", RewardOptions()
        few = Questions(asked.examples[:2], asked.prompts[:2], *asked[2:])
        our_sampling(few, _SEARCH, spec, rewards, Scripted)
        self._reset_memory()
        ours = our_sampling(asked, _SEARCH, spec, rewards, Scripted)
        self._tell("ours", ours, len(asked.examples))
        single = AsUsual(entailment.model, entailment.tokenizer)
        plain = ScriptedPlainly(asked.model, asked.tokenizer, single, rewards)
        began, found = generate.time.perf_counter(), []
        for example, prompt in zip(asked.examples[: self.singles], asked.prompts, strict=False):
            found.append(plain.search(example, prompt, _SEARCH, SEED))
        whole = generate.time.perf_counter() - began
        paper = Run(found, {**plain.seconds, "whole": whole}, plain.tokens, plain.verifier.pairs)
        self._tell("paper", paper, len(found))
        ratio = (whole / len(found)) / (ours.seconds["whole"] / len(asked.examples))
        apart = sum(a != b for a, b in zip(ours.found, found, strict=False))
        self.report(f"  questions with other answers, of those asked both ways: {apart}")
        verdict = "reached" if ratio >= _BAR else "NOT REACHED"
        self.report(f"  a question: {ratio:.1f} times as quick; bar {_BAR:g}, {verdict}")

    def _tell(self, name: str, run: Run, questions: int) -> None:
        seconds = run.seconds
        self.report(
            f"  {name}: {questions} questions in {seconds['whole']:.1f} s (generation "
            f"{seconds['generation']:.1f} s, rewards {seconds['rewards']:.1f} s), {run.tokens} "
            f"tokens and {run.pairs} pairs; per second {questions / seconds['whole']:.2f} "
            f"questions, {run.tokens / seconds['generation']:.0f} tokens, "
            f"{run.pairs / seconds['rewards']:.0f} pairs{self._told_memory()}"
        )


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
            questions=6 if arguments.small else 256,
            singles=2 if arguments.small else 4,
        )
        measurement.run()
    return 1 if measurement.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
