"""A trained adapter on the tiny base, and a few examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from citepipe.data.example import Document, Example
from citepipe.data.files import write_examples
from citepipe.options import AdapterOptions, ModelOptions, PromptOptions, SFTOptions
from citepipe.train.job import Job

DOCS = (
    Document("Silver River", "Silver River was directed by Anna Berg in 1995."),
    Document("Golden Hill", "Golden Hill was directed by Paul Stone in 2001."),
)


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
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twelve train and four dev questions, with answers to learn."""
    folder = tmp_path_factory.mktemp("data")
    paths = {}
    for split, count in (("train", 12), ("dev", 4)):
        examples = [
            Example(
                id=f"{split}-{i}",
                dataset="asqa",
                question=f"Who directed film {i}?",
                docs=DOCS,
                output="Silver River was directed by Anna Berg in 1995 [1].",
            )
            for i in range(count)
        ]
        paths[split] = folder / f"{split}.json"
        write_examples(paths[split], examples)
    return paths


def run(stage: ModuleType, call: Mapping[str, Any]) -> str:
    """Run a stage with the fields of its job and its other arguments, all in one mapping."""
    fields = {field.name for field in dataclasses.fields(Job)}
    job = Job(**{name: value for name, value in call.items() if name in fields})
    line: str = stage.run(job, **{n: value for n, value in call.items() if n not in fields})
    return line


def assert_close(expected: Path, found: Path, atol: float = 1e-5, rtol: float = 1e-4) -> None:
    """Assert that two files hold nearly the same weights."""
    ours, theirs = load_file(expected), load_file(found)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=atol, rtol=rtol)


@pytest.fixture(scope="session")
def supervised(
    options: ModelOptions, prompt: PromptOptions, files: dict[str, Path]
) -> dict[str, Any]:
    """What `run` takes for `sft`, without folders: six steps, a dev loss after every other."""
    return {
        "train": files["train"],
        "dev": files["dev"],
        "model": options,
        "prompt": prompt,
        "options": SFTOptions(
            max_steps=6,
            batch_size=5,
            learning_rate=1e-2,
            evaluations=3,
            save_every=2,
            max_grad_norm=1.0,
        ),
        "start": None,
        "fingerprint": "a",
        "seed": 0,
        "threads": 1,
    }


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, supervised: dict[str, Any]) -> Path:
    """The adapter that a short supervised run on the train questions makes."""
    from citepipe.train import sft

    folder = tmp_path_factory.mktemp("adapter")
    options = SFTOptions(max_steps=20, batch_size=4, learning_rate=1e-2, evaluations=2)
    call = supervised | {"options": options}
    run(sft, call | {"out": folder / "out", "state": folder / "state"})
    return folder / "out"


@pytest.fixture(scope="session")
def whole(options: ModelOptions, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained adapter merged into a whole model."""
    from citepipe.models.load import load_for_inference

    directory = tmp_path_factory.mktemp("whole")
    load_for_inference(options, adapter).save_pretrained(directory)
    return directory
