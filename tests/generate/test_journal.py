"""What was completed is not requested again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from citepipe.generate.completion import Completion, Done, Request, Sampling
from citepipe.generate.journal import Journal
from citepipe.runstate import append_journal, read_journal


class Echo:
    """Completes with the sample's key; fails after `patience` completions."""

    capacity = 7

    def __init__(self, patience: int = 1000) -> None:
        self.patience = patience
        self.completed: list[str] = []
        self.kept: list[bool] = []

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        self.kept.append(keep)
        found: list[list[Completion]] = [[] for _ in requests]
        for number, request in enumerate(requests):
            for sample in range(request.samples):
                if len(self.completed) == self.patience:
                    raise ConnectionError("gone")
                key = f"{request.key}/{request.first + sample}"
                self.completed.append(key)
                completion = Completion((len(key), 2), f"é {key}", ((0, 1), (1, 9)), (-0.5,), "end")
                found[number].append(completion)
                assert done is not None
                done(number, sample, completion)
        return found


REQUESTS = [Request((1, 2), key, 5, samples=3, sampling=Sampling(1.0)) for key in "abc"]
ALL = [f"{key}/{sample}" for key in "abc" for sample in range(3)]


@pytest.mark.parametrize("patience", range(9))
def test_a_run_goes_on_where_the_generator_gave_up(tmp_path: Path, patience: int):
    path = tmp_path / "completions.jsonl"
    first = Echo(patience)
    with pytest.raises(ConnectionError):
        Journal(path, first).generate(REQUESTS)
    again = Echo()
    journal = Journal(path, again)
    assert (journal.known, journal.capacity) == (patience, 7)
    delivered: list[tuple[int, int, str]] = []
    found = journal.generate(REQUESTS, lambda n, s, c: delivered.append((n, s, c.text)), keep=True)
    assert first.completed + again.completed == ALL
    assert again.kept == [True]
    assert found == Echo().generate(REQUESTS, lambda *_: None)
    assert sorted(delivered) == [(n, s, f"é {ALL[3 * n + s]}") for n in range(3) for s in range(3)]
    assert Journal(path, Echo(0)).generate(REQUESTS) == found
    # What was used is forgotten.
    journal.forget()
    assert journal.known == Journal(path, Echo()).known == 0


def test_all_that_a_completion_depends_on_is_in_its_name(tmp_path: Path):
    journal = Journal(tmp_path / "completions.jsonl", Echo())
    journal.generate(REQUESTS[:1])
    request = Request((1, 2), "a", 5, sampling=Sampling(1.0))
    changes: list[dict[str, Any]] = [{"prompt": (1, 3)}, {"prompt": (1,), "prefix": (2,)}]
    changes += [{"max_new_tokens": 6}, {"key": "b"}, {"first": 3}]
    samplings = (Sampling(1.0, seed=1), Sampling(1.0, top_k=1), Sampling())
    changes += [{"sampling": sampling} for sampling in samplings]
    journal.generate([replace(request, **change) for change in changes])
    assert journal.known == 3 + len(changes)
    journal.generate([replace(request, first=2)])
    assert journal.known == 3 + len(changes)


@pytest.mark.parametrize("tail", [b'["abc", [1', b"\xff\xfe\n", b"{]\n[1]\n", b'["whole"]'])
def test_a_journal_is_cut_where_it_stops_being_one(tmp_path: Path, tail: bytes):
    path = tmp_path / "journal.jsonl"
    append_journal(path, [["é"], {"b": 1}])
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert read_journal(path) == [["é"], {"b": 1}]
    assert path.read_bytes() == whole


def test_lines_of_another_kind_are_passed_over(tmp_path: Path):
    path = tmp_path / "completions.jsonl"
    append_journal(path, [{"id": 1}, ["name"], 5, ["a", [1], "t", [[0, 1, 2]], [], "end"]])
    assert Journal(path, Echo()).known == 0
