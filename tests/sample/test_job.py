"""Sampling goes on after a kill, and its shares are put together in the questions' order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from citepipe.data.example import Example
from citepipe.data.files import read_examples, read_json, read_jsonl, write_examples, write_jsonl
from citepipe.data.prompts import Prompt
from citepipe.errors import InputError
from citepipe.generate.completion import Completion, Generator, Request
from citepipe.options import (
    BestOfNOptions,
    MinReward,
    ModelOptions,
    PromptOptions,
)
from citepipe.sample import best_of_n
from citepipe.sample.job import Ids, Job, Method, Record, Share, choose_questions, chunk_by_chunk
from citepipe.sample.merge import merge
from tests.sample.test_segment_search import Speaker, Taste

# Ids come again in another dataset.
QUESTIONS = [
    Example(f"q{i}", dataset, f"Question {i}?", ())
    for i, dataset in enumerate(["asqa", "eli5", "asqa", "asqa", "eli5"])
] + [Example("q0", "eli5", "Another?", ())]
NAMES = [f"{question.dataset}/{question.id}" for question in QUESTIONS]


PROMPTS = [Prompt("", (number,), False) for number in range(6)]


class Two(Speaker):
    """Two questions are answered at once; it dies after `patience` answers."""

    capacity = 2

    def __init__(self, patience: int = 99) -> None:
        super().__init__()
        self.patience = patience

    def say(self, request: Request, sample: int) -> Completion:
        if self.patience == 0:
            raise KeyboardInterrupt
        self.patience -= 1
        return super().say(request, sample)

    @property
    def requested(self) -> list[str]:
        """The questions that were answered, in order."""
        return [request.key for call in self.calls for request in call]


def _run(state: Path, speaker: Two, per_question: int | None = 1) -> list[Record]:
    """The records of all questions, an answer each."""
    state.mkdir(exist_ok=True)

    def sample(
        examples: Sequence[Example], prompts: Sequence[Ids], generator: Generator
    ) -> list[Record]:
        options = BestOfNOptions(n=1, max_new_tokens=9)
        return best_of_n.best_of_n(examples, prompts, generator, Taste(), options, 0)

    method = Method("test", "answers", sample, per_question, Taste())
    return chunk_by_chunk(method, QUESTIONS, PROMPTS, speaker, state)[0]


def test_a_run_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    """The third of six answers is the last: it and the two before are not generated again."""
    whole = _run(tmp_path / "whole", Two())
    assert [f"{record['dataset']}/{record['id']}" for record in whole] == NAMES
    for per_question in (1, None):
        state = tmp_path / f"{per_question}"
        with pytest.raises(KeyboardInterrupt):
            _run(state, Two(patience=3), per_question)
        with (state / "candidates.jsonl").open("a") as journal:
            journal.write('{"id": "q2", "cand')
        again = Two()
        assert _run(state, again, per_question) == whole
        assert again.requested == NAMES[3:]


def test_progress_shows_what_is_generated_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path, Two())
    said = capsys.readouterr().err
    assert all(name in said for name in ("6/6", "answers/s", "tokens/s", "pairs/s"))


def _job(tiny_base: Path, state: Path, **others: object) -> Job:
    """A tiny model whose answers the lexical verifier judges."""
    settings = {
        "model": ModelOptions(base=str(tiny_base), dtype="float32"),
        "adapter": None,
        "prompt": PromptOptions(instruction="Say.", max_input_tokens=100),
        "server": None,
        "state": state,
        "fingerprint": "a",
        "seed": 3,
        "threads": 1,
    }
    return Job(**{**settings, **others})  # type: ignore[arg-type]


def test_shares_are_put_together_in_the_questions_order(tiny_base: Path, tmp_path: Path) -> None:
    # The last two shares have no questions.
    shards, questions = 8, tmp_path / "questions.json"
    write_examples(questions, QUESTIONS)
    parts = [tmp_path / f"{shard}.jsonl" for shard in range(shards)]
    for shard, part in enumerate(parts):
        job = _job(tiny_base, tmp_path / f"{shard}.state")
        options = BestOfNOptions(n=2, max_new_tokens=3)
        best_of_n.run(job, Share(questions, shard, shards, part), options)
        assert not job.state.exists()
        assert [len(record["candidates"]) for record in read_jsonl(part)] == [2] * len(
            QUESTIONS[shard::shards]
        )
    files = tmp_path / "answers.json", tmp_path / "candidates.jsonl"
    merge(questions, None, None, 3, parts, *files)
    assert [f"{r['dataset']}/{r['id']}" for r in read_jsonl(files[1])] == NAMES


LIST = "A [1], B [2]."


def _candidate(reward: float, text: str = "Yes.", finish: str = "end") -> Record:
    return {"text": text, "reward": reward, "tokens": 3, "finish": finish}


@pytest.mark.parametrize(
    ("min_reward", "chosen", "dropped"),
    [
        ("greedy", {"q0": "Yes.", "q3": LIST}, {"cut_off": 1, "no_better_than_greedy": 1}),
        (0.2, {"q3": LIST}, {"cut_off": 1, "not_above_0.2": 2}),
        (None, {"q0": "Yes.", "q2": "Yes.", "q3": LIST}, {"cut_off": 1}),
    ],
)
def test_what_is_learnt_has_an_end_and_earns_more_than_the_least(
    tmp_path: Path, min_reward: MinReward, chosen: dict[str, str], dropped: dict[str, int]
) -> None:
    """q0 is better than greedy, q1 only cut off, q2 as good as greedy, q3 (a list that was still
    open) best when cut off."""
    asked = [Example(f"q{i}", "qampari" if i == 3 else "asqa", "?", ()) for i in range(5)]
    write_examples(tmp_path / "questions.json", asked)
    best = [_candidate(0.1)], [_candidate(0.6, finish="length")], [_candidate(0.2)]
    samples = [
        *best,
        [_candidate(0.9, finish="length"), _candidate(0.4, "A [1], B [2],", "segment")],
    ]
    samples.append([_candidate(0.9, text="")])
    greedy = [-0.1, 0.0, 0.2, 0.3, 0.0]
    records = [
        {"id": e.id, "dataset": e.dataset, "candidates": own, "sampled_tokens": 3 * len(own)}
        | {"greedy": _candidate(least)}
        for e, own, least in zip(asked, samples, greedy, strict=True)
    ]
    write_jsonl(tmp_path / "part.jsonl", records)
    files = tmp_path / "answers.json", tmp_path / "candidates.jsonl"
    said = merge(
        tmp_path / "questions.json", None, min_reward, 0, [tmp_path / "part.jsonl"], *files
    )
    assert {e.id: e.output for e in read_examples(files[0])} == chosen
    account = read_json(tmp_path / "account.json")
    means = account.pop("mean_reward_of_the_chosen"), account.pop("of_their_greedy_answers")
    counts = {"questions": 5, "chosen": len(chosen), "without_answer": 1, "tokens_sampled": 18}
    assert account == counts | dropped
    taken = [int(name[1]) for name in chosen]
    rewards = [[0.1, 0.6, 0.2, 0.4][i] for i in taken], [greedy[i] for i in taken]
    assert means == tuple(pytest.approx(sum(own) / len(own)) for own in rewards)
    assert "tokens sampled 18, mean reward of the chosen" in said
    # Chosen anew from all samples, as a system with `samples_of` does.
    again = tmp_path / "again.json", tmp_path / "all.jsonl"
    merge(tmp_path / "questions.json", None, None, 0, [files[1]], *again)
    assert [e.id for e in read_examples(again[0])] == ["q0", "q2", "q3"]
    if min_reward == "greedy":
        line = "of 5 there is none: 1 without answer, 1 cut off, 3 not above 0.6"
        with pytest.raises(InputError, match=line):
            merge(tmp_path / "questions.json", None, 0.6, 0, [tmp_path / "part.jsonl"], *files)


def test_a_question_that_no_share_has_is_named(tmp_path: Path) -> None:
    write_examples(tmp_path / "questions.json", QUESTIONS)
    parts = [tmp_path / f"{shard}.jsonl" for shard in range(2)]
    for shard, part in enumerate(parts):
        write_jsonl(part, [{"id": q.id, "dataset": q.dataset} for q in QUESTIONS[shard::2]])
    write_jsonl(parts[1], read_jsonl(parts[1])[:1])
    out = tmp_path / "answers.json"
    with pytest.raises(InputError, match=r"1\.jsonl: expected the question asqa/q3, it is not"):
        merge(tmp_path / "questions.json", None, None, 0, parts, out, tmp_path / "candidates.jsonl")
    assert not out.exists()


def test_the_seed_chooses_the_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    write_examples(path, QUESTIONS)
    assert choose_questions(path, None, 0) == QUESTIONS
    two = choose_questions(path, 2, 0)
    assert len(two) == 2
    assert two == choose_questions(path, 2, 0)
    assert any(choose_questions(path, 2, seed) != two for seed in range(1, 9))
