"""The paper's search, plainly: one question, one sample, one token and one pair at a time.

It shares no code with the search under test, nor with the decoder: every token is computed anew
from the whole text. Of ours it takes the random numbers, where a segment ends, and what a reward is
made of.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from citepipe.data.example import Example
from citepipe.generate.choose import uniforms
from citepipe.options import RewardOptions, SegmentSearchOptions
from citepipe.rewards import Rewarder
from citepipe.sample.segment_search import segment_end
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier


class Said(NamedTuple):
    """A segment: its tokens, its text, and why it ended."""

    ids: tuple[int, ...]
    text: str
    finish: str


class Place(NamedTuple):
    """What a segment is drawn behind, and with which random numbers."""

    prompt: tuple[int, ...]
    prefix: tuple[int, ...]
    key: str
    left: int
    listing: bool
    options: SegmentSearchOptions
    seed: int


Speak = Callable[[Place], Said]
Worth = Callable[[Example, str], dict[str, float]]


def plain_search(
    example: Example,
    prompt: tuple[int, ...],
    options: SegmentSearchOptions,
    seed: int,
    speak: Speak,
    worth: Worth,
) -> dict[str, Any]:
    """The record of one question, found in the paper's own order of doing things."""
    listing = example.dataset == "qampari"
    depth = options.depth_list if listing else options.depth
    name = f"{example.dataset}/{example.id}"
    dice = random.Random(f"{seed}/{name}/drop")
    beams: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    tokens = 0
    for level in range(depth):
        if level and all(beam["ended"] for beam in beams):
            break
        root = {"ids": (), "text": "", "ended": False}
        drawn: list[dict[str, Any]] = []
        newer: list[tuple[list[Any], dict[str, Any]]] = []
        for place, parent in enumerate(beams if level else [root]):
            if parent["ended"]:
                continue
            block = []
            for i in range(options.samples_per_beam * (1 if level else options.beams)):
                key = f"{name}/{level}/{place}/{i}"
                left = options.max_new_tokens - len(parent["ids"])
                said = speak(Place(prompt, parent["ids"], key, left, listing, options, seed))
                tokens += len(said.ids)
                child: dict[str, Any] = {
                    "ids": parent["ids"] + said.ids,
                    "text": parent["text"] + said.text,
                    "finish": said.finish,
                }
                child["rewards"] = worth(example, child["text"])
                child["reward"] = round(sum(child["rewards"].values()), 6)
                child["ended"] = (
                    said.finish in ("end", "stop")
                    or len(child["ids"]) >= options.max_new_tokens
                    or "It is unclear " in said.text
                )
                block.append((["drawn", len(drawn)], child))
                record = {**_record(child), "text": said.text}
                drawn.append({"parent": place if level else None, **record})
            # In front of all others, in the order in which they were drawn.
            newer[:0] = block
        older = [(["before", place], beam) for place, beam in enumerate(beams)]
        if listing and 0 < level < depth - 1:
            chance = options.drop_parent * (depth - 1 - level) / (depth - 2)
            older = [
                (where, beam) for where, beam in older if beam["ended"] or dice.random() >= chance
            ]
        ranked = sorted(newer + older, key=lambda item: item[1]["reward"], reverse=True)
        ranked = ranked[: options.beams]
        beams = [beam for _, beam in ranked]
        steps.append({"drawn": drawn, "kept": [where for where, _ in ranked]})
    return {
        "id": example.id,
        "dataset": example.dataset,
        "candidates": [_record(beam) for beam in beams],
        "sampled_tokens": tokens,
        "steps": steps,
    }


def _record(beam: dict[str, Any]) -> dict[str, Any]:
    return {
        "text": beam["text"].strip(),
        "reward": beam["reward"],
        "rewards": {name: round(value, 6) for name, value in beam["rewards"].items()},
        "tokens": len(beam["ids"]),
        "finish": beam["finish"],
    }


class PlainModel:
    """Speaks as a model does, without keys and values from before and without a batch.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, of which a text's tokens decode to the parts of the text.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.splitter: Splitter = load_splitter("punkt-rules")

    def __call__(self, at: Place) -> Said:
        """One segment."""
        ids: list[int] = []
        for draw in uniforms(at.seed, at.key, at.left):
            ids.append(self._next([*at.prompt, *at.prefix, *ids], float(draw), at.options))
            if ids[-1] == self.tokenizer.eos_token_id:
                return Said(tuple(ids), self._text(at.prefix, ids[:-1]), "end")
            text = self._text(at.prefix, ids)
            if "\n" in text:
                return Said(tuple(ids), text[: text.index("\n")], "stop")
            end = segment_end(text, at.listing, self.splitter)
            if end is not None:
                # Where each token begins; one that begins behind the end is of the next segment.
                begins = [len(self._text(at.prefix, ids[:i])) for i in range(len(ids))]
                ids = [token for token, begin in zip(ids, begins, strict=True) if begin < end]
                return Said(tuple(ids), self._text(at.prefix, ids), "segment")
        return Said(tuple(ids), self._text(at.prefix, ids), "length")

    def _text(self, prefix: Sequence[int], ids: Sequence[int]) -> str:
        before, whole = (self.tokenizer.decode(some) for some in (prefix, [*prefix, *ids]))
        return str(whole)[len(before) :]

    def _next(self, ids: list[int], draw: float, options: SegmentSearchOptions) -> int:
        import torch

        with torch.inference_mode():
            logits = self.model(torch.tensor([ids])).logits[0, -1].double() / options.temperature
        likeliest = torch.argsort(logits, descending=True)[: options.top_k or None]
        shares = torch.softmax(logits[likeliest], dim=0)
        passed = 0.0
        for token, share in zip(likeliest.tolist(), shares.tolist(), strict=True):
            passed += share
            if passed > draw:
                return int(token)
        return int(likeliest[-1])


class PlainRewards:
    """Rewards one answer at a time, asking the verifier for one pair at a time."""

    def __init__(self, verifier: str, options: RewardOptions) -> None:
        self.options = options
        self._verifier = load_verifier(verifier)
        self.name = self._verifier.name

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """As a verifier."""
        return [self._verifier.entails([pair])[0] for pair in pairs]

    def __call__(self, example: Example, text: str) -> dict[str, float]:
        """The sum of each component."""
        return Rewarder(self, self.options).reward([example], [text])[0]
