"""How fast is generation beside `model.generate`, and beside what the machine allows?

    python benchmarks/generate.py

The same model, prompts, sampling and number of new tokens, in one process and by turns: citepipe's
generator, and `model.generate` of transformers in a loop over batches of the same size. Two models:
the miniature's, whose weights fit into a processor's cache, and one of about forty million random
weights, which are read from memory at every step. Ends of sequence are ignored, so that all answers
are of the length that is given.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from common import BASE, Clock, Ratio, Report, argument_parser
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from citepipe.generate.completion import Request, Sampling
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.models.load import load_tokenizer
from citepipe.options import ModelOptions

_SAMPLING = Sampling(temperature=1.0, top_k=50, seed=0)


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

    def prompts(self, case: Case) -> list[list[int]]:
        """Prompts that have nothing in common."""
        rng = random.Random(0)
        size = self.model.config.vocab_size
        return [rng.choices(range(5, size), k=case.prompt) for _ in range(case.prompts)]

    def ours(self, case: Case) -> None:
        """All of a case by citepipe's generator."""
        generator = HuggingFaceGenerator(self.model, self.tokenizer, case.batch, stop=())
        generator.end_ids = frozenset()
        requests = []
        lengths = itertools.cycle(case.lengths)
        for number, prompt in enumerate(map(tuple, self.prompts(case))):
            for sample in range(case.samples):
                key = f"{number}/{sample}"
                requests.append(Request(prompt, key, next(lengths), sampling=_SAMPLING))
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


def measure(speed: Speed, cases: Sequence[Case], rounds: int, report: Report) -> None:
    """Both ways by turns, a line per case."""
    report(f"  {'prompts x samples':<43}{'ours/s':>6}{'theirs/s':>10}  ratio")
    for case in cases:
        clock = Clock(str(speed.device))
        ways = {"ours": partial(speed.ours, case), "theirs": partial(speed.theirs, case)}
        clock.turns(ways, rounds)
        ours, theirs = clock.median("ours"), clock.median("theirs")
        even = len(set(case.lengths)) == 1
        lengths = f"{case.lengths[0]}" if even else f"{min(case.lengths)} to {max(case.lengths)}"
        report(
            f"  {case.prompts:>3} x {case.samples:>2}, batch {case.batch:>3}, {lengths:>8} tokens"
            f"{case.tokens / ours:>10.0f}{case.tokens / theirs:>10.0f}"
            f"  {Ratio.of(clock.seconds['theirs'], clock.seconds['ours'])}"
        )


def main() -> int:
    parser = argument_parser(__doc__, "generate.txt")
    parser.add_argument("--rounds", type=int, default=3, help="of each way, by turns")
    arguments = parser.parse_args()
    report = Report(arguments.out, "torch", "transformers")
    tokenizer = load_tokenizer(ModelOptions(base=str(BASE)))
    miniature = LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    torch.manual_seed(0)
    shape = {
        "vocab_size": miniature.config.vocab_size,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
    }
    large = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    mixed = (4, 8, 12, 16, 20, 24, 32, 64)
    models = {
        "the miniature's, prompts of 80 tokens": (
            miniature,
            [
                Case(8, 1, 1, 80, (32,)),
                Case(128, 1, 64, 80, (32,)),
                Case(16, 16, 64, 80, (32,)),
                Case(16, 16, 256, 80, mixed),
            ],
        ),
        "a Llama with few words, prompts of 300 tokens": (
            large,
            [
                Case(8, 1, 8, 300, (24,)),
                Case(2, 16, 32, 300, (24,)),
                Case(2, 16, 32, 300, mixed),
            ],
        ),
    }
    for told, (model, cases) in models.items():
        count = sum(parameter.numel() for parameter in model.parameters())
        report(f"\n{told}, {count / 1e6:.1f} M parameters")
        measure(Speed(model, tokenizer), cases, arguments.rounds, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
