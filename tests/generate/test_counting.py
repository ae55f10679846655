"""Completions and tokens are counted as they come, and only those that were generated."""

from __future__ import annotations

from pathlib import Path

from citepipe.generate.completion import Completion, Request, Sampling
from citepipe.generate.counting import Counting
from citepipe.generate.journal import Journal
from tests.sample.test_segment_search import Speaker


def test_what_is_generated_is_counted_and_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    counting = Counting(Speaker(), lambda: told.append((counting.completions, counting.tokens)))
    journal = Journal(tmp_path / "completions.jsonl", counting)
    requests = [Request((1,), key, 9, samples=2, sampling=Sampling(1.0)) for key in "ab"]
    heard: list[Completion] = []
    found = journal.generate(requests, lambda *done: heard.append(done[2]), keep=True)
    lengths = [len(completion.token_ids) for own in found for completion in own]
    assert told == [(count, sum(lengths[:count])) for count in (1, 2, 3, 4)]
    assert heard == [completion for own in found for completion in own]
    assert journal.generate(requests) == found
    assert counting.completions == 4, "the journal knew all of them"
    assert counting.capacity == Speaker.capacity
