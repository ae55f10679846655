"""How fast is generation beside `model.generate`, and beside what the machine allows?

    python benchmarks/generate.py

The same model, prompts, sampling and number of new tokens, in one process and by turns: citepipe's
generator, and `model.generate` of transformers in a loop over batches of the same size. Two models:
the miniature's, whose weights fit into a processor's cache, and one of about forty million random
weights, which are read from memory at every step. Ends of sequence are ignored, so that all answers
are of the length that is given.

The bound is the sum over prompts and steps of whichever takes longer: the products of weights and
tokens at the rate of a large matrix product, or reading the weights, and the keys and values of
each prompt once and of each answer, at the rate at which a large matrix is read by a vector.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bound import matmul_rate, wait
from machine import RESULTS, Report
from train import Shape
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from citepipe.generate.completion import Request, Sampling
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.models.load import load_tokenizer
from citepipe.options import ModelOptions

_BASE = Path(__file__).parents[1] / "workflow" / "resources" / "miniature-base"
HEAD = f"  {'prompts x samples':<43}{'ours/s':>6}{'theirs/s':>10}  ratio  rounds  of bound"
"""Above the lines of `measure`."""
_SAMPLING = Sampling(temperature=1.0, top_k=50, seed=0)


class Machine(NamedTuple):
    """What it can do: operations and bytes per second."""

    operations: float
    bytes: float

    @classmethod
    def measure(cls, device: str, dtype: torch.dtype, size: int) -> Machine:
        """By the product of two matrices, and of a large matrix with a vector."""
        matrix = torch.randn(4 * size, 8 * size, device=device, dtype=dtype)
        vector = torch.randn(8 * size, device=device, dtype=dtype)
        seconds = []
        for _ in range(7):
            began = time.perf_counter()
            torch.mv(matrix, vector)
            wait(device)
            seconds.append(time.perf_counter() - began)
        read = matrix.numel() * matrix.element_size() / statistics.median(seconds[2:])
        return cls(matmul_rate(device, dtype, size), read)


class Case(NamedTuple):
    """Prompts, samples of each, sequences at once, and lengths in tokens."""

    prompts: int
    samples: int
    batch: int
    prompt: int
    lengths: Sequence[int]
    """Of the answers, by turns."""

    @property
    def tokens(self) -> int:
        """That are generated."""
        answers = self.prompts * self.samples
        return sum(self.lengths[i % len(self.lengths)] for i in range(answers))


class Speed:
    """Both ways of generating with a model.

    Args:
        model: with any weights.
        tokenizer: any that has as many tokens.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.device = model.device
        rng = random.Random(0)
        size = model.config.vocab_size
        self.ids = [[rng.randrange(5, size) for _ in range(4096)] for _ in range(64)]

    def prompts(self, case: Case) -> list[list[int]]:
        """Prompts that have nothing in common."""
        return [self.ids[i % 64][i // 64 :][: case.prompt] for i in range(case.prompts)]

    def ours(self, case: Case) -> None:
        """All of a case by citepipe's generator."""
        generator = HuggingFaceGenerator(self.model, self.tokenizer, case.batch)
        generator.end_ids = frozenset()
        requests = []
        for number, prompt in enumerate(self.prompts(case)):
            for sample in range(case.samples):
                length = case.lengths[(number * case.samples + sample) % len(case.lengths)]
                requests.append(
                    Request(
                        tuple(prompt), f"{number}/{sample}", length, sampling=_SAMPLING, stop=()
                    )
                )
        found = generator.generate(requests)
        assert sum(len(own[0].token_ids) for own in found) == case.tokens

    def theirs(self, case: Case) -> None:
        """The same by `model.generate`, batch after batch, each as long as its longest answer."""
        rows = [prompt for prompt in self.prompts(case) for _ in range(case.samples)]
        for begin in range(0, len(rows), case.batch):
            batch = torch.tensor(rows[begin : begin + case.batch], device=self.device)
            longest = max(
                case.lengths[i % len(case.lengths)] for i in range(begin, begin + len(batch))
            )
            self.model.generate(  # type: ignore[operator]
                batch,
                attention_mask=torch.ones_like(batch),
                do_sample=True,
                top_k=_SAMPLING.top_k,
                temperature=_SAMPLING.temperature,
                max_new_tokens=longest,
                min_new_tokens=longest,
                pad_token_id=0,
            )

    def bound(self, case: Case, machine: Machine) -> float:
        """Seconds that the machine needs at least."""
        shape = Shape.of(self.model.config, 0)
        weights = shape.weights + shape.head
        each = self.model.dtype.itemsize
        keys = 2 * shape.layers * self.model.config.num_key_value_heads
        column = keys * self.model.config.head_dim * each
        answers = case.prompts * case.samples
        # Batches of answers, all of the mean length.
        steps = case.tokens / min(case.batch, answers)
        rows = min(case.batch, answers)
        read = weights * each + column * (
            case.prompt * max(1, rows / case.samples) + rows * statistics.mean(case.lengths) / 2
        )
        step = max(2 * weights * rows / machine.operations, read / machine.bytes)
        prompts = 2 * shape.weights * case.prompts * case.prompt / machine.operations
        return prompts + steps * step


def measure(speed: Speed, case: Case, machine: Machine, rounds: int, report: Report) -> float:
    """Both ways by turns, one line; the ratio."""
    ways: dict[str, Callable[[Case], None]] = {"ours": speed.ours, "theirs": speed.theirs}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way(case)
            wait(str(speed.device))
            if round_:
                seconds[name].append(time.perf_counter() - began)
    ours, theirs = (statistics.median(each) for each in seconds.values())
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    even = len(set(case.lengths)) == 1
    lengths = f"{case.lengths[0]}" if even else f"{min(case.lengths)} to {max(case.lengths)}"
    report(
        f"  {case.prompts:>3} x {case.samples:>2}, batch {case.batch:>3}, {lengths:>8} tokens"
        f"{case.tokens / ours:>10.0f}{case.tokens / theirs:>10.0f}{theirs / ours:>7.1f}"
        f"  {min(ratios):.1f} to {max(ratios):.1f}{speed.bound(case, machine) / ours:>8.0%}"
    )
    return theirs / ours


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of each way, by turns")
    parser.add_argument("--out", type=Path, default=RESULTS / "generate.txt")
    arguments = parser.parse_args()
    report = Report(arguments.out, "torch", "transformers")
    report(f"{torch.get_num_threads()} threads; 32 bits on the CPU")
    machine = Machine.measure("cpu", torch.float32, 2048)
    told = f"{machine.operations / 1e9:.0f} GFLOP/s, {machine.bytes / 1e9:.1f} GB/s"
    report(f"the machine's rates: {told}")
    tokenizer = load_tokenizer(ModelOptions(base=str(_BASE)))
    miniature = LlamaForCausalLM.from_pretrained(_BASE, dtype=torch.float32).eval()
    torch.manual_seed(0)
    large = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=miniature.config.vocab_size,
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=8,
            head_dim=64,
            max_position_embeddings=2048,
        )
    ).eval()
    mixed = (4, 8, 12, 16, 20, 24, 32, 64)
    models = {
        "the miniature's, prompts of 80 tokens": (
            miniature,
            [
                Case(8, 1, 1, 80, (32,)),
                Case(16, 1, 8, 80, (32,)),
                Case(128, 1, 64, 80, (32,)),
                Case(16, 16, 64, 80, (32,)),
                Case(16, 16, 64, 80, mixed),
                Case(16, 16, 256, 80, mixed),
            ],
        ),
        "a Llama with few words, prompts of 300 tokens": (
            large,
            [
                Case(1, 1, 1, 300, (24,)),
                Case(8, 1, 8, 300, (24,)),
                Case(2, 16, 32, 300, (24,)),
                Case(2, 16, 32, 300, mixed),
            ],
        ),
    }
    for told, (model, cases) in models.items():
        count = sum(parameter.numel() for parameter in model.parameters())
        report()
        report(f"{told}, {count / 1e6:.1f} M parameters")
        report(
            f"  {'prompts x samples':<43}{'ours/s':>6}{'theirs/s':>10}  ratio  rounds   of bound"
        )
        for case in cases:
            measure(Speed(model, tokenizer), case, machine, arguments.rounds, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
