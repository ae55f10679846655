"""A trained adapter on the tiny base, a few examples, and runs of every stage on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from citepipe.data.example import Document, Example
from citepipe.data.files import write_examples, write_jsonl
from citepipe.options import (
    AdapterOptions,
    DPOOptions,
    ModelOptions,
    PromptOptions,
    RewardOptions,
    SFTOptions,
)
from citepipe.train import dpo, rl, sft
from citepipe.train.job import Job
from citepipe.train.methods import METHODS

ADAPTER = "adapter_model.safetensors"
GOOD = "Silver River was directed by Anna Berg in 1995 [1]."
BAD = "It is not known."
DOCS = (
    Document("Silver River", "Silver River was directed by Anna Berg in 1995."),
    Document("Golden Hill", "Golden Hill was directed by Paul Stone in 2001."),
)


class Stage(NamedTuple):
    """A training stage, and what its `run` and its job take, without folders."""

    module: ModuleType
    call: dict[str, Any]

    def run(self, folder: Path, **changed: Any) -> Path:
        """Run it in a folder, with some arguments, fields of the job or options changed."""
        fields = {field.name for field in dataclasses.fields(Job)}
        call = self.call | {"out": folder / "out", "state": folder / "state"}
        call |= {name: changed.pop(name) for name in list(changed) if name in fields | call.keys()}
        call["options"] = call["options"].model_copy(update=changed)
        job = Job(**{name: value for name, value in call.items() if name in fields})
        self.module.run(job, **{n: value for n, value in call.items() if n not in fields})
        return folder / "out"


def candidates(*rewarded: tuple[str, float]) -> list[dict[str, Any]]:
    """Sampled answers with their rewards."""
    return [{"text": t, "reward": r, "rewards": {"correctness": r}} for t, r in rewarded]


def write_candidates(path: Path, **questions: list[dict[str, Any]]) -> Path:
    """A file of sampled answers to questions, by their ids."""
    records = [{"id": q, "dataset": "asqa", "candidates": c} for q, c in questions.items()]
    write_jsonl(path, records)
    return path


@contextmanager
def cut_off(owner: Any, name: str, call: int = 1) -> Iterator[None]:
    """Cut off what runs inside in a call of `owner.name`, counted from 1."""
    original, calls = getattr(owner, name), iter(range(1, 10_000))

    def dying(*args: Any, **more: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(KeyboardInterrupt):
            yield


def assert_close(expected: Path, found: Path, atol: float = 1e-5, rtol: float = 1e-4) -> None:
    """Assert that two files hold nearly the same weights."""
    ours, theirs = load_file(expected), load_file(found)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=atol, rtol=rtol)


@pytest.fixture(scope="session")
def options(tiny_base: Path) -> ModelOptions:
    adapter = AdapterOptions(r=4, alpha=8, dropout=0.1)
    return ModelOptions(base=str(tiny_base), dtype="float32", adapter=adapter)


@pytest.fixture(scope="session")
def prompt() -> PromptOptions:
    return PromptOptions(
        instruction="",
        demo_prompt="Question: {Q}\n{D}Answer:",
        doc_prompt="[{ID}] {T}: {P}\n",
        max_input_tokens=300,
    )


@pytest.fixture(scope="session")
def common(
    options: ModelOptions, prompt: PromptOptions, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What all stages take: twelve train and four dev questions, with answers to learn."""
    call: dict[str, Any] = {"model": options, "prompt": prompt, "start": None}
    for split, count in (("train", 12), ("dev", 4)):
        examples = [
            Example(f"{split}-{i}", "asqa", f"Who directed film {i}?", DOCS, output=GOOD)
            for i in range(count)
        ]
        call[split] = tmp_path_factory.mktemp("data") / f"{split}.json"
        write_examples(call[split], examples)
    return call | {"fingerprint": "a", "seed": 0, "threads": 1}


@pytest.fixture(scope="session")
def supervised(common: dict[str, Any]) -> Stage:
    """Fine-tuning: six steps, a dev loss after every other."""
    steps = {"max_steps": 6, "evaluations": 3, "save_every": 2}
    options = SFTOptions(batch_size=5, learning_rate=1e-2, max_grad_norm=1.0, **steps)
    return Stage(sft, common | {"options": options})


@pytest.fixture
def steady(supervised: Stage) -> Stage:
    """Without dropout, whose draws differ with passes and processes."""
    model = supervised.call["model"]
    adapter = model.adapter.model_copy(update={"dropout": 0.0})
    return Stage(sft, supervised.call | {"model": model.model_copy(update={"adapter": adapter})})


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, supervised: Stage) -> Path:
    """The adapter that a short supervised run on the train questions makes."""
    folder = tmp_path_factory.mktemp("adapter")
    return supervised.run(folder, max_steps=20, batch_size=4, evaluations=2)


@pytest.fixture(scope="session")
def whole(options: ModelOptions, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained adapter merged into a whole model."""
    from citepipe.models.load import load_for_inference

    directory = tmp_path_factory.mktemp("whole")
    load_for_inference(options, adapter).save_pretrained(directory)
    return directory


@pytest.fixture
def preferring(common: dict[str, Any], adapter: Path, tmp_path: Path) -> Stage:
    """Direct preference optimization: six steps, a dev loss after every third."""
    sampled = {f"train-{i}": candidates((BAD, -0.2), (GOOD, 0.6)) for i in range(12)}
    call = {key: value for key, value in common.items() if key not in ("train", "dev")} | {
        "samples": write_candidates(tmp_path / "candidates.jsonl", **sampled),
        "questions": common["train"],
        "start": adapter,
    }
    steps = {"max_steps": 6, "evaluations": 2, "save_every": 2}
    return Stage(dpo, call | {"options": DPOOptions(batch_size=4, learning_rate=1e-2, **steps)})


SETTINGS: dict[str, Any] = {
    "episodes": 24,
    "prompts_per_step": 3,
    "samples_per_prompt": 2,
    "epochs_per_rollout": 2,
    "minibatches": 2,
    "tokens_per_pass": 200,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "kl_coef": 0.05,
    "temperature": 1.0,
    "top_k": 0,
    "max_new_tokens": 12,
    "evaluations": 2,
    "save_every": 1,
}


@pytest.fixture
def reinforced(common: dict[str, Any], adapter: Path) -> dict[str, Stage]:
    """Reinforcement learning by every method: four steps, dev rewards after every other."""
    call = {"reward": RewardOptions(), "placement": "fine_grained", "verifier": "lexical"}
    call |= common | {"start": adapter, "cache": None, "watch": None}
    return {
        name: Stage(rl, call | {"method": name, "options": method.options(**SETTINGS)})
        for name, method in METHODS.items()
    }
