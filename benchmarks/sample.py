"""How much quicker is sampling than the way the paper's code does it?

    python benchmarks/sample.py

The same model, questions, draws and verifier, in one process and by turns: the segment-level search
and best of n, citepipe's and the paper's way (`plain_search.py`: a question and a pair at a time).
Both must find the same answers with the same rewards.

This is the size of the miniature, on a CPU; `gpu.py` does the same at seven billion parameters.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from common import DATASETS, Clock, Ratio, Report, argument_parser, verdict
from entailment import OneByOne, labelled_pairs, make_trained
from odd_answers import taught_examples
from plain_search import PlainWay
from train import MAX_ANSWER, MINIATURE_MODEL, PROMPT, train_start

from citepipe.data.example import Example
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.miniature.world import build_world
from citepipe.models.encode import encode_prompt
from citepipe.models.load import load_for_inference, load_tokenizer
from citepipe.options import BestOfNOptions, RewardOptions, SegmentSearchOptions, WorldOptions
from citepipe.rewards import Rewarder
from citepipe.sample.best_of_n import best_of_n
from citepipe.sample.segment_search import segment_search
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Verifier
from citepipe.verify.load import load_verifier

PARTS = ("generation", "rewards", "whole")
REWARDS = RewardOptions()
_VERIFIER_STEPS = 400
_BAR = 4.0
_SEED = 0


class Run(NamedTuple):
    """What a way found, and what it took."""

    found: list[list[tuple[str, float]]]
    seconds: dict[str, float]
    pairs: int

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs; per second {len(self.found) / self.seconds['whole']:.2f} "
            f"questions, {self.pairs / self.seconds['rewards']:.0f} pairs"
        )


class Questions(NamedTuple):
    """What both ways answer, and with what."""

    examples: Sequence[Example]
    prompts: Sequence[tuple[int, ...]]
    model: Any
    tokenizer: Any


def our_way(questions: Questions, options: Any, verifier: Verifier) -> Run:
    """As many questions at once as suit a generator."""
    engine = HuggingFaceGenerator(questions.model, questions.tokenizer)
    clock = Clock(str(questions.model.device))
    generator: Any = SimpleNamespace(
        generate=clock.timed("generation", engine.generate), close=engine.close
    )
    rewarder = Rewarder(verifier, REWARDS, None)
    splitter = load_splitter(REWARDS.splitter)
    whole_answers = isinstance(options, BestOfNOptions)
    each = options.n if whole_answers else options.beams * options.samples_per_beam
    at_once = max(1, engine.capacity // each)
    records: list[Any] = []
    began = time.perf_counter()
    for begin in range(0, len(questions.examples), at_once):
        chunk = slice(begin, begin + at_once)
        shared = questions.examples[chunk], questions.prompts[chunk], generator, rewarder, options
        if whole_answers:
            records += best_of_n(*shared, _SEED)
        else:
            records += segment_search(*shared, splitter, _SEED)
    whole = time.perf_counter() - began
    generation = sum(clock.seconds["generation"])
    seconds = {"generation": generation, "rewards": whole - generation, "whole": whole}
    found = [[(c["text"], c["reward"]) for c in record["candidates"]] for record in records]
    return Run(found, seconds, rewarder.pairs)


def paper_way(questions: Questions, options: Any, verifier: Verifier) -> Run:
    """One question after the other."""
    made = PlainWay(questions.model, questions.tokenizer, verifier, REWARDS)
    began = time.perf_counter()
    way = made.best_of_n if isinstance(options, BestOfNOptions) else made.search
    found = [
        way(example, prompt, options, _SEED)
        for example, prompt in zip(questions.examples, questions.prompts, strict=True)
    ]
    seconds = {**made.seconds, "whole": time.perf_counter() - began}
    return Run(found, seconds, made.verifier.pairs)


def compare(
    questions: Questions,
    options: Any,
    verifiers: tuple[Verifier, Verifier],
    rounds: int,
    report: Report,
) -> int:
    """Both ways by turns, after one untimed; on how many questions they differ.

    Args:
        questions: what is answered.
        options: of the search, or of best of n.
        verifiers: ours, and the same to be queried pair by pair.
        rounds: of each way.
        report: takes the lines.
    """
    runs = [
        (our_way(questions, options, verifiers[0]), paper_way(questions, options, verifiers[1]))
        for _ in range(rounds + 1)
    ][1:]
    report(f"  {'':<12}{'ours':>10}{'paper':>10}  ratio")
    for part in PARTS:
        ours, paper = ([run.seconds[part] for run in own] for own in zip(*runs, strict=True))
        ratio = Ratio.of(paper, ours)
        middle = f"{statistics.median(ours):>8.2f} s{statistics.median(paper):>8.2f} s"
        report(f"  {part:<12}{middle}  {ratio}")
    last, plain = runs[-1]
    report(f"  ours: {last}\n  paper: {plain}")
    apart = sum(a != b for a, b in zip(last.found, plain.found, strict=True))
    report(f"  questions with other answers or rewards: {apart} of {len(questions.examples)}")
    reached = verdict(ratio.middle >= _BAR)
    report(f"  {ratio.middle:.1f} times as quick; bar {_BAR:g}, {reached}")
    return apart


def main() -> int:
    parser = argument_parser(__doc__, "sample.txt")
    parser.add_argument("--questions", type=int, default=60, help="answered in a round")
    parser.add_argument("--rounds", type=int, default=3, help="of each way, by turns")
    parser.add_argument("--sft-steps", type=int, default=100, help="that make the model")
    arguments = parser.parse_args()
    report = Report(arguments.out, "torch", "transformers")
    tokenizer = load_tokenizer(MINIATURE_MODEL)
    taught = [e for name in DATASETS for e in taught_examples(name, 100, seed=7)]
    random.Random(0).shuffle(taught)
    world = build_world(WorldOptions(train=1, dev=arguments.questions, test=1, expertqa=1), seed=3)
    examples = [drawn.example for drawn in world["dev"]][: arguments.questions]
    counts = Counter(example.dataset for example in examples)
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    report(f"{len(examples)} questions ({told}); {arguments.rounds} rounds by turns")
    ways = {
        "segment search, 8 beams, 2 samples per beam (the paper's)": SegmentSearchOptions(
            max_new_tokens=MAX_ANSWER
        ),
        "best of 16 (the paper's)": BestOfNOptions(max_new_tokens=MAX_ANSWER),
    }
    apart = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        adapter = train_start(folder, taught, taught[:32], arguments.sft_steps)
        questions = Questions(
            examples,
            [encode_prompt(example, PROMPT, tokenizer).token_ids for example in examples],
            load_for_inference(MINIATURE_MODEL, adapter),
            tokenizer,
        )
        entailment, _ = make_trained(folder / "true", labelled_pairs(taught), _VERIFIER_STEPS)
        lexical, t5 = (
            load_verifier(spec) for spec in ("lexical", f"{entailment.directory}?dtype=float32")
        )
        verifiers = {"a tiny T5": (t5, OneByOne(entailment)), "lexical": (lexical, lexical)}
        for verifier, both in verifiers.items():
            for way, options in ways.items():
                report(f"\n{way}, verifier: {verifier}")
                apart += compare(questions, options, both, arguments.rounds, report)
    report(f"\nquestions with other answers: {apart}")
    return 1 if apart else 0


if __name__ == "__main__":
    raise SystemExit(main())
