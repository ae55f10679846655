"""What was completed is not asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from citepipe.generate.completion import Completion, Done, Request, Sampling
from citepipe.generate.journal import Journal
from citepipe.runstate import append_journal, read_journal


class Echo:
    """Completes with the sample's key; fails after `patience` completions."""

    capacity = 7

    def __init__(self, patience: int = 1000) -> None:
        self.patience = patience
        self.asked: list[str] = []
        self.kept: list[bool] = []

    def generate(
        self, requests: Sequence[Request], done: Done | None = None, keep: bool = False
    ) -> list[list[Completion]]:
        self.kept.append(keep)
        found = []
        for number, request in enumerate(requests):
            found.append([])
            for sample in range(request.samples):
                if len(self.asked) == self.patience:
                    raise ConnectionError("gone")
                key = f"{request.key}/{request.first + sample}"
                self.asked.append(key)
                completion = Completion((len(key), 2), f"é {key}", ((0, 1), (1, 9)), (-0.5,), "end")
                found[-1].append(completion)
                assert done is not None
                done(number, sample, completion)
        return found


REQUESTS = [Request((1, 2), key, 5, samples=3, sampling=Sampling(1.0)) for key in "abc"]
ALL = [f"{key}/{sample}" for key in "abc" for sample in range(3)]


@pytest.mark.parametrize("patience", range(9))
def test_a_run_goes_on_where_the_generator_gave_up(tmp_path: Path, patience: int) -> None:
    path = tmp_path / "completions.jsonl"
    first = Echo(patience)
    with pytest.raises(ConnectionError):
        Journal(path, first).generate(REQUESTS)
    again = Echo()
    journal = Journal(path, again)
    assert journal.known == patience
    told: list[tuple[int, int, str]] = []
    found = journal.generate(REQUESTS, lambda n, s, c: told.append((n, s, c.text)), keep=True)
    assert first.asked + again.asked == ALL
    assert again.kept == [True]
    assert found == Echo().generate(REQUESTS, lambda *_: None)
    assert sorted(told) == [(n, s, f"é {ALL[3 * n + s]}") for n in range(3) for s in range(3)]
    assert Journal(path, Echo(0)).generate(REQUESTS) == found


def test_all_that_a_completion_depends_on_is_in_its_name(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "completions.jsonl", Echo())
    journal.generate(REQUESTS[:1])
    for other in (
        Request((1, 3), "a", 5, sampling=Sampling(1.0)),
        Request((1,), "a", 5, prefix=(2,), sampling=Sampling(1.0)),
        Request((1, 2), "a", 6, sampling=Sampling(1.0)),
        Request((1, 2), "a", 5, sampling=Sampling(1.0, seed=1)),
        Request((1, 2), "a", 5, sampling=Sampling(1.0, top_k=1)),
        Request((1, 2), "a", 5),
        Request((1, 2), "a", 5, sampling=Sampling(1.0), stop=("x",)),
        Request((1, 2), "a", 5, sampling=Sampling(1.0), first=3),
    ):
        known = journal.known
        journal.generate([other])
        assert journal.known == known + 1
    journal.generate([Request((1, 2), "a", 5, sampling=Sampling(1.0), first=2)])
    assert journal.known == known + 1


def test_what_was_used_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "completions.jsonl"
    journal = Journal(path, Echo())
    assert journal.capacity == 7
    journal.generate(REQUESTS)
    assert path.stat().st_size > 0
    journal.forget()
    assert journal.known == 0
    assert not path.exists()


@pytest.mark.parametrize("tail", [b'["abc", [1', b"\xff\xfe\n", b"{]\n[1]\n", b'["whole"]'])
def test_a_journal_is_cut_where_it_stops_being_one(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    append_journal(path, [["é"], {"b": 1}])
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert read_journal(path) == [["é"], {"b": 1}]
    assert path.read_bytes() == whole
    assert read_journal(tmp_path / "none") == []


def test_lines_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "completions.jsonl"
    append_journal(path, [{"id": 1}, ["name"], 5, ["a", [1], "t", [[0, 1, 2]], [], "end"]])
    assert Journal(path, Echo()).known == 0
