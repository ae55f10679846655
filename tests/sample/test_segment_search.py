"""The batched search against a plain search, one question and one answer at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Done, Request, Sampling
from citepipe.options.sample import SegmentSearchOptions
from citepipe.sample.segment_search import _abstains, segment_end, segment_search
from citepipe.text.sentences import load_splitter

SPLITTER = load_splitter("punkt-rules")
WORDS = [" good.", " bad.", " fine,", " poor,", " meh", "."]


class Speaker:
    """Token i is WORDS[i]; each request draws one to three of them by its key, perhaps the end."""

    capacity = 1000

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        return [[self.speak(request, i) for i in range(request.samples)] for request in requests]

    def speak(self, request: Request, sample: int) -> Completion:
        draw = random.Random(
            f"{request.sampling.seed}/{request.key}/{sample}/{request.prompt}/{request.prefix}"
        )
        ids = tuple(draw.randrange(len(WORDS)) for _ in range(draw.randint(1, 3)))
        ids = ids[: request.max_new_tokens]
        finish = "end" if draw.random() < 0.2 else "length"
        text = "".join(WORDS[i] for i in ids)
        return Completion(ids, text, (), (0.0,) * len(ids), finish)  # type: ignore[arg-type]


class Taste:
    """Good and fine earn, bad and poor cost; few distinct values, so ties are common."""

    def reward(self, examples: Sequence[Example], texts: Sequence[str]) -> list[dict[str, float]]:
        return [
            {
                "citation_recall": 0.2 * (text.count("good") - text.count("bad")),
                "correctness": 0.2 * (text.count("fine") - text.count("poor")),
            }
            for text in texts
        ]


def plain_search(
    example: Example, prompt: tuple[int, ...], options: SegmentSearchOptions, seed: int
) -> list[tuple[str, float]]:
    """The paper's search for one question, in its own order of doing things."""
    listing = example.dataset == "qampari"
    depth = options.depth_list if listing else options.depth
    name = f"{example.dataset}/{example.id}"
    dice = random.Random(f"{seed}/{name}/drop")
    beams: list[dict] = []
    for level in range(depth):
        if level and all(beam["ended"] for beam in beams):
            break
        open_beams = (
            [(i, b) for i, b in enumerate(beams) if not b["ended"]] if level else [(0, None)]
        )
        newer: list[dict] = []
        for place, parent in open_beams:
            count = options.beams if parent is None else options.samples_per_beam
            for i in range(count):
                ids = () if parent is None else parent["ids"]
                text = "" if parent is None else parent["text"]
                key = f"{name}/{level}/{place}"
                left = options.max_new_tokens - len(ids)
                sampling = Sampling(options.temperature, options.top_k, seed)
                request = Request(prompt, key, left, prefix=ids, sampling=sampling)
                said = Speaker().speak(request, i)
                child = {"ids": ids + said.token_ids, "text": text + said.text}
                child["reward"] = sum(Taste().reward([example], [child["text"]])[0].values())
                child["ended"] = said.finished or len(child["ids"]) >= options.max_new_tokens
                newer.insert(0, child)
        older = beams
        if listing and 0 < level < depth - 1:
            chance = options.drop_parent * (depth - 1 - level) / (depth - 2)
            older = [b for b in beams if b["ended"] or dice.random() >= chance]
        beams = sorted(newer + older, key=lambda b: b["reward"], reverse=True)[: options.beams]
    return [(beam["text"].strip(), round(beam["reward"], 6)) for beam in beams]


@pytest.mark.parametrize("seed", range(5))
def test_many_questions_at_once_give_what_each_gives_alone(seed: int) -> None:
    options = SegmentSearchOptions(
        beams=3, samples_per_beam=2, depth=4, depth_list=6, drop_parent=0.5, max_new_tokens=9
    )
    examples = [
        Example(str(i), "qampari" if i % 2 else "asqa", f"Question {i}?", ()) for i in range(12)
    ]
    prompts = [(100 + i,) for i in range(12)]
    found = segment_search(examples, prompts, Speaker(), Taste(), options, SPLITTER, seed)
    for example, prompt, candidates in zip(examples, prompts, found, strict=True):
        expected = plain_search(example, prompt, options, seed)
        assert [(c["text"], c["reward"]) for c in candidates] == expected


def test_the_score_is_kept_by_component() -> None:
    options = SegmentSearchOptions(beams=1, depth=1, max_new_tokens=4)
    [[best]] = segment_search(
        [Example("0", "asqa", "?", ())], [(1,)], Speaker(), Taste(), options, SPLITTER, 0
    )
    text = best["text"]
    assert best["rewards"]["correctness"] == pytest.approx(
        0.2 * (text.count("fine") - text.count("poor"))
    )


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("It cost 3.5 million", None),
        ("He lives in the U.S. now", None),
        ("It was built [1].", None),
        ("It was built [1]. The", 17),
    ],
)
def test_a_segment_ends_with_a_real_sentence(text: str, end: int | None) -> None:
    assert segment_end(text, listing=False, splitter=SPLITTER) == end


def test_a_segment_ends_at_any_stop_or_comma_if_so_configured() -> None:
    assert segment_end("It cost 3.5 million", listing=False, splitter=None) == 10
    assert segment_end(" Anna Berg [1], Paul", listing=True, splitter=SPLITTER) == 15


def test_an_abstention_is_recognised() -> None:
    assert _abstains("There is no answer in the documents.")
    assert not _abstains("There is no bridge.")
