"""What all benchmarks share: the machine in words, timing by turns, and what arithmetic costs."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

RESULTS = Path(__file__).parent / "results"
BASE = Path(__file__).parents[1] / "workflow" / "resources" / "miniature-base"
"""The miniature's base model."""
DATASETS = ("asqa", "qampari", "eli5")
MATMUL_SIZE = 2048
"""Rows of the matrices that a CPU's rate is measured with."""


def argument_parser(text: str | None, results: str | None) -> argparse.ArgumentParser:
    """A program's options: described by its docstring's first line, with `--out`."""
    parser = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    out = RESULTS / results if results else None
    parser.add_argument("--out", type=Path, default=out, help="file of the result")
    return parser


class Report:
    """Prints lines and writes them to `path`, if any: first the machine and packages' versions."""

    def __init__(self, path: Path | None, *packages: str) -> None:
        self._stream: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("w", encoding="utf-8")
        self(f"{Path(sys.argv[0]).name} {' '.join(a for a in sys.argv[1:] if '/' not in a)}")
        self(f"machine: {describe_machine()}")
        self(f"versions: {', '.join(_versions('citepipe', *packages))}")

    def __call__(self, line: str = "") -> None:
        """One line."""
        print(line, flush=True)
        if self._stream is not None:
            print(line, file=self._stream, flush=True)


def describe_machine() -> str:
    """Processor, cores, memory, and the GPU and threads if torch is loaded."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        processor = next(named, processor)
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = f"{processor}, {cores} cores, {memory:.0f} GiB"
    if "torch" in sys.modules:
        import torch

        words += f", {torch.get_num_threads()} threads"
        if torch.cuda.is_available():
            words += f"; {torch.cuda.get_device_name()}"
    return words


def _versions(*packages: str) -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for package in packages:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"no {package}"


class Clock:
    """Seconds by name, of several rounds; a GPU is waited for."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Time a block."""
        wait(self.device)
        began = time.perf_counter()
        yield
        wait(self.device)
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that times itself."""

        def run(*arguments: Any, **more: Any) -> Any:
            with self.timing(name):
                return function(*arguments, **more)

        return run

    def turns(
        self, ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: bool = True
    ) -> None:
        """Time the ways by turns; the first round is not counted if it is to warm up."""
        for round_ in range(rounds + warm_up):
            for name, way in ways.items():
                with self.timing(name):
                    way()
            if warm_up and round_ == 0:
                self.seconds.clear()

    def median(self, name: str) -> float:
        """The middle one of its rounds."""
        return statistics.median(self.seconds[name])


class Ratio(NamedTuple):
    """How many times as long one way takes as another: of the medians, and over the rounds."""

    middle: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
        """Of the seconds of rounds by turns."""
        each = [a / b for a, b in zip(theirs, ours, strict=True)]
        return cls(statistics.median(theirs) / statistics.median(ours), min(each), max(each))

    def __str__(self) -> str:
        return f"{self.middle:.1f} times ({self.lowest:.1f} to {self.highest:.1f})"


def wait(device: str) -> None:
    """Until a GPU has done its work; a CPU always has."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def matmul_rate(
    device: str, dtype: torch.dtype, size: int = MATMUL_SIZE, repeats: int = 7
) -> float:
    """Operations per second of the product of two square matrices of `size` rows: the median of
    some, after two untimed ones."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    clock = Clock(device)
    for _ in range(repeats + 2):
        with clock.timing("product"):
            torch.matmul(left, right)
    return 2 * size**3 / statistics.median(clock.seconds["product"][2:])


def decoder_operations(
    config: PretrainedConfig, read: Iterable[tuple[int, Sequence[int]]]
) -> tuple[float, float]:
    """Floating-point operations of a decoder of Llama's kind: of a forward pass, and of one with a
    backward pass behind it, through all weights but to none.

    Counted are the matrix products, without padding: two operations per weight and token, and
    attention's; the output matrix is needed for answers' tokens. `read` has the tokens of prompts,
    and of the answers to each.
    """
    inner = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer = config.hidden_size * (2 * inner + 2 * keys + 3 * config.intermediate_size)
    products = attention = 0.0
    for n, answers in read:
        products += 2 * config.num_hidden_layers * layer * (n + sum(answers))
        products += 2 * config.hidden_size * config.vocab_size * sum(answers)
        seen = n * (n + 1) / 2 + sum(a * n + a * (a + 1) / 2 for a in answers)
        attention += 4 * config.num_hidden_layers * inner * seen
    return products + attention, 2 * products + 3 * attention


def verdict(reached: bool) -> str:
    """Whether a bar was reached, in words."""
    return "reached" if reached else "NOT REACHED"


def told_bound(seconds: float, rate: float) -> str:
    """Operations, the rate, and what they come to."""
    return f"{seconds * rate / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s take {seconds:.3f} s"
