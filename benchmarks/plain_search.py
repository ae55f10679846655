"""Sampling as the paper's code does it: a question at a time, and a pair at a time.

`generate_beam_search` (`fgrlhf/utils.py`) continues all open beams of one question in one call,
each from its whole prompt and text, and asks the entailment model about each new segment pair by
pair (`reward_utils.py`). Here that is `model.generate` of transformers, as in its sampling for
training, in place of vLLM; the draws are those of citepipe, so that both find the same answers.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from citepipe.data.example import Example
from citepipe.generate.choose import choose, uniforms
from citepipe.generate.completion import Completion, Request, Sampling
from citepipe.generate.text import Cut, Detokenizer
from citepipe.options import BestOfNOptions, RewardOptions, SegmentSearchOptions
from citepipe.rewards import Rewarder
from citepipe.sample.segment_search import _abstains, segment_end
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import is_list
from citepipe.verify.base import Pair, Verifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class AlreadyDrawn(LogitsProcessor):
    """Leaves of each row's tokens only the one that a given random number falls on."""

    def __init__(self, draws: torch.Tensor, sampling: Sampling) -> None:
        self._draws, self._sampling, self._step = draws, sampling, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = choose(scores, self._sampling, self._draws[:, self._step])[0]
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


class AllCut(StoppingCriteria):
    """Ends each row where its answer or its segment ends."""

    def __init__(self, cuts: Sequence[Cut], begin: int) -> None:
        self._cuts, self._begin = cuts, begin
        self.finish: list[Any] = [None] * len(cuts)
        self.length = [0] * len(cuts)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.finish[row] is None:
                self.finish[row] = self._cuts[row].add(token)
                self.length[row] = input_ids.shape[1] - self._begin
        ended = [finish is not None for finish in self.finish]
        return torch.tensor(ended, device=input_ids.device)


class EachAlone:
    """A verifier that is asked pair by pair, each pair of a question once."""

    name = "each alone"

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._known: dict[Pair, bool] = {}
        self.pairs = 0

    def forget(self) -> None:
        """Begin with another question."""
        self._known = {}

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order."""
        for pair in pairs:
            if pair not in self._known:
                self._known[pair] = self._verifier.entails([pair])[0]
                self.pairs += 1
        return [self._known[pair] for pair in pairs]


class PlainWay:
    """Search and best of n for one question at a time.

    Args:
        model: answers.
        tokenizer: its own.
        verifier: decides on pairs.
        rewards: the size of each reward.

    Attributes:
        seconds: spent on generation and on rewards.
        tokens: that were generated.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        verifier: Verifier,
        rewards: RewardOptions,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self.verifier = EachAlone(verifier)
        self._rewards = rewards
        self._splitter = load_splitter(rewards.splitter)
        self.seconds: Counter[str] = Counter()
        self.tokens = 0

    @contextmanager
    def _timing(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._model.device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds[part] += time.perf_counter() - began

    def best_of_n(
        self, example: Example, prompt: tuple[int, ...], options: BestOfNOptions, seed: int
    ) -> list[tuple[str, float]]:
        """The candidates, best first: text and reward."""
        self.verifier.forget()
        sampling = Sampling(options.temperature, options.top_k, seed)
        request = Request(
            prompt,
            f"{example.dataset}/{example.id}",
            options.max_new_tokens,
            samples=options.n,
            sampling=sampling,
        )
        answers = self._continue([request])[0]
        worth = [sum(self._reward(example, answer.text).values()) for answer in answers]
        order = sorted(range(options.n), key=lambda i: -round(worth[i], 6))
        return [(answers[i].text.strip(), round(worth[i], 6)) for i in order]

    def search(
        self, example: Example, prompt: tuple[int, ...], options: SegmentSearchOptions, seed: int
    ) -> list[tuple[str, float]]:
        """The final beams, best first: text and reward."""
        self.verifier.forget()
        listing = is_list(example.dataset)
        depth = options.depth_list if listing else options.depth
        name = f"{example.dataset}/{example.id}"
        dice = random.Random(f"{seed}/{name}/drop")
        sampling = Sampling(options.temperature, options.top_k, seed)
        rule = None if options.split_at_every_stop else self._splitter
        beams: list[dict[str, Any]] = []
        for level in range(depth):
            nothing = {"ids": (), "text": "", "ended": False}
            opened = [(i, b) for i, b in enumerate(beams) if not b["ended"]]
            opened = opened if level else [(0, nothing)]
            if not opened:
                break
            requests = [
                Request(
                    prompt,
                    f"{name}/{level}/{place}",
                    options.max_new_tokens - len(beam["ids"]),
                    prefix=beam["ids"],
                    samples=options.samples_per_beam if level else options.beams,
                    sampling=sampling,
                    segment_end=partial(segment_end, listing=listing, splitter=rule),
                )
                for place, beam in opened
            ]
            newest: list[dict[str, Any]] = []
            for (_, beam), said in zip(opened, self._continue(requests), strict=True):
                children = []
                for new in said:
                    ids, text = beam["ids"] + new.token_ids, beam["text"] + new.text
                    reward = round(sum(self._reward(example, text).values()), 6)
                    full = len(ids) >= options.max_new_tokens
                    ended = new.finished or full or _abstains(new.text)
                    children.append({"ids": ids, "text": text, "reward": reward, "ended": ended})
                newest = children + newest
            drops = listing and 0 < level < depth - 1
            chance = options.drop_parent * (depth - 1 - level) / max(depth - 2, 1)
            older = [b for b in beams if not drops or b["ended"] or dice.random() >= chance]
            beams = sorted(newest + older, key=lambda b: -b["reward"])[: options.beams]
        return [(beam["text"].strip(), beam["reward"]) for beam in beams]

    def _reward(self, example: Example, text: str) -> dict[str, float]:
        with self._timing("rewards"):
            return Rewarder(self.verifier, self._rewards).reward([example], [text])[0]

    @torch.inference_mode()
    def _continue(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """All samples of a question's requests, in one call of `generate`."""
        with self._timing("generation"):
            rows = [(r, sample) for r in requests for sample in range(r.samples)]
            begins = [[*r.prompt, *r.prefix] for r, _ in rows]
            longest = max(map(len, begins))
            pad = int(self._tokenizer.pad_token_id)
            device = self._model.device
            ids = torch.tensor([[pad] * (longest - len(b)) + b for b in begins], device=device)
            mask = torch.tensor(
                [[0] * (longest - len(b)) + [1] * len(b) for b in begins], device=device
            )
            most = max(r.max_new_tokens for r, _ in rows)
            draws = torch.zeros(len(rows), most)
            for row, (r, sample) in enumerate(rows):
                own = uniforms(r.sampling.seed, f"{r.key}/{sample}", r.max_new_tokens)
                draws[row, : len(own)] = torch.from_numpy(own)
            ends = {int(self._tokenizer.eos_token_id)}
            cuts = [Cut(self._detokenizer, r.prefix, r.stop, r.segment_end, ends) for r, _ in rows]
            cut = AllCut(cuts, longest)
            out = self._model.generate(  # type: ignore[operator]
                ids,
                attention_mask=mask,
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=pad,
                logits_processor=[AlreadyDrawn(draws.to(device), rows[0][0].sampling)],
                stopping_criteria=[cut],
            )[:, longest:].tolist()
            found: list[list[Completion]] = [[] for _ in requests]
            numbers = [n for n, r in enumerate(requests) for _ in range(r.samples)]
            for row, (r, _) in enumerate(rows):
                length = min(cut.length[row], r.max_new_tokens)
                finish = cut.finish[row] if cut.length[row] <= r.max_new_tokens else None
                said = cuts[row].completion(out[row][:length], [], finish or "length")
                self.tokens += length
                found[numbers[row]].append(said)
            return found
