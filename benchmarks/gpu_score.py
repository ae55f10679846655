"""Scoring on a GPU at the size of TRUE's smaller sisters: T5-XL, 3 billion parameters.

    benchmarks/gpu.sh            # on a machine with a GPU, under ten minutes
    benchmarks/gpu.sh --small    # the same program at a toy size, without one

Weights are random and built in place: no hub, no download. What is measured: citepipe's verifier on
the pairs that some hundred answers ask for, against one pair at a time through
`generate(max_new_tokens=10)` as ALCE's program does it; how often the two decide otherwise, which
near a tie they may in 16 bits; the rate at which this machine multiplies matrices in the same run,
and how much of it the verifier reaches; loading in 4 bits; and going on when memory runs out.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tiny_t5
from bound import encoder_operations, matmul_rate, wait
from machine import RESULTS, Report
from odd_answers import wordy_examples
from parity import labelled_pairs

from citepipe.errors import InputError
from citepipe.verify.base import Pair, Verifier, load_verifier

if TYPE_CHECKING:
    from transformers import T5Config


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        shape: of the T5.
        answers: whose pairs are asked.
        words: of a passage; pairs of one to three passages then have about 170 to 500 tokens.
        single_seconds: how long single pairs are timed; the rest is extrapolated.
        matmul: rows of the matrices that the machine's rate is measured with.
    """

    shape: dict[str, Any]
    answers: int
    words: int
    single_seconds: float
    matmul: int


FULL = Sizes(tiny_t5.XL, 384, 140, 60.0, 8192)
SMALL = Sizes(tiny_t5.MINIATURE, 16, 40, 3.0, 512)
_CALIBRATION_PAIRS = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a toy size, on any machine")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.txt")
    arguments = parser.parse_args()
    import torch

    sizes = SMALL if arguments.small else FULL
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.small:
        print("gpu_score.py: no GPU here; --small runs without one", file=sys.stderr)
        return 1
    report = Report(arguments.out, "torch", "transformers", "bitsandbytes", "accelerate")
    with tempfile.TemporaryDirectory() as folder:
        measure(sizes, device, Path(folder) / "true", report)
    return 0


def measure(sizes: Sizes, device: str, directory: Path, report: Report) -> None:
    """Build the model and measure all of it.

    Args:
        sizes: how much.
        device: where.
        directory: for the model; is made.
        report: takes the lines.
    """
    import torch

    examples = wordy_examples(sizes.answers, sizes.words, several=0.3, seed=5)
    pairs = list(labelled_pairs(examples))
    random.Random(0).shuffle(pairs)
    began = time.perf_counter()
    config, parameters = _save_model(sizes, device, directory, pairs)
    report(f"{parameters / 1e6:.0f} M parameters, built and saved in {_since(began)}")
    began = time.perf_counter()
    verifier = load_verifier(f"{directory}?dtype=bfloat16", None, device)
    report(f"loaded in {_since(began)}, bfloat16, {device}")
    verifier.entails(pairs[:8])
    rate = matmul_rate(device, torch.bfloat16, sizes.matmul)
    began = time.perf_counter()
    decisions = verifier.entails(pairs)
    wait(device)
    batched = time.perf_counter() - began
    single = _Single(directory, device)
    lengths = [single.length(pair) for pair in pairs]
    report()
    report(
        f"scoring: {sizes.answers} answers, {len(pairs)} distinct pairs of "
        f"{statistics.median(lengths):.0f} tokens ({min(lengths)} to {max(lengths)}), "
        f"{sum(decisions) / len(pairs):.0%} entailed"
    )
    report(f"  batched: {batched:.2f} s, {1000 * batched / len(pairs):.2f} ms a pair")
    began = time.perf_counter()
    alone: list[bool] = []
    while len(alone) < len(pairs) and time.perf_counter() - began < sizes.single_seconds:
        alone.append(single.entails(pairs[len(alone)]))
    each = (time.perf_counter() - began) / len(alone)
    told = "all" if len(alone) == len(pairs) else f"{len(alone)} of them, extrapolated per pair"
    report(f"  one at a time through generate: {1000 * each:.2f} ms a pair ({told})")
    report(f"  batched is {each * len(pairs) / batched:.1f} times as quick")
    flips = sum(a != b for a, b in zip(alone, decisions, strict=False))
    report(f"  decided otherwise: {flips} of {len(alone)} ({flips / len(alone):.2%}), 16 bits")
    operations = encoder_operations(config, lengths)
    report(
        f"  bound: {operations / 1e12:.2f} TFLOP of the encoder at {rate / 1e12:.2f} TFLOP/s "
        f"(product of matrices of {sizes.matmul} rows, bfloat16) is {operations / rate:.3f} s; "
        f"batched reaches {operations / rate / batched:.0%} of it"
    )
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        report(f"  most memory held: {peak:.1f} GiB, both models")
    del single
    _free()
    if device == "cuda":
        _shortage(verifier, pairs, decisions, report)
    else:
        report("memory running out: needs a GPU")
    del verifier
    _free()
    _four_bits(directory, device, pairs, decisions, report)


class _Single:
    """One pair at a time, as ALCE's program does it."""

    def __init__(self, directory: Path, device: str) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        model = AutoModelForSeq2SeqLM.from_pretrained(directory, dtype=torch.bfloat16)
        self._model = model.to(device).eval()

    def entails(self, pair: Pair) -> bool:
        import torch

        ids = self._tokenizer(tiny_t5.asked(pair), return_tensors="pt").input_ids
        with torch.inference_mode():
            said = self._model.generate(ids.to(self._model.device), max_new_tokens=10)
        return bool(self._tokenizer.decode(said[0], skip_special_tokens=True) == "1")

    def length(self, pair: Pair) -> int:
        return len(self._tokenizer(tiny_t5.asked(pair)).input_ids)


def _save_model(
    sizes: Sizes, device: str, directory: Path, pairs: Sequence[Pair]
) -> tuple[T5Config, int]:
    """Random weights in bfloat16, made where they will run; configuration and parameters."""
    import torch

    size = tiny_t5.save_tokenizer(map(tiny_t5.asked, pairs), directory, size=tiny_t5.VOCABULARY)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = tiny_t5.random_t5(size, sizes.shape, seed=3)
    finally:
        torch.set_default_dtype(before)
    tiny_t5.let_it_answer(model, directory, pairs[:_CALIBRATION_PAIRS])
    model.save_pretrained(directory)
    config, parameters = model.config, sum(weights.numel() for weights in model.parameters())
    del model
    _free()
    return config, parameters


def _shortage(
    verifier: Verifier, pairs: Sequence[Pair], decisions: Sequence[bool], report: Report
) -> None:
    """Let the process have little more than the weights, so that the first batch does not fit."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    held = torch.cuda.memory_allocated()
    report()
    try:
        for spare in (1024, 256, 64):
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction((held + spare * 2**20) / total)
            began = time.perf_counter()
            try:
                again = verifier.entails(pairs)
            except InputError as error:
                report(f"memory running out, {spare} MiB beside the weights: {error}")
                continue
            flips = sum(a != b for a, b in zip(again, decisions, strict=True))
            report(
                f"memory running out, {spare} MiB beside the weights: went on, {_since(began)}, "
                f"{flips} of {len(pairs)} decided otherwise"
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _four_bits(
    directory: Path, device: str, pairs: Sequence[Pair], decisions: Sequence[bool], report: Report
) -> None:
    import torch

    report()
    if importlib.util.find_spec("bitsandbytes") is None:
        report("4 bits: bitsandbytes is not installed")
        return
    some = pairs[: max(len(pairs) // 4, 1)]
    held = torch.cuda.memory_allocated() if device == "cuda" else 0
    began = time.perf_counter()
    verifier = load_verifier(f"{directory}?dtype=4bit", None, device)
    loaded = _since(began)
    began = time.perf_counter()
    quantised = verifier.entails(some)
    each = 1000 * (time.perf_counter() - began) / len(some)
    flips = sum(a != b for a, b in zip(quantised, decisions, strict=False))
    memory = ""
    if device == "cuda":
        memory = f", {(torch.cuda.memory_allocated() - held) / 2**30:.1f} GiB"
    report(
        f"4 bits: loaded in {loaded}{memory}; {each:.2f} ms a pair over {len(some)} pairs; "
        f"{flips / len(some):.0%} decided otherwise than in 16 bits (random weights)"
    )


def _since(began: float) -> str:
    return f"{time.perf_counter() - began:.1f} s"


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    raise SystemExit(main())
