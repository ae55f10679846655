"""Sampling goes on after a kill, and its shares are put together in the questions' order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Example
from citepipe.data.files import read_examples, read_jsonl, write_examples, write_jsonl
from citepipe.errors import InputError
from citepipe.generate.completion import Completion, Generator, Request, Sampling
from citepipe.options import ModelOptions, PromptOptions, RewardOptions
from citepipe.rewards import Rewarder
from citepipe.sample.merge import Record, choose_questions, merge
from citepipe.sample.record import Job, answer_record, chunk_by_chunk, sample_all
from tests.sample.test_segment_search import Speaker

# Ids come again in another dataset.
QUESTIONS = [
    Example(f"q{i}", dataset, f"Question {i}?", ())
    for i, dataset in enumerate(["asqa", "eli5", "asqa", "asqa", "eli5"])
] + [Example("q0", "eli5", "Another?", ())]
NAMES = [f"{question.dataset}/{question.id}" for question in QUESTIONS]


class Two(Speaker):
    """Two questions are asked at once."""

    capacity = 2


class Sampler:
    """Answers with the question's name; dies when it is asked `die_at`; q3 has an empty answer."""

    def __init__(self, die_at: str = "") -> None:
        self.die_at, self.asked = die_at, list[str]()

    def __call__(self, chunk: Sequence[Example], generator: Generator) -> list[Record]:
        records = []
        for e in chunk:
            if e.id == self.die_at:
                raise KeyboardInterrupt
            self.asked.append(f"{e.dataset}/{e.id}")
            text = "" if e.id == "q3" else f"answer to {e.dataset}/{e.id}"
            candidates = [answer_record(text, 3, "end", {"correctness": 0.2})]
            records.append({"id": e.id, "dataset": e.dataset, "candidates": candidates})
        return records


def _run(
    folder: Path, sampler: Sampler, fingerprint: str = "a", shard: int = 0, shards: int = 1
) -> dict[str, Any]:
    write_examples(folder / "questions.json", QUESTIONS)
    job = Job(
        questions=folder / "questions.json",
        model=ModelOptions(base="none"),
        adapter=folder,
        prompt=PromptOptions(),
        reward=RewardOptions(),
        verifier="lexical",
        cache=None,
        server=None,
        shard=shard,
        shards=shards,
        out=folder / f"{shard}.jsonl",
        state=folder / "state",
        fingerprint=fingerprint,
        seed=0,
        threads=1,
    )
    rewarder = Rewarder("lexical", RewardOptions(), None)
    mine = QUESTIONS[shard::shards]
    return sample_all("test", "answers", mine, sampler, Two(), rewarder, 1, job)


def _merge(folder: Path, parts: list[str], count: int | None = None) -> str:
    return merge(
        folder / "questions.json",
        count,
        0,
        [folder / part for part in parts],
        folder / "answers.json",
        folder / "candidates.jsonl",
    )


def test_a_run_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, Sampler(die_at="q2"))
    assert not (tmp_path / "0.jsonl").exists()
    with (tmp_path / "state" / "candidates.jsonl").open("a") as journal:
        journal.write('{"id": "q2", "cand')
    again = Sampler()
    _run(tmp_path, again)
    assert again.asked == NAMES[2:]
    records = read_jsonl(tmp_path / "0.jsonl")
    assert [f"{r['dataset']}/{r['id']}" for r in records] == NAMES
    assert not (tmp_path / "state").exists()


def test_what_was_generated_for_an_unfinished_question_is_not_lost(tmp_path: Path) -> None:
    """The third of four answers is the last; the next run asks for the fourth alone."""

    class Dying(Two):
        patience = 3

        def say(self, request: Request, sample: int) -> Completion:
            if self.patience == 0:
                raise KeyboardInterrupt
            self.patience -= 1
            return super().say(request, sample)

    def sample(chunk: Sequence[Example], generator: Generator) -> list[Record]:
        asked = [Request((1,), e.id, 9, sampling=Sampling(1.0)) for e in chunk]
        return [
            {
                "id": e.id,
                "dataset": e.dataset,
                "candidates": [answer_record(said.text, len(said.token_ids), said.finish, {})],
            }
            for e, [said] in zip(chunk, generator.generate(asked), strict=True)
        ]

    def run(folder: Path, generator: Two) -> list[Record]:
        chosen, rewarder = QUESTIONS[:4], Rewarder("lexical", RewardOptions(), None)
        return chunk_by_chunk("test", "answers", chosen, sample, generator, rewarder, 1, folder)[0]

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Dying())
    again, whole = Two(), tmp_path / "whole"
    whole.mkdir()
    assert run(tmp_path, again) == run(whole, Two())
    assert [[request.key for request in call] for call in again.calls] == [["q3"]]


def test_progress_tells_what_is_generated_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = _run(tmp_path, Sampler())
    assert set(figures) == {"questions", "answers/s", "tokens/s", "pairs/s"}
    said = capsys.readouterr().err
    assert "test: 6/6 questions" in said
    assert all(name in said for name in ("s left", "answers/s", "tokens/s", "pairs/s"))


def test_a_changed_fingerprint_starts_clean(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, Sampler(die_at="q2"))
    again = Sampler()
    _run(tmp_path, again, fingerprint="b")
    assert again.asked == NAMES


@pytest.mark.parametrize("shards", [1, 2, 4, 9])
def test_shares_are_put_together_in_the_questions_order(tmp_path: Path, shards: int) -> None:
    for shard in range(shards):
        _run(tmp_path, Sampler(), shard=shard, shards=shards)
    said = _merge(tmp_path, [f"{shard}.jsonl" for shard in range(shards)])
    answers = read_examples(tmp_path / "answers.json")
    assert [(f"{e.dataset}/{e.id}", e.output) for e in answers] == [
        (name, f"answer to {name}") for name in NAMES if name != "asqa/q3"
    ]
    records = read_jsonl(tmp_path / "candidates.jsonl")
    assert [f"{r['dataset']}/{r['id']}" for r in records] == NAMES
    assert "questions 6, without answer 1, mean reward of the chosen 0.2" in said


def test_a_question_that_no_share_has_is_named(tmp_path: Path) -> None:
    for shard in range(2):
        _run(tmp_path, Sampler(), shard=shard, shards=2)
    write_jsonl(tmp_path / "1.jsonl", read_jsonl(tmp_path / "1.jsonl")[:1])
    with pytest.raises(InputError, match=r"1\.jsonl: expected the question asqa/q3, it is not"):
        _merge(tmp_path, ["0.jsonl", "1.jsonl"])
    assert not (tmp_path / "answers.json").exists()


def test_the_seed_chooses_the_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    write_examples(path, QUESTIONS)
    assert choose_questions(path, None, 0) == QUESTIONS
    two = choose_questions(path, 2, 0)
    assert len(two) == 2
    assert two == choose_questions(path, 2, 0)
    assert any(choose_questions(path, 2, seed) != two for seed in range(1, 9))
