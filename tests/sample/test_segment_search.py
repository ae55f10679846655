"""The batched search against a plain search, one question and one answer at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from citepipe.data.example import Example
from citepipe.generate.completion import Completion, Done, Request
from citepipe.options import SegmentSearchOptions
from citepipe.sample.segment_search import _abstains, segment_end, segment_search
from citepipe.text.sentences import Splitter, load_splitter
from tests.sample.plain_search import Place, Said, plain_search

SPLITTER = load_splitter("punkt-rules")
WORDS = [" good.", " bad.", " fine,", " poor,", " meh", "."]


def speak(at: Place) -> Said:
    """Token i is WORDS[i]; by the key it says one to three of them, and perhaps ends there."""
    draw = random.Random(f"{at.seed}/{at.key}/{at.prompt}/{at.prefix}")
    ids = tuple(draw.randrange(len(WORDS)) for _ in range(draw.randint(1, 3)))[: at.left]
    return Said(ids, "".join(WORDS[i] for i in ids), "end" if draw.random() < 0.2 else "length")


class Speaker:
    """A generator that says what `speak` does, and remembers what it was asked.

    Attributes:
        calls: the requests of each call.
        keeps: whether the next one would go on.
    """

    capacity = 1000

    def __init__(self) -> None:
        self.calls: list[list[Request]] = []
        self.keeps: list[bool] = []

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        self.calls.append(list(requests))
        self.keeps.append(keep)
        found = []
        for number, request in enumerate(requests):
            found.append([self.say(request, sample) for sample in range(request.samples)])
            for sample, completion in enumerate(found[-1]):
                if done is not None:
                    done(number, sample, completion)
        return found

    def say(self, request: Request, sample: int) -> Completion:
        """One sample of a request."""
        said = speak(
            Place(
                request.prompt,
                request.prefix,
                f"{request.key}/{request.first + sample}",
                request.max_new_tokens,
                listing=False,
                options=SegmentSearchOptions(),
                seed=request.sampling.seed,
            )
        )
        return Completion(said.ids, said.text, (), (), said.finish)  # type: ignore[arg-type]

    def close(self) -> None:
        """Nothing is held."""


class Taste:
    """Good and fine earn, bad and poor cost; few distinct values, so ties are common."""

    pairs = 0

    def reward(self, examples: Sequence[Example], texts: Sequence[str]) -> list[dict[str, float]]:
        return [taste(example, text) for example, text in zip(examples, texts, strict=True)]


def taste(example: Example, text: str) -> dict[str, float]:
    return {
        "citation_recall": 0.25 * (text.count("good") - text.count("bad")),
        "correctness": 0.25 * (text.count("fine") - text.count("poor")),
    }


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
    for example, prompt, record in zip(examples, prompts, found, strict=True):
        assert record == plain_search(example, prompt, options, seed, speak, taste)


def test_a_level_is_one_call_with_a_request_per_open_beam() -> None:
    options = SegmentSearchOptions(beams=2, samples_per_beam=3, depth=2, depth_list=2)
    examples = [Example("a", "asqa", "?", ()), Example("b", "qampari", "?", ())]
    speaker = Speaker()
    found = segment_search(examples, [(1,), (2,)], speaker, Taste(), options, SPLITTER, 1)
    first, second = speaker.calls
    assert speaker.keeps == [True, False], "the second level goes on from the first"
    assert [(r.key, r.prompt, r.prefix, r.samples) for r in first] == [
        ("asqa/a/0/0", (1,), (), 6),
        ("qampari/b/0/0", (2,), (), 6),
    ]
    drawn = {record["dataset"]: record["steps"][0]["drawn"] for record in found}
    going = [
        f"{name}/{record['id']}/1/{place}"
        for record in found
        for name in [record["dataset"]]
        for place, (_, i) in enumerate(record["steps"][0]["kept"])
        if drawn[name][i]["finish"] != "end"
    ]
    assert [request.key for request in second] == going
    assert {key[0] for key in going} == {"a", "q"}, "of both questions"
    for request in second:
        assert request.samples == 3
        assert request.max_new_tokens == options.max_new_tokens - len(request.prefix)
        assert len(request.prefix) in {d["tokens"] for d in drawn[request.key.split("/")[0]]}


def _search_one(
    segments: Callable[[Request, int], Completion], rewarder: Taste | None = None, **options: int
) -> tuple[dict[str, Any], Speaker]:
    """The record of one question with one beam, and the generator that received its requests."""
    speaker = Speaker()
    speaker.say = segments  # type: ignore[method-assign]
    chosen = SegmentSearchOptions(**{"beams": 1, "samples_per_beam": 1, "depth": 2, **options})
    one = [Example("0", "asqa", "?", ())], [(1,)]
    [record] = segment_search(*one, speaker, rewarder or Taste(), chosen, SPLITTER, 0)
    return record, speaker


def test_of_equals_the_newer_stays_and_of_those_the_one_drawn_first() -> None:
    """Two segments of the same worth as their parent: one beam stays, the first of the two."""
    record, _ = _search_one(
        lambda _, sample: Completion((sample,), f" word{sample}", (), (), "segment"),
        samples_per_beam=2,
    )
    assert [step["kept"] for step in record["steps"]] == [[["drawn", 0]], [["drawn", 0]]]
    assert record["candidates"][0]["text"] == "word0 word0"


def test_rewards_that_differ_by_rounding_are_equal() -> None:
    """0.2 + 0.2 + 0.2 - 0.2 - 0.2 is a little more than 0.2; the newer beam stays all the same."""
    more = 0.2 + 0.2 + 0.2 - 0.2 - 0.2
    assert more > 0.2

    class Bookkeeping(Taste):
        def reward(
            self, examples: Sequence[Example], texts: Sequence[str]
        ) -> list[dict[str, float]]:
            return [{"citation_recall": 0.2 if text.count("good") > 1 else more} for text in texts]

    good = Completion((0,), " good.", (), (), "segment")
    record, _ = _search_one(lambda *_: good, Bookkeeping())
    assert record["steps"][1]["kept"] == [["drawn", 0]]


def test_no_beam_outgrows_the_answer() -> None:
    def four(request: Request, _: int) -> Completion:
        return Completion((0,) * min(4, request.max_new_tokens), " good.", (), (), "segment")

    record, speaker = _search_one(four, depth=5, max_new_tokens=6)
    assert [[r.max_new_tokens for r in call] for call in speaker.calls] == [[6], [2]]
    assert record["candidates"][0]["tokens"] == 6


@pytest.mark.parametrize(
    ("text", "listing", "splitter", "end"),
    [
        ("It cost 3.5 million", False, SPLITTER, None),
        ("He lives in the U.S. now", False, SPLITTER, None),
        ("It was built [1].", False, SPLITTER, None),
        ("It was built [1]. The", False, SPLITTER, 17),
        ("It cost 3.5 million", False, None, 10),
        (" Anna Berg [1], Paul", True, SPLITTER, 15),
    ],
)
def test_a_segment_ends_with_a_real_sentence_or_at_any_stop_or_comma(
    text: str, listing: bool, splitter: Splitter | None, end: int | None
) -> None:
    assert segment_end(text, listing, splitter) == end


def test_an_abstention_is_recognised() -> None:
    assert _abstains("There is no answer in the documents.")
    assert not _abstains("There is no bridge.")
