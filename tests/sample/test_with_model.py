"""Sampling with a real, tiny model: as a plain program does it, in any batch and any shares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from citepipe.data.example import Example
from citepipe.data.files import read_examples, read_jsonl, write_examples
from citepipe.generate.engine import HuggingFaceGenerator, Sequence
from citepipe.miniature.world import build_world, teach
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.models.load import load_base, load_for_inference, load_tokenizer
from citepipe.options import (
    BestOfNOptions,
    FaultOptions,
    MiniatureOptions,
    ModelOptions,
    PredictOptions,
    RewardOptions,
    SegmentSearchOptions,
    WorldOptions,
)
from citepipe.sample import best_of_n, predict, segment_search
from citepipe.sample.job import Job, Share
from citepipe.sample.merge import merge
from tests.sample.plain_search import PlainModel, PlainRewards, plain_search

SEED = 1
BASE = Path(__file__).parents[2] / "workflow" / "resources" / "miniature-base"
PROMPT = MiniatureOptions().prompt
REWARD = RewardOptions()
SEARCH = {
    "beams": 3,
    "samples_per_beam": 2,
    "depth": 3,
    "depth_list": 4,
    "max_new_tokens": 30,
    "temperature": 1.3,
    "top_k": 30,
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelOptions]:
    """A folder with questions of the miniature, and an adapter that has just begun to cite."""
    folder = tmp_path_factory.mktemp("given")
    options = ModelOptions(base=str(BASE), dtype="float32")
    world = build_world(WorldOptions(train=30, dev=4, test=1, expertqa=1), seed=0)
    write_examples(folder / "questions.json", [drawn.example for drawn in world["dev"]])
    tokenizer = load_tokenizer(options)
    torch.manual_seed(0)
    adapter = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_base(options), adapter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    taught = teach(world["train"], FaultOptions(), 0)
    for step in range(30):
        optimizer.zero_grad()
        for example in taught[3 * step : 3 * step + 3]:
            prompt = encode_prompt(example, PROMPT, tokenizer)
            assert example.output is not None
            answer = encode_answer(prompt, example.output, tokenizer, 64)
            ids = torch.tensor([[*prompt.token_ids, *answer]])
            labels = ids.clone()
            labels[0, : len(prompt.token_ids)] = -100
            model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder / "adapter")
    return folder, options


def _job(given: tuple[Path, ModelOptions], state: Path) -> Job:
    folder, model = given
    return Job(model, folder / "adapter", PROMPT, None, state, "f", SEED, threads=1, reward=REWARD)


def _sample(
    given: tuple[Path, ModelOptions],
    out: Path,
    options: BestOfNOptions | SegmentSearchOptions,
    shards: int = 1,
) -> tuple[bytes, bytes]:
    """The two files that sampling writes."""
    folder, parts = given[0], []
    for shard in range(shards):
        parts.append(out / f"{shard}.jsonl")
        job = _job(given, out / f"{shard}.state")
        run = best_of_n.run if isinstance(options, BestOfNOptions) else segment_search.run
        run(job, Share(folder / "questions.json", shard, shards, parts[-1]), options)
    files = out / "answers.json", out / "candidates.jsonl"
    merge(folder / "questions.json", None, None, SEED, parts, *files)
    return files[0].read_bytes(), files[1].read_bytes()


def _plainly(
    given: tuple[Path, ModelOptions],
    examples: list[Example],
    options: SegmentSearchOptions,
    reward: RewardOptions,
) -> list[dict[str, Any]]:
    """The records of a plain program."""
    folder, model = given
    tokenizer = load_tokenizer(model)
    speak = PlainModel(load_for_inference(model, folder / "adapter"), tokenizer)
    worth = PlainRewards("lexical", reward)
    prompts = [encode_prompt(example, PROMPT, tokenizer).token_ids for example in examples]
    both = zip(examples, prompts, strict=True)
    return [plain_search(e, prompt, options, SEED, speak, worth) for e, prompt in both]


def test_the_search_is_that_of_a_plain_program(
    given: tuple[Path, ModelOptions], tmp_path: Path
) -> None:
    options = SegmentSearchOptions(**SEARCH)
    _sample(given, tmp_path, options)
    records = read_jsonl(tmp_path / "candidates.jsonl")
    examples = read_examples(given[0] / "questions.json")
    _, greedy = _predict(given, tmp_path / "greedy", None)
    likeliest = {e.id: e.output for path in greedy.values() for e in read_examples(path)}
    for record in records:
        assert record.pop("greedy")["text"] == likeliest[record["id"]]
        for own in record["candidates"]:
            found = sum(sum(parts.values()) for _, _, parts in own.pop("standing"))
            assert found == pytest.approx(own["reward"], abs=1e-5)
    assert records == _plainly(given, examples, options, REWARD)
    ends = {d["finish"] for r in records for step in r["steps"] for d in step["drawn"]}
    assert {"segment", "length"} <= ends, "the model ends segments, and answers run into the limit"
    assert any(len(record["steps"]) == 3 for record in records)


@pytest.mark.parametrize("options", [BestOfNOptions(n=4, max_new_tokens=20), None])
def test_files_are_the_same_in_any_batch_and_any_shares(
    given: tuple[Path, ModelOptions], tmp_path: Path, options: BestOfNOptions | None
) -> None:
    chosen = options or SegmentSearchOptions(**SEARCH)
    found = {
        _sample(
            given,
            tmp_path / f"{batch}-{shards}",
            chosen.model_copy(update={"batch_size": batch}),
            shards,
        )
        for batch, shards in ((None, 1), (1, 1), (64, 1), (3, 4), (None, 4))
    }
    assert len(found) == 1


def _predict(
    given: tuple[Path, ModelOptions], out: Path, options: SegmentSearchOptions | None
) -> tuple[str, dict[str, Path]]:
    """The summary line and the result file of each dataset."""
    datasets = ("asqa", "qampari", "eli5")
    examples = read_examples(given[0] / "questions.json")
    tests = {dataset: out / f"{dataset}.in.json" for dataset in datasets}
    for dataset, path in tests.items():
        write_examples(path, [e for e in examples if e.dataset == dataset])
    outs = {dataset: out / f"{dataset}.json" for dataset in datasets}
    arguments = _job(given, out / "state"), PredictOptions(max_new_tokens=30), tests, outs
    if options is None:
        return predict.run(*arguments), outs
    return segment_search.run_prediction(*arguments, options), outs


def test_prediction_by_search_takes_the_best_cited_answer(
    given: tuple[Path, ModelOptions], tmp_path: Path
) -> None:
    options = SegmentSearchOptions(**SEARCH)
    said, outs = _predict(given, tmp_path, options)
    assert "answers 12, cut at a stop 1, cut off 0" in said
    cited = REWARD.model_copy(update={"correctness": 0.0})
    for path in outs.values():
        written = json.loads(path.read_text())
        assert written["args"]["decoding"] == "segment_search"
        assert written["args"]["verifier"] == "lexical"
        assert (written["args"]["dataset"], written["args"]["seed"]) == (path.stem, SEED)
        answered = read_examples(path)
        records = _plainly(given, answered, options, cited)
        texts = [[c["text"] for c in record["candidates"] if c["text"]] for record in records]
        assert [example.output for example in answered] == [(own or [""])[0] for own in texts]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("options", [None, SegmentSearchOptions(**SEARCH)])
def test_prediction_goes_on_where_it_was_cut_off(
    given: tuple[Path, ModelOptions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: SegmentSearchOptions | None,
) -> None:
    """After the tenth completion, which is none of a finished answer: it is not made again."""
    patience, made = 10**9, 0
    complete = HuggingFaceGenerator._complete

    def count(*arguments: Any) -> Iterator[Sequence]:
        nonlocal made
        for sequence in complete(*arguments):
            if made == patience:
                raise KeyboardInterrupt
            made += 1
            yield sequence

    monkeypatch.setattr(HuggingFaceGenerator, "_complete", count)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _, expected = _predict(given, whole, options)
    in_one_go, made, patience = made, 0, 10
    with pytest.raises(KeyboardInterrupt):
        _predict(given, cut, options)
    assert len((cut / "state" / "completions.jsonl").read_text().splitlines()) == 10
    patience = 10**9
    _, found = _predict(given, cut, options)
    assert made == in_one_go
    for dataset, path in expected.items():
        assert path.read_bytes() == found[dataset].read_bytes()
    assert not (cut / "state").exists()
