"""How much quicker is sampling than the way the paper's code does it?

    python benchmarks/sample.py

The same model, questions, draws and verifier, in one process and by turns: the segment-level search
and best of n, citepipe's and the paper's way (`plain_search.py`: a question and a pair at a time).
Both must find the same answers with the same rewards.

This is the size of the miniature, on a CPU; `gpu_sample.py` does the same at seven billion
parameters.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bound import matmul_rate
from machine import RESULTS, Report
from odd_answers import taught_examples
from paper_training import OneByOne
from plain_search import PlainWay
from train import Shape, _entailment, _start

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Done, Generator, Request
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.miniature.world import build_world
from citepipe.models.encode import encode_prompt
from citepipe.models.load import load_for_inference, load_tokenizer
from citepipe.options import (
    AdapterOptions,
    BestOfNOptions,
    MiniatureOptions,
    ModelOptions,
    RewardOptions,
    SegmentSearchOptions,
    WorldOptions,
)
from citepipe.rewards import Rewarder
from citepipe.sample.best_of_n import best_of_n
from citepipe.sample.segment_search import segment_search
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import load_verifier

_BASE = Path(__file__).parents[1] / "workflow" / "resources" / "miniature-base"
_PROMPT = MiniatureOptions().prompt
_MAX_ANSWER = 64
_MATMUL_SIZE = 2048
_BAR = 4.0
SEED = 0


class Timed:
    """A generator whose time and tokens are counted."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.capacity = generator.capacity
        self.seconds = 0.0
        self.tokens = 0

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        began = time.perf_counter()
        found = self._generator.generate(requests, done, keep)
        self.seconds += time.perf_counter() - began
        self.tokens += sum(len(answer.token_ids) for own in found for answer in own)
        return found

    def close(self) -> None:
        """See `Generator.close`."""


class Run(NamedTuple):
    """What a way found, and what it took."""

    found: list[list[tuple[str, float]]]
    seconds: dict[str, float]
    tokens: int
    pairs: int


class Questions(NamedTuple):
    """What is asked, of what."""

    examples: list[Example]
    prompts: list[tuple[int, ...]]
    model: Any
    tokenizer: Any


def our_way(
    asked: Questions,
    options: Any,
    verifier: str,
    rewards: RewardOptions,
    timed: type[Timed] = Timed,
) -> Run:
    """As many questions at once as suit a generator, which knows nothing yet, like the verifier."""
    generator = timed(HuggingFaceGenerator(asked.model, asked.tokenizer))
    rewarder = Rewarder(verifier, rewards, None)
    splitter = load_splitter(rewards.splitter)
    whole_answers = isinstance(options, BestOfNOptions)
    each = options.n if whole_answers else options.beams * options.samples_per_beam
    at_once = max(1, generator.capacity // each)
    records: list[Any] = []
    began = time.perf_counter()
    for begin in range(0, len(asked.examples), at_once):
        chunk = slice(begin, begin + at_once)
        questions = asked.examples[chunk], asked.prompts[chunk], generator, rewarder, options
        if whole_answers:
            records += best_of_n(*questions, SEED)
        else:
            records += segment_search(*questions, splitter, SEED)
    whole = time.perf_counter() - began
    seconds = {"generation": generator.seconds, "rewards": whole - generator.seconds}
    found = [[(c["text"], c["reward"]) for c in record["candidates"]] for record in records]
    return Run(found, {**seconds, "whole": whole}, generator.tokens, rewarder.pairs)


def paper_way(asked: Questions, options: Any, verifier: Any, rewards: RewardOptions) -> Run:
    """One question after the other."""
    plain = PlainWay(asked.model, asked.tokenizer, verifier, rewards)
    began = time.perf_counter()
    way = plain.best_of_n if isinstance(options, BestOfNOptions) else plain.search
    found = [
        way(example, prompt, options, SEED)
        for example, prompt in zip(asked.examples, asked.prompts, strict=True)
    ]
    seconds = {**plain.seconds, "whole": time.perf_counter() - began}
    return Run(found, seconds, plain.tokens, plain.verifier.pairs)


def compare(
    asked: Questions,
    options: Any,
    ours: Callable[[], Run],
    paper: Callable[[], Run],
    rounds: int,
    rate: float,
    report: Report,
) -> tuple[float, int]:
    """Both ways by turns; the ratio of their times, and the questions on which they differ."""
    ours(), paper()
    runs = [(ours(), paper()) for _ in range(rounds)]
    report(f"  {'':<12}{'ours':>10}{'paper':>10}{'ratio':>8}  rounds")
    for part in ("generation", "rewards", "whole"):
        each = [(a.seconds[part], b.seconds[part]) for a, b in runs]
        ratios = [theirs / mine for mine, theirs in each]
        mine, theirs = (statistics.median(column) for column in zip(*each, strict=True))
        report(
            f"  {part:<12}{mine:>8.2f} s{theirs:>8.2f} s{theirs / mine:>8.1f}"
            f"  {min(ratios):.1f} to {max(ratios):.1f}"
        )
    ratio = theirs / mine
    last, plain = runs[-1]
    for name, run in (("ours", last), ("paper", plain)):
        report(
            f"  {name}: {run.tokens} tokens and {run.pairs} pairs; per second "
            f"{len(asked.examples) / run.seconds['whole']:.1f} questions, "
            f"{run.tokens / run.seconds['generation']:.0f} tokens, "
            f"{run.pairs / run.seconds['rewards']:.0f} pairs"
        )
    shape = Shape.of(asked.model.config, 0)
    read = sum(map(len, asked.prompts)) + last.tokens
    needed = (2 * shape.weights * read + 2 * shape.head * last.tokens) / rate
    generation = statistics.median(a.seconds["generation"] for a, _ in runs)
    report(
        f"  bound: weights times tokens, each prompt once, take {needed:.2f} s at "
        f"{rate / 1e9:.0f} GFLOP/s; ours reaches {needed / generation:.0%} of it in generation"
    )
    apart = sum(a != b for a, b in zip(last.found, plain.found, strict=True))
    report(f"  questions with other answers or rewards: {apart} of {len(asked.examples)}")
    return ratio, apart


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=60, help="asked in a round")
    parser.add_argument("--rounds", type=int, default=3, help="of each way, by turns")
    parser.add_argument("--sft-steps", type=int, default=100, help="that make the model")
    parser.add_argument("--out", type=Path, default=RESULTS / "sample.txt")
    arguments = parser.parse_args()
    report = Report(arguments.out, "torch", "transformers")
    report(f"{torch.get_num_threads()} threads; 32 bits on the CPU")
    with tempfile.TemporaryDirectory() as folder:
        missed, apart = measure(Path(folder), arguments, report)
    report()
    report(f"bars missed: {missed}; questions with other answers: {apart}")
    return 1 if apart else 0


def measure(folder: Path, arguments: argparse.Namespace, report: Report) -> tuple[int, int]:
    """Everything at the size of the miniature: bars missed, and questions that differ."""
    rate = matmul_rate("cpu", torch.float32, _MATMUL_SIZE)
    options = ModelOptions(
        base=str(_BASE), dtype="float32", adapter=AdapterOptions(r=16, alpha=32, dropout=0.0)
    )
    tokenizer = load_tokenizer(options)
    datasets = ("asqa", "qampari", "eli5")
    taught = [e for name in datasets for e in taught_examples(name, 100, seed=7)]
    random.Random(0).shuffle(taught)
    adapter = _start(folder, options, taught, taught[:32], arguments.sft_steps)
    world = build_world(WorldOptions(train=1, dev=arguments.questions, test=1, expertqa=1), seed=3)
    examples = [drawn.example for drawn in world["dev"]][: arguments.questions]
    asked = Questions(
        examples,
        [encode_prompt(example, _PROMPT, tokenizer).token_ids for example in examples],
        load_for_inference(options, adapter),
        tokenizer,
    )
    entailment = _entailment(folder / "true", taught)
    one_by_one = OneByOne(entailment.model, entailment.tokenizer)
    verifiers = {
        "a tiny T5": (f"{entailment.directory}?dtype=float32", one_by_one),
        "lexical": ("lexical", load_verifier("lexical", None)),
    }
    ways = {
        "segment search, 8 beams, 2 samples per beam (the paper's)": SegmentSearchOptions(
            max_new_tokens=_MAX_ANSWER
        ),
        "best of 16 (the paper's)": BestOfNOptions(max_new_tokens=_MAX_ANSWER),
    }
    counts = Counter(example.dataset for example in examples)
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    report(f"{len(examples)} questions ({told}); {arguments.rounds} rounds by turns")
    missed = apart = 0
    rewards = RewardOptions()
    for verifier, (spec, single) in verifiers.items():
        for way, chosen in ways.items():
            report()
            report(f"{way}, verifier: {verifier}")
            ratio, differ = compare(
                asked,
                chosen,
                lambda spec=spec, chosen=chosen: our_way(asked, chosen, spec, rewards),
                lambda single=single, chosen=chosen: paper_way(asked, chosen, single, rewards),
                arguments.rounds,
                rate,
                report,
            )
            reached = ratio >= _BAR
            report(
                f"  {ratio:.1f} times as quick; bar {_BAR:g}, "
                f"{'reached' if reached else 'NOT REACHED'}"
            )
            missed += not reached
            apart += differ
    return missed, apart


if __name__ == "__main__":
    raise SystemExit(main())
