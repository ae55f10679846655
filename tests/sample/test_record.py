"""Sampling goes on after a kill, and writes the chosen answers in the questions' order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Example
from citepipe.data.files import read_examples, read_jsonl, write_examples
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.reward import RewardOptions
from citepipe.sample.record import Job, candidate, choose_questions, sample_all

QUESTIONS = [Example(f"q{i}", "asqa", f"Question {i}?", ()) for i in range(5)]


class Sampler:
    """Answers with the question's id; dies when it is asked `die_at`; q3 has an empty answer."""

    def __init__(self, die_at: str = "") -> None:
        self.die_at, self.asked = die_at, list[str]()

    def __call__(self, chunk: Sequence[Example]) -> list[list[dict[str, Any]]]:
        if any(e.id == self.die_at for e in chunk):
            raise KeyboardInterrupt
        self.asked += [e.id for e in chunk]
        return [
            [candidate("" if e.id == "q3" else f"answer to {e.id}", {"correctness": 0.2})]
            for e in chunk
        ]


def _run(folder: Path, sampler: Sampler, fingerprint: str = "a") -> dict[str, Any]:
    job = Job(
        questions=folder / "questions.json",
        model=ModelOptions(base="none"),
        adapter=folder,
        prompt=PromptOptions(),
        reward=RewardOptions(),
        verifier="lexical",
        cache=None,
        out_answers=folder / "answers.json",
        out_candidates=folder / "candidates.jsonl",
        state=folder / "state",
        fingerprint=fingerprint,
        seed=0,
        threads=1,
    )
    return sample_all("test", QUESTIONS, sampler, 2, job)


def test_a_run_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, Sampler(die_at="q2"))
    assert not (tmp_path / "answers.json").exists()
    with (tmp_path / "state" / "candidates.jsonl").open("a") as journal:
        journal.write('{"id": "q2", "cand')
    again = Sampler()
    figures = _run(tmp_path, again)
    assert again.asked == ["q2", "q3", "q4"]
    assert figures["without answer"] == 1
    answers = read_examples(tmp_path / "answers.json")
    assert [(e.id, e.output) for e in answers] == [
        (i, f"answer to {i}") for i in ("q0", "q1", "q2", "q4")
    ]
    assert [r["id"] for r in read_jsonl(tmp_path / "candidates.jsonl")] == [e.id for e in QUESTIONS]
    assert not (tmp_path / "state").exists()


def test_a_changed_fingerprint_starts_clean(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, Sampler(die_at="q2"))
    again = Sampler()
    _run(tmp_path, again, fingerprint="b")
    assert again.asked == [e.id for e in QUESTIONS]


def test_the_seed_chooses_the_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    write_examples(path, QUESTIONS)
    assert choose_questions(path, None, 0) == QUESTIONS
    two = choose_questions(path, 2, 0)
    assert len(two) == 2
    assert two == choose_questions(path, 2, 0)
