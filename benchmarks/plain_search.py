"""Sampling as the paper's code does it: a question at a time, and a pair at a time.

`generate_beam_search` (`fgrlhf/utils.py`) continues all open beams of one question in one call,
each from its whole prompt and text, and queries the entailment model for each new segment pair by
pair (`reward_utils.py`). Here that is `model.generate` of transformers, as in its sampling for
training, in place of vLLM (citepipe's way for models that cannot decode over trees); the draws are
those of citepipe, so that both find the same answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from common import Clock

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Request, Sampling
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.options import BestOfNOptions, RewardOptions, SegmentSearchOptions
from citepipe.rewards import Rewarder
from citepipe.sample.segment_search import _abstains, segment_end
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import is_list
from citepipe.verify.base import Pair, Verifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class EachAlone:
    """A verifier that is queried pair by pair, each pair of a question once."""

    name = "each alone"

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self.known: dict[Pair, bool] = {}
        self.pairs = 0

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order."""
        for pair in pairs:
            if pair not in self.known:
                self.known[pair] = self._verifier.entails([pair])[0]
                self.pairs += 1
        return [self.known[pair] for pair in pairs]


class PlainWay:
    """Search and best of n for one question at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        verifier: Verifier,
        rewards: RewardOptions,
    ) -> None:
        # More rows than any call has, and no decoding over trees.
        self._generator = HuggingFaceGenerator(model, tokenizer, batch_size=10_000)
        self._generator._reads_trees = False
        self.verifier = EachAlone(verifier)
        self._rewards = rewards
        self._splitter = load_splitter(rewards.splitter)
        self._clock = Clock(str(model.device))

    @property
    def seconds(self) -> dict[str, float]:
        """Spent on generation and on rewards."""
        return {part: sum(each) for part, each in self._clock.seconds.items()}

    def best_of_n(
        self, example: Example, prompt: tuple[int, ...], options: BestOfNOptions, seed: int
    ) -> list[tuple[str, float]]:
        """The candidates, best first: text and reward."""
        self.verifier.known.clear()
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
        self.verifier.known.clear()
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
                    samples=options.samples_per_beam * (1 if level else options.beams),
                    sampling=sampling,
                    segment_end=partial(segment_end, listing=listing, splitter=rule),
                )
                for place, beam in opened
            ]
            newest: list[dict[str, Any]] = []
            for (_, beam), found in zip(opened, self._continue(requests), strict=True):
                children = []
                for new in found:
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
        with self._clock.timing("rewards"):
            return Rewarder(self.verifier, self._rewards).reward([example], [text])[0]

    def _continue(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """All samples of a question's requests, in one call of `model.generate`."""
        with self._clock.timing("generation"):
            return self._generator.generate(requests)
