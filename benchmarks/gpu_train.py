"""Training on a GPU at the size of LLaMA-2-7B, with a verifier of the size of T5-XL.

    SECTIONS=train benchmarks/gpu.sh            # on a machine with a GPU, under four minutes
    SECTIONS=train benchmarks/gpu.sh --small    # the same program at a toy size, without one

Weights are random and built in place: no hub, no download. Measured are a step of supervised
fine-tuning (LoRA on a base in bfloat16) in tokens per second and as a share of the rate at which
this machine multiplies matrices, and a step of PPO against the paper's way of it, with the memory
that it takes. Random weights write nothing that could be rewarded: both ways sample in earnest, and
go on with answers of as many tokens that are put in the place of what was sampled.

Each part has a time of its own; what was not reached by then is left out.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import random
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import tiny_t5
import torch
from bound import matmul_rate
from machine import RESULTS, Report
from odd_answers import wordy_examples
from paper_training import OneByOne
from parity import labelled_pairs
from train import (
    PARTS,
    Comparison,
    Entailment,
    SFTComparison,
    build,
    load_actor,
    tell_bounds,
    tell_operators,
    tell_step,
    told_bound,
    told_padding,
)

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Done, Generator, Request, Sampling
from citepipe.generate.text import Detokenizer
from citepipe.models import load, save
from citepipe.options import AdapterOptions, ModelOptions, PPOOptions, PromptOptions, SFTOptions
from citepipe.train import sft
from citepipe.train.actor_critic import ActorCritic
from citepipe.verify.base import Pair
from citepipe.verify.models import Seq2SeqVerifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        llama: the base model's shape.
        verifier: the entailment model's.
        rank: of the adapters.
        words: of a passage.
        max_prompt: tokens that the paper's way pads prompts to.
        max_answer: tokens of an answer, at most.
        sft_answers: answers of a step of fine-tuning.
        questions: of a step of PPO, with four answers each; the paper's, and more.
        single_pairs: pairs that are verified one at a time; the rest is extrapolated.
        matmul: rows of the matrices that the machine's rate is measured with.
    """

    llama: dict[str, int]
    verifier: dict[str, Any]
    rank: int
    words: int
    max_prompt: int
    max_answer: int
    sft_answers: int
    questions: tuple[int, int]
    single_pairs: int
    matmul: int


FULL = Sizes(
    {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
        "vocab_size": 32000,
    },
    tiny_t5.XL,
    64,
    135,
    1200,
    200,
    32,
    (2, 8),
    40,
    8192,
)
SMALL = Sizes(
    {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "vocab_size": 4000,
    },
    tiny_t5.MINIATURE,
    4,
    40,
    500,
    60,
    8,
    (2, 4),
    20,
    512,
)
_BAR_SHARE, _BAR_RATIO, _BAR_MEMORY = 0.4, 4.0, 40.0
_TOKENS_PER_STATEMENT = 28
_CALIBRATION_PAIRS = 64
_WARM_UP = 8
# Seconds.
_LIMITS = {"sft": 50, "loading": 60}
_LIMITS_PPO = (45, 70)

_verifiers: dict[str, Entailment] = {}


class OutOfTimeError(Exception):
    """A part took longer than it may."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a toy size, on any machine")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_train.txt")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.small:
        print("gpu_train.py: no GPU here; --small runs without one", file=sys.stderr)
        return 1
    report = Report(arguments.out, "torch", "transformers", "peft", "bitsandbytes")
    sizes = SMALL if arguments.small else FULL
    with tempfile.TemporaryDirectory() as folder:
        measurement = Measurement(sizes, device, Path(folder), report)
        measurement.run()
    return 1 if measurement.failures else 0


class Measurement:
    """All parts, one after the other.

    Args:
        sizes: how much.
        device: where.
        folder: for configurations, tokenizers and adapters.
        report: takes the lines.

    Attributes:
        failures: parts that went wrong.
    """

    def __init__(self, sizes: Sizes, device: str, folder: Path, report: Report) -> None:
        self.sizes, self.device, self.folder, self.report = sizes, device, folder, report
        self.failures = 0
        count = max(sizes.sft_answers, 2 * sizes.questions[1])
        self.examples = _long_answers(wordy_examples(count, sizes.words, 0.3, seed=5), sizes)
        self.prompt = PromptOptions(max_input_tokens=sizes.max_prompt)
        self.tokenizer = self._save_base(folder / "base")
        self.model = ModelOptions(
            base=str(folder / "base"),
            dtype="bfloat16" if device == "cuda" else "float32",
            adapter=AdapterOptions(r=sizes.rank, alpha=16, dropout=0.1),
        )
        self.rate = matmul_rate(device, getattr(torch, self.model.dtype), sizes.matmul)
        report(
            f"rate: {self.rate / 1e12:.2f} TFLOP/s, product of matrices of {sizes.matmul} rows in "
            f"{self.model.dtype}"
        )

    def run(self) -> None:
        """Measure, and report as it comes."""
        # Weights come from a generator and not from files.
        load.load_base = self._build_base
        self._part("supervised fine-tuning", _LIMITS["sft"], self._fine_tuning)
        loaded = self._load()
        if loaded is None:
            return
        for questions, limit in zip(self.sizes.questions, _LIMITS_PPO, strict=True):
            self._part(
                f"PPO, {questions} questions, 4 answers each",
                limit,
                lambda questions=questions: self._ppo(questions, *loaded),  # type: ignore[misc]
            )

    def _load(self) -> tuple[ActorCritic, ModelOptions] | None:
        """The models of PPO, the base in 4 bits if that can be done here."""
        models = [self.model.model_copy(update={"gradient_checkpointing": True})]
        if self.device == "cuda" and importlib.util.find_spec("bitsandbytes") is not None:
            models.insert(0, models[0].model_copy(update={"quantization": "4bit"}))
        found: list[tuple[ActorCritic, ModelOptions]] = []
        for model in models:
            bits = "4 bits" if model.quantization == "4bit" else model.dtype
            self._part(
                f"loading: base in {bits}, three adapters of rank {self.sizes.rank}",
                _LIMITS["loading"],
                lambda model=model: found.append((load_actor(model, self._adapter()), model)),  # type: ignore[misc]
            )
            if found:
                return found[0]
        return None

    def _part(self, name: str, limit: int, measure: Callable[[], None]) -> None:
        self.report()
        self.report(name)
        began = time.perf_counter()
        try:
            with _limited(limit):
                measure()
        except OutOfTimeError:
            self.report(f"  stopped after {limit} s")
        except Exception as error:
            # The other parts are worth having all the same.
            traceback.print_exc()
            self.report(f"  failed: {type(error).__name__}: {str(error).splitlines()[:1]}")
            self.failures += 1
        self.report(f"  ({time.perf_counter() - began:.0f} s)")
        _free()

    def _fine_tuning(self) -> None:
        sizes, report = self.sizes, self.report
        items = sft.encode_examples(
            self.examples[: sizes.sft_answers], self.prompt, self.tokenizer, sizes.max_answer
        )
        comparison = SFTComparison(
            self.model,
            None,
            self.tokenizer,
            items,
            SFTOptions(max_steps=1, batch_size=len(items)),
            sizes.max_prompt + sizes.max_answer,
            self.folder / "sft",
        )
        tokens = sum(row.length for item in items for row in item.rows)
        bound = comparison.bound(self.rate)
        report(
            f"  {len(items)} answers, with their prompts {tokens / len(items):.0f} tokens; needed: "
            f"{told_bound(bound, self.rate)}"
        )
        language_model = load.language_model_of(comparison.learner)
        for told in ("activations kept", "gradient checkpointing"):
            if told == "gradient checkpointing":
                language_model.gradient_checkpointing_enable({"use_reentrant": False})
                language_model.enable_input_require_grads()
            comparison.step("ours")
            comparison.clock.seconds.clear()
            self._reset_memory()
            for _ in range(3):
                comparison.step("ours")
            seconds = comparison.clock.median("ours")
            share = bound / seconds
            verdict = "reached" if share >= _BAR_SHARE else "NOT REACHED"
            report(
                f"  {told}: {seconds:.2f} s a step, {tokens / seconds:.0f} tokens/s, {share:.0%} "
                f"of the rate (bar {_BAR_SHARE:.0%}, {verdict}){self._told_memory()}"
            )
            if told == "activations kept":
                tell_operators(lambda: comparison.step("ours"), self.device, report)

    def _ppo(self, questions: int, actor: ActorCritic, model: ModelOptions) -> None:
        sizes, report = self.sizes, self.report
        options = PPOOptions(
            prompts_per_step=questions, samples_per_prompt=4, max_new_tokens=sizes.max_answer
        )
        entailment = self._verifier()
        comparison = build(
            model,
            actor,
            self.tokenizer,
            options,
            f"gpu_train:built?{entailment.directory}",
            OneByOne(entailment.model, entailment.tokenizer, most=sizes.single_pairs),
            self.examples,
            self.prompt,
            sizes.max_prompt,
        )
        self._warm_up(comparison)
        scripted = Scripted(comparison.generator, self.tokenizer, comparison.prompts, self.examples)
        comparison.generator = scripted
        self._reset_memory()
        rollout, targets = comparison.ours(0)
        comparison.sampled["ours"] = [scripted.sampled]
        clock = comparison.clocks["ours"]
        report("  ours: " + ", ".join(f"{p} {clock.median(p):.2f} s" for p in (*PARTS, "step")))
        if self.device == "cuda":
            self._tell_memory_of_step(comparison)
        operations = entailment.operations(_pairs_of(comparison, rollout))
        tell_bounds(comparison, rollout, operations, self.rate, report)
        comparison.one_by_one.asked.clear()
        try:
            comparison.paper_way(0, rollout, targets)
        except OutOfTimeError:
            spent = comparison.clocks["paper"].seconds
            told = ", ".join(f"{part} {each[0]:.2f} s" for part, each in spent.items())
            report(f"  the paper's way, as far as it came: {told or 'no part'}")
            raise
        pairs = len(comparison.one_by_one.asked)
        prompts = statistics.mean(len(sample.row.prompt) for sample in rollout.samples)
        report(
            f"  prompts of {prompts:.0f} tokens (limit {sizes.max_prompt}), answers of "
            f"{float(rollout.mask.sum(1).mean()):.0f} (limit {sizes.max_answer}), {pairs} distinct "
            f"pairs to verify, of which the paper's way asked {min(pairs, sizes.single_pairs)}, "
            "extrapolated"
        )
        report(f"  {told_padding(comparison, rollout)}")
        tell_step(comparison, report, _BAR_RATIO)

    def _warm_up(self, comparison: Comparison) -> None:
        """A few tokens both ways, so that no first call is timed."""
        prompts = comparison.prompts[:2]
        sampling = Sampling(0.7, 20)
        requests = [
            Request(prompt, f"warm/{i}", _WARM_UP, sampling=sampling)
            for i, prompt in enumerate(prompts)
        ]
        comparison.generator.generate(requests)
        longest, comparison.paper.max_answer = comparison.paper.max_answer, _WARM_UP
        comparison.paper.sample(prompts, 4, 0.7, 20)
        comparison.paper.max_answer = longest

    def _tell_memory_of_step(self, comparison: Comparison) -> None:
        peak = torch.cuda.max_memory_allocated() / 2**30
        told = f"  most memory held in our step, verifier included: {peak:.1f} GiB"
        if comparison.model.quantization == "none":
            # NF4 with double quantisation takes 4.127 bits a weight.
            language_model: Any = load.language_model_of(comparison.actor.model)
            linear = sum(
                weights.numel()
                for name, weights in language_model.model.layers.named_parameters()
                if weights.dim() == 2 and "lora" not in name
            )
            peak -= linear * (2 - 4.127 / 8) / 2**30
            told += f" in bfloat16; with the base in 4 bits it would be {peak:.1f} GiB (computed)"
        verdict = "kept" if peak < _BAR_MEMORY else "NOT KEPT"
        self.report(f"{told}; bar {_BAR_MEMORY:g} GiB, {verdict}")

    def _save_base(self, directory: Path) -> PreTrainedTokenizerBase:
        """The base model's configuration and tokenizer."""
        from transformers import LlamaConfig

        texts = [self.prompt.instruction, self.prompt.demo_prompt, self.prompt.doc_prompt]
        for example in self.examples:
            texts += [example.question, example.output or "", *(d.text for d in example.docs)]
        vocabulary = self.sizes.llama["vocab_size"]
        shape: dict[str, Any] = {**self.sizes.llama}
        size = tiny_t5.save_tokenizer(texts, directory, vocabulary // 2, vocabulary)
        config = LlamaConfig(
            **shape | {"vocab_size": size}, pad_token_id=0, bos_token_id=None, eos_token_id=1
        )
        config.save_pretrained(directory)
        return load.load_tokenizer(ModelOptions(base=str(directory)))

    def _build_base(self, options: ModelOptions, dtype: str | None = None) -> PreTrainedModel:
        """In the place of `load_base`: random weights, made where they will run."""
        from transformers import AutoConfig, AutoModelForCausalLM

        if options.quantization == "4bit":
            # Quantised as it is read.
            if not list(Path(options.base).glob("*.safetensors")):
                self._build_base(self.model).save_pretrained(options.base)
            return _load_base(options, dtype)
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(options.base)
        kind = getattr(torch, dtype or options.dtype)
        with torch.device(self.device):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=kind)
        return model.eval()

    def _adapter(self) -> Path:
        """An adapter that changes what the base says."""
        directory = self.folder / "adapter"
        if not directory.exists():
            directory.mkdir()
            learner = load.load_trainable(self.model, None)
            generator = torch.Generator(self.device).manual_seed(1)
            with torch.no_grad():
                for name, weights in learner.named_parameters():
                    if "lora_B" in name:
                        weights.normal_(std=1e-3, generator=generator)
            save.save_model(learner, directory)
        return directory

    def _verifier(self) -> Entailment:
        """An entailment model with random weights, made where it will run."""
        directory = self.folder / "true"
        if str(directory) in _verifiers:
            return _verifiers[str(directory)]
        from transformers import AutoTokenizer

        pairs = list(labelled_pairs(self.examples))
        random.Random(0).shuffle(pairs)
        texts = [tiny_t5.asked(pair) for pair in pairs]
        size = tiny_t5.save_tokenizer(texts, directory, size=tiny_t5.VOCABULARY)
        before = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, self.model.dtype))
        try:
            with torch.device(self.device):
                model = tiny_t5.random_t5(size, self.sizes.verifier, seed=3)
        finally:
            torch.set_default_dtype(before)
        tiny_t5.let_it_answer(model, directory, pairs[:_CALIBRATION_PAIRS])
        tokenizer = AutoTokenizer.from_pretrained(directory)
        return _verifiers.setdefault(str(directory), Entailment(directory, model, tokenizer))

    def _reset_memory(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _told_memory(self) -> str:
        if self.device != "cuda":
            return ""
        return f", at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


class Scripted:
    """Samples in earnest, and hands over other answers.

    Args:
        generator: samples.
        tokenizer: of the answers.
        prompts: of the questions.
        examples: the questions, whose `output` is the answer; the first of a question's answers
            is its own, the others are those of the questions behind it.

    Attributes:
        sampled: tokens that were sampled in the last call.
    """

    def __init__(
        self,
        generator: Generator,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[tuple[int, ...]],
        examples: Sequence[Example],
    ) -> None:
        self._generator, self._tokenizer = generator, tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._places = {prompt: place for place, prompt in enumerate(prompts)}
        self._answers = [example.output or "" for example in examples]
        self.sampled = 0

    def generate(
        self,
        requests: Sequence[Request],
        done: Done | None = None,
        keep: bool = False,
    ) -> list[list[Completion]]:
        """See `Generator.generate`."""
        sampled = self._generator.generate(requests, done, keep)
        self.sampled = sum(len(own.token_ids) for answers in sampled for own in answers)
        return [
            [self._answer(request, number) for number in range(request.samples)]
            for request in requests
        ]

    def _answer(self, request: Request, number: int) -> Completion:
        place = (self._places[request.prompt] + number) % len(self._answers)
        ids: list[int] = self._tokenizer(
            f" {self._answers[place]}", add_special_tokens=False
        ).input_ids[: request.max_new_tokens]
        text, offsets = self._detokenizer.text_and_offsets(ids)
        return Completion(tuple(ids), text, tuple(offsets), (0.0,) * len(ids), "length")

    @property
    def capacity(self) -> int:
        """See `Generator.capacity`."""
        return self._generator.capacity

    def close(self) -> None:
        """See `Generator.close`."""
        self._generator.close()


def built(directory: str) -> Seq2SeqVerifier:
    """Our verifier over a model that was built here (a factory of `load_verifier`)."""
    from citepipe.models.pretrained import Checkpoint

    model, tokenizer = _verifiers[directory].model, _verifiers[directory].tokenizer
    dtype = str(model.dtype).removeprefix("torch.")
    return Seq2SeqVerifier(Checkpoint(directory, None, True, dtype, model, tokenizer), "true")


def _pairs_of(comparison: Comparison, rollout: Any) -> list[Pair]:
    """The distinct pairs that a rollout's rewards ask for."""
    counting = Counting()
    own, comparison.one_by_one = comparison.one_by_one, counting  # type: ignore[assignment]
    comparison.paper_rewards(0, rollout)
    comparison.one_by_one = own
    return counting.asked


class Counting:
    """A verifier that entails nothing and keeps what it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[Pair] = []

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """Nothing is entailed."""
        self.asked += pairs
        return [False] * len(pairs)


def _long_answers(examples: Sequence[Example], sizes: Sizes) -> list[Example]:
    """With answers of nearly as many words as an answer may have tokens: statements from the
    documents, each with a citation or three."""
    rng = random.Random(7)
    count = max(1, sizes.max_answer // _TOKENS_PER_STATEMENT)
    changed = []
    for example in examples:
        statements = []
        for _ in range(count):
            place = rng.randrange(len(example.docs))
            words = example.docs[place].text.replace(".", "").split()
            start = rng.randrange(max(1, len(words) - _TOKENS_PER_STATEMENT))
            chosen = words[start : start + _TOKENS_PER_STATEMENT - 2]
            others = rng.sample([n for n in range(len(example.docs)) if n != place], 2)
            cited = [place, *others] if rng.random() < 0.3 else [place]
            statements.append(" ".join(chosen) + " " + "".join(f"[{n + 1}]" for n in cited) + ".")
        changed.append(replace(example, output=" ".join(statements)))
    return changed


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Raise `OutOfTimeError` in a block that takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_load_base = load.load_base


if __name__ == "__main__":
    # Under its own name, by which `load_verifier` finds the verifier.
    from gpu_train import main as run

    raise SystemExit(run())
