"""What needs a GPU: verification, training and sampling at the size of LLaMA-2-7B and T5-XL.

    benchmarks/gpu.sh            # on one GPU of 80 GiB or more, under ten minutes
    benchmarks/gpu.sh --small    # the same program at a toy size, without one

Weights are random and built in place: no hub, no download. Measured are

- verification by a T5 of three billion weights, batched, against one pair at a time through
  `generate(max_new_tokens=10)` as ALCE's program does it; how often the two decide otherwise, which
  near a tie they may in 16 bits;
- a step of supervised fine-tuning (LoRA on a base in bfloat16), as a share of the rate at which
  this machine multiplies matrices;
- a step of PPO, and the segment-level search, against the paper's way of them;
- tokens per second against `model.generate`.

Random weights write nothing that ends or could be rewarded. Both ways sample in earnest; in the
place of the sampled text stand statements from the question's own passages with citations, the same
for both ways. Parts come in the order of their weight; `gpu.sh` ends what takes too long.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import generate
import plain_search
import torch
from common import (
    Clock,
    Report,
    argument_parser,
    decoder_operations,
    matmul_rate,
    told_bound,
    verdict,
)
from entailment import (
    MINIATURE,
    VOCABULARY,
    XL,
    OneByOne,
    labelled_pairs,
    make_random,
    save_tokenizer,
)
from odd_answers import wordy_examples
from sample import PARTS, Questions, our_way, paper_way
from train import PPOComparison, SFTComparison, load_actor, tell_step

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Request
from citepipe.generate.text import Cut
from citepipe.models import load, save
from citepipe.models.encode import encode_prompt
from citepipe.models.pretrained import Checkpoint
from citepipe.options import (
    AdapterOptions,
    ModelOptions,
    PPOOptions,
    PromptOptions,
    SegmentSearchOptions,
)
from citepipe.sample import segment_search
from citepipe.train.batch import Row
from citepipe.verify.models import Seq2SeqVerifier

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_STATEMENT = 28
"""Tokens of a statement."""
_SINGLE_PAIRS = 40
"""Verified one at a time in a step of PPO; the rest is extrapolated."""
_SINGLE_SECONDS = 20.0
"""For which single pairs are timed; the rest is extrapolated."""
_BAR_SHARE, _BAR_SEARCH = 0.4, 10.0


class Sizes(NamedTuple):
    """How much is measured.

    Attributes:
        layers, hidden, inner, heads, vocabulary: the base model's shape.
        verifier: the entailment model's.
        rank: of the adapters.
        words: of a passage.
        answers: whose pairs are verified.
        limits: tokens that the paper's way pads prompts and answers to.
        sft_answers: answers of a step of fine-tuning.
        questions: of a step of PPO, with four answers each; the paper's, and more.
        searched: questions that are searched the paper's way, and ours.
        matmul: rows of the matrices that the machine's rate is measured with.
    """

    layers: int = 32
    hidden: int = 4096
    inner: int = 11008
    heads: int = 32
    vocabulary: int = 32000
    verifier: dict[str, Any] = XL
    rank: int = 64
    words: int = 135
    answers: int = 384
    limits: tuple[int, int] = (1200, 200)
    sft_answers: int = 32
    questions: tuple[int, int] = (2, 8)
    searched: tuple[int, int] = (4, 64)
    matmul: int = 8192


_SMALL = Sizes(2, 64, 128, 4, 4000, MINIATURE, 4, 40, 16, (500, 60), 8, (2, 4), (2, 8), 512)


def statements(example: Example, rng: random.Random, count: int) -> str:
    """Some statements of the documents' words, each with a citation or, of three in ten, three."""
    written = []
    for _ in range(count):
        cited = rng.sample(range(len(example.docs)), 3)[: 3 if rng.random() < 0.3 else 1]
        words = example.docs[cited[0]].text.replace(".", "").split()
        begin = rng.randrange(max(1, len(words) - _STATEMENT))
        marks = "".join(f"[{place + 1}]" for place in cited)
        written.append(" ".join(words[begin : begin + _STATEMENT - 6]) + f" {marks}.")
    return " ".join(written)


def scripted(examples: Sequence[Example]) -> Callable[..., Completion]:
    """In the place of `Cut.completion`: the sampled tokens with another text, which they decide:
    one statement for a segment, else as many as an answer of so many tokens has."""
    own = Cut.completion

    def completion(cut: Cut, *arguments: Any) -> Completion:
        sampled = own(cut, *arguments)
        tokens = len(sampled.token_ids)
        rng = random.Random(str(sampled.token_ids))
        count = 1 if cut.segment_end else max(1, tokens // _STATEMENT)
        text = f" {statements(rng.choice(examples), rng, count)}"
        ends = [len(text) * (i + 1) // tokens for i in range(tokens)]
        return replace(sampled, text=text, offsets=tuple(zip([0, *ends], ends, strict=False)))

    return completion


def training_operations(config: PretrainedConfig, rows: Sequence[Row], adapter: int) -> float:
    """Floating-point operations of a forward and a backward pass, which goes to an adapter."""
    tokens = [(len(row.prompt), [len(row.answer)]) for row in rows]
    read = sum(prompt + answer for prompt, (answer,) in tokens)
    return decoder_operations(config, tokens)[1] + 6 * adapter * read


class Measurement:
    """All parts, one after the other.

    Args:
        sizes: how much is measured.
        device: where.
        folder: for models.
        report: takes the lines.

    Attributes:
        failures: parts that went wrong.
    """

    def __init__(self, sizes: Sizes, device: str, folder: Path, report: Report) -> None:
        self.sizes, self.device, self.folder, self.report = sizes, device, folder, report
        self.failures = 0
        drawn = wordy_examples(max(sizes.answers, *sizes.searched), sizes.words, 0.3, seed=5)
        rng = random.Random(7)
        per_answer = max(1, sizes.limits[1] // _STATEMENT)
        self.examples = [
            replace(example, id=str(n), output=statements(example, rng, per_answer))
            for n, example in enumerate(drawn)
        ]
        self.prompt = PromptOptions(max_input_tokens=sizes.limits[0])
        self.model = ModelOptions(
            base=str(folder / "base"),
            dtype="bfloat16" if device == "cuda" else "float32",
            adapter=AdapterOptions(r=sizes.rank, alpha=16, dropout=0.1),
        )
        self.dtype = getattr(torch, self.model.dtype)
        self.tokenizer: Any = self._save_base(folder / "base")
        self.prompts = [
            encode_prompt(example, self.prompt, self.tokenizer).token_ids
            for example in self.examples
        ]
        # Weights come from a generator and not from files.
        load.load_base = self._build_base
        load.device = lambda: torch.device(device)  # type: ignore[assignment]
        self.pairs = list(labelled_pairs(drawn))
        rng.shuffle(self.pairs)
        self.entailment = make_random(
            folder / "true", self.pairs, sizes.verifier, VOCABULARY, device, self.dtype
        )
        name, (_, model, tokenizer) = str(folder / "true"), self.entailment
        checkpoint = Checkpoint(name, None, True, self.model.dtype, model, tokenizer)
        self.verifier = Seq2SeqVerifier(checkpoint, "true")
        self.rate = matmul_rate(device, self.dtype, sizes.matmul)
        report(f"rate: {self.rate / 1e12:.2f} TFLOP/s, {sizes.matmul} rows in {self.model.dtype}")

    def run(self) -> None:
        """Measure, and report as it comes."""
        with self._part("verification"):
            self._verify()
        with self._part("supervised fine-tuning"):
            self._fine_tuning()
        model = self.model.model_copy(update={"gradient_checkpointing": True})
        for questions in self.sizes.questions:
            with self._part(f"PPO, {questions} questions, 4 answers each"):
                self._ppo(questions, model)
        base = self._build_base(self.model)
        with self._part("segment search"):
            self._search(base)
        with self._part("tokens per second"):
            cases = [
                generate.Case(8, 1, 8, self.sizes.limits[0] // 2, (32,)),
                generate.Case(16, 16, 128, self.sizes.limits[0] // 2, (8, 16, 32, 64)),
            ]
            generate.measure(generate.Speed(base, self.tokenizer), cases, 1, self.report)

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """Report a part's time and memory; if it fails, the others are still worth having."""
        self.report(f"\n{name}")
        on_gpu = self.device == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.report(f"  failed: {type(error).__name__}: {str(error).splitlines()[:1]}")
            self.failures += 1
        gc.collect()
        peak = f", at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else ""
        self.report(f"  ({time.perf_counter() - began:.0f} s{peak})")
        if on_gpu:
            torch.cuda.empty_cache()

    def _verify(self) -> None:
        report, pairs, clock = self.report, self.pairs, Clock(self.device)
        self.verifier.entails(pairs[:8])
        with clock.timing("batched"):
            decisions = self.verifier.entails(pairs)
        batched = clock.median("batched")
        lengths = self.entailment.lengths(pairs)
        report(
            f"  {len(pairs)} distinct pairs of {statistics.median(lengths):.0f} tokens "
            f"({min(lengths)} to {max(lengths)}), {sum(decisions) / len(pairs):.0%} entailed"
        )
        single, alone = OneByOne(self.entailment), list[bool]()
        began = time.perf_counter()
        while len(alone) < len(pairs) and time.perf_counter() - began < _SINGLE_SECONDS:
            alone.append(single.decide(pairs[len(alone)]))
        each = (time.perf_counter() - began) / len(alone)
        report(
            f"  batched: {1000 * batched / len(pairs):.2f} ms a pair; one at a time through "
            f"generate: {1000 * each:.2f} ms ({len(alone)} pairs); batched is "
            f"{each * len(pairs) / batched:.1f} times as quick"
        )
        report(f"  decided otherwise: {_flips(alone, decisions)}, {self.model.dtype}")
        bound = self.entailment.operations(pairs) / self.rate
        report(
            f"  bound: the encoder's {told_bound(bound, self.rate)}: {bound / batched:.0%} of it"
        )

    def _fine_tuning(self) -> None:
        comparison = SFTComparison(
            self.model,
            None,
            self.tokenizer,
            self.examples[: self.sizes.sft_answers],
            self.prompt,
            self.sizes.limits,
            self.folder / "sft",
        )
        comparison.clock.turns({"ours": lambda: comparison.step("ours")}, 3)
        config = load.language_model_of(comparison.learner).config.get_text_config()
        adapter = sum(parameter.numel() for parameter in comparison.learning)
        bound = training_operations(config, comparison.rows, adapter) / self.rate
        seconds = comparison.clock.median("ours")
        share = bound / seconds
        self.report(
            f"  {comparison.tokens} tokens a step; needed: {told_bound(bound, self.rate)}\n"
            f"  {seconds:.2f} s a step, {comparison.tokens / seconds:.0f} tokens/s, {share:.0%} of "
            f"the rate; bar {_BAR_SHARE:.0%}, {verdict(share >= _BAR_SHARE)}"
        )

    def _ppo(self, questions: int, model: ModelOptions) -> None:
        comparison = PPOComparison(
            model,
            load_actor(model, self._adapter()),
            self.tokenizer,
            PPOOptions(
                prompts_per_step=questions,
                samples_per_prompt=4,
                max_new_tokens=self.sizes.limits[1],
            ),
            self.verifier,
            OneByOne(self.entailment, most=_SINGLE_PAIRS),
            self.examples,
            self.prompt,
            self.sizes.limits[0],
        )
        # A few tokens both ways, so that no first call is timed.
        comparison.generator.generate([Request(comparison.prompts[0], "warm", 8)])
        longest, comparison.paper.max_answer = comparison.paper.max_answer, 8
        comparison.paper.sample(comparison.prompts[:1], 4, 0.7, 20)
        comparison.paper.max_answer = longest
        with patch.object(Cut, "completion", scripted(self.examples)):
            rollout, targets = comparison.ours(0)
        comparison.paper_way(0, rollout, targets)
        pairs = len(comparison.one_by_one.queried)
        self.report(f"  {pairs} pairs; one at a time {_SINGLE_PAIRS} at most, extrapolated")
        tell_step(comparison, rollout, self.report)

    def _search(self, base: Any) -> None:
        # Random weights end no sentence: a segment ends after about as many characters as a
        # statement has.
        ids = list(range(len(self.tokenizer)))
        width = statistics.mean(map(len, self.tokenizer.convert_ids_to_tokens(ids)))
        characters = int(width * _STATEMENT)

        def end(text: str, listing: bool, splitter: object) -> int | None:
            return characters if len(text) > characters else None

        segment_search.segment_end = plain_search.segment_end = end
        options = SegmentSearchOptions(max_new_tokens=self.sizes.limits[1])
        few, many = (
            Questions(self.examples[:count], self.prompts[:count], base, self.tokenizer)
            for count in self.sizes.searched
        )
        with patch.object(Cut, "completion", scripted(self.examples)):
            theirs = paper_way(few, options, OneByOne(self.entailment))
            self.report(f"  the paper's way, {len(few.examples)} questions: {theirs}")
            # So that no first call is timed.
            our_way(few, options, self.verifier)
            ours = our_way(many, options, self.verifier)
            self.report(f"  ours, {len(many.examples)} questions: {ours}")
        more = len(ours.found) / len(theirs.found)
        ratios = {part: more * theirs.seconds[part] / ours.seconds[part] for part in PARTS}
        told = ", ".join(f"{part} {ratio:.1f}" for part, ratio in ratios.items())
        reached = verdict(ratios["whole"] >= _BAR_SEARCH)
        self.report(f"  a question, times as quick: {told}; bar {_BAR_SEARCH:g}, {reached}")
        apart = sum(a != b for a, b in zip(ours.found, theirs.found, strict=False))
        self.report(f"  of {len(theirs.found)} answered both ways, with other answers: {apart}")

    def _save_base(self, directory: Path) -> PreTrainedTokenizerBase:
        """The base model's configuration and tokenizer."""
        from transformers import LlamaConfig

        texts = [self.prompt.instruction, self.prompt.demo_prompt, self.prompt.doc_prompt]
        for example in self.examples:
            texts += [example.question, example.output or "", *(d.text for d in example.docs)]
        sizes = self.sizes
        tokenizer = save_tokenizer(texts, directory, sizes.vocabulary // 2, sizes.vocabulary)
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.hidden,
            intermediate_size=sizes.inner,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            max_position_embeddings=4096,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        ).save_pretrained(directory)
        return tokenizer

    def _build_base(self, options: ModelOptions, dtype: str | None = None) -> PreTrainedModel:
        """In the place of `load_base`: random weights, made where they will run."""
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(options.base)
        kind = getattr(torch, dtype or options.dtype)
        with torch.device(self.device):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=kind)
        return model.eval()

    def _adapter(self) -> Path:
        """A new adapter."""
        directory = self.folder / "adapter"
        if not directory.exists():
            directory.mkdir()
            save.save_model(load.load_trainable(self.model, None), directory)
        return directory


def _flips(ours: Sequence[bool], others: Sequence[bool]) -> str:
    """How many of the first decisions differ."""
    return f"{sum(a != b for a, b in zip(ours, others, strict=False))} of {len(ours)}"


def main() -> int:
    parser = argument_parser(__doc__, "gpu.txt")
    parser.add_argument("--small", action="store_true", help="a toy size, on any machine")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.small:
        print("gpu.py: no GPU here; --small runs without one", file=sys.stderr)
        return 1
    report = Report(arguments.out, "torch", "transformers", "peft", "bitsandbytes")
    with tempfile.TemporaryDirectory() as folder:
        sizes = _SMALL if arguments.small else Sizes()
        measurement = Measurement(sizes, device, Path(folder), report)
        measurement.run()
    return 1 if measurement.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
