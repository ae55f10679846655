"""One way of sampling, in a process of its own, for `engines.py`.

    python benchmarks/engine_ways.py WAY MODEL ANSWERS

It loads a model directory in 32 bits, and then answers each case, a line of JSON, by what it took,
a line of JSON to the open file of number ANSWERS. vLLM's environment has no citepipe, so each way
imports what it needs.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Ids = tuple[int, ...]
Asked = Sequence[tuple[Ids, Ids]]
"""Prompts, and what of the answer is there."""
Drawn = tuple[float, int]
"""Temperature, 0 for the likeliest token, and among how many of the likeliest; 0 for all."""

ROWS = 32
"""Of a batch of `model.generate`."""


PAGES = 512
"""Of 32 tokens, that continuous batching of transformers has."""


class Ours:
    """citepipe's generator in process."""

    def __init__(self, base: str) -> None:
        from citepipe.generate.engine import HuggingFaceGenerator
        from citepipe.models.load import load_tokenizer
        from citepipe.options import ModelOptions

        tokenizer = load_tokenizer(ModelOptions(base=base))
        self.generator = HuggingFaceGenerator(load(base), tokenizer, stop=())
        self.generator.end_ids = frozenset()

    def extend(
        self, asked: Asked, samples: int, tokens: int, drawn: Drawn, keep: bool
    ) -> list[list[Ids]]:
        """Per what is asked its samples, each of so many tokens.

        Args:
            asked: what is extended.
            samples: of each.
            tokens: of each sample.
            drawn: how tokens are.
            keep: they will be extended.
        """
        from citepipe.generate.completion import Request, Sampling

        sampling = Sampling(*drawn)
        requests = [
            Request(prompt, f"{n}/{len(begun)}", tokens, begun, samples, sampling)
            for n, (prompt, begun) in enumerate(asked)
        ]
        found = self.generator.generate(requests, keep=keep)
        return [[completion.token_ids for completion in own] for own in found]

    def forget(self) -> None:
        """Begin anew."""


class Generate:
    """`model.generate` of transformers, batch by batch, padded in front."""

    def __init__(self, base: str) -> None:
        self.model = load(base)

    def extend(
        self, asked: Asked, samples: int, tokens: int, drawn: Drawn, keep: bool
    ) -> list[list[Ids]]:
        """See `Ours.extend`."""
        import torch

        rows = [prompt + begun for prompt, begun in asked for _ in range(samples)]
        found: list[Ids] = []
        for begin in range(0, len(rows), ROWS):
            batch = rows[begin : begin + ROWS]
            width = max(map(len, batch))
            pads = [width - len(row) for row in batch]
            ids = [[0] * pad + list(row) for pad, row in zip(pads, batch, strict=True)]
            mask = [[0] * pad + [1] * (width - pad) for pad in pads]
            settings = configured(tokens, drawn) | {"min_new_tokens": tokens}
            written = self.model.generate(
                torch.tensor(ids), attention_mask=torch.tensor(mask), **settings
            )
            found += map(tuple, written[:, width:].tolist())
        return by_prompt(found, samples)

    def forget(self) -> None:
        """Begin anew."""


class Continuous:
    """Continuous batching of transformers."""

    def __init__(self, base: str) -> None:
        self.model = load(base)

    def extend(
        self, asked: Asked, samples: int, tokens: int, drawn: Drawn, keep: bool
    ) -> list[list[Ids]]:
        """See `Ours.extend`."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        settings = configured(tokens, drawn) | {"num_return_sequences": samples, "eos_token_id": -1}
        answers = self.model.generate_batch(
            [list(prompt + begun) for prompt, begun in asked],
            generation_config=GenerationConfig(**settings),
            # By itself it would take most of the memory, and clear it for minutes.
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=32, num_blocks=PAGES, max_batch_tokens=1024
            ),
        )
        found = [tuple(answer.generated_tokens) for answer in answers.values()]
        return by_prompt(found, samples)

    def forget(self) -> None:
        """Begin anew."""


class VLLM:
    """vLLM in process, with prefix caching."""

    def __init__(self, base: str) -> None:
        from vllm import LLM

        self.engine = LLM(
            base,
            dtype="float32",
            enable_prefix_caching=True,
            generation_config="vllm",
            skip_tokenizer_init=True,
        )

    def extend(
        self, asked: Asked, samples: int, tokens: int, drawn: Drawn, keep: bool
    ) -> list[list[Ids]]:
        """See `Ours.extend`."""
        from vllm import SamplingParams

        settings = SamplingParams(
            n=samples,
            max_tokens=tokens,
            temperature=drawn[0],
            top_k=drawn[1],
            ignore_eos=True,
            detokenize=False,
        )
        found = self.engine.generate(
            [{"prompt_token_ids": [*prompt, *begun]} for prompt, begun in asked],
            settings,
            use_tqdm=False,
        )
        return [[tuple(own.token_ids) for own in answer.outputs] for answer in found]

    def forget(self) -> None:
        """Begin anew."""
        self.engine.reset_prefix_cache()


WAYS = {"ours": Ours, "generate": Generate, "continuous": Continuous, "vllm": VLLM}


def load(base: str) -> Any:
    """A model in 32 bits."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


def configured(tokens: int, drawn: Drawn) -> dict[str, Any]:
    """Settings of transformers' generation."""
    found = {"max_new_tokens": tokens, "do_sample": drawn[0] > 0, "pad_token_id": 0}
    return found | ({"temperature": drawn[0], "top_k": drawn[1]} if drawn[0] else {})


def by_prompt(found: Sequence[Ids], samples: int) -> list[list[Ids]]:
    """Answers in groups of so many."""
    return [list(found[n : n + samples]) for n in range(0, len(found), samples)]


def search(way: Any, prompts: Sequence[Ids], case: dict[str, int]) -> list[list[Ids]]:
    """The beams of a search whose segments are equally long, and whose rewards are arbitrary: a
    checksum of the answer."""
    beams: list[list[Ids]] = [[()] for _ in prompts]
    for level in range(case["levels"]):
        asked = [(p, beam) for p, own in zip(prompts, beams, strict=True) for beam in own]
        samples = case["samples"] * (1 if level else case["beams"])
        found = way.extend(
            asked, samples, case["tokens"], case["drawn"], level + 1 < case["levels"]
        )
        new: dict[Ids, list[Ids]] = {prompt: [] for prompt in prompts}
        for (prompt, beam), own in zip(asked, found, strict=True):
            new[prompt] += [beam + segment for segment in own]
        beams = [
            sorted(new[p], key=lambda ids: zlib.crc32(str(ids).encode()))[: case["beams"]]
            for p in prompts
        ]
    return beams


def own_processes() -> list[Path]:
    """Of this process and of those that it started."""
    found, me = [Path("/proc/self")], str(os.getpid())
    for task in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = task.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if parent == me:
            found.append(task.parent)
    return found


def peak() -> int:
    """Bytes of memory at most, of all processes, since it was asked the last time."""
    found = 0
    for process in own_processes():
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        found += 1024 * int(fields.get("VmHWM", "0 kB").split()[0])
        (process / "clear_refs").write_text("5")
    return found


def main() -> None:
    import torch

    torch.set_num_threads(1)
    way = WAYS[sys.argv[1]](sys.argv[2])
    # Libraries write where they like: answers go to a stream of their own.
    answers = os.fdopen(int(sys.argv[3]), "w")
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        prompts = [tuple(prompt) for prompt in case["prompts"]]
        way.forget()
        peak()
        began = time.perf_counter()
        if case["levels"] > 1:
            found = search(way, prompts, case)
        else:
            nothing = [(prompt, ()) for prompt in prompts]
            found = way.extend(nothing, case["samples"], case["tokens"], case["drawn"], False)
        took = {"seconds": time.perf_counter() - began, "peak": peak(), "found": found}
        print(json.dumps(took), file=answers, flush=True)


if __name__ == "__main__":
    main()
