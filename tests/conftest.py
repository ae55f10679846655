"""Tiny real models that tests build: the code under test loads them as it loads any other."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

TEXTS = [
    "Question: Who directed Silver River?\nDocument [1](Title: Silver River): Silver River was "
    "directed by Anna Berg in 1995. It cost 3.5 million.\nAnswer: It was directed by Anna Berg "
    "[1].",
    "Where was Anna Berg born? Anna Berg was born in Zürich, Switzerland [2][3].",
]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights and a byte-level BPE tokenizer, in a directory."""
    import torch

    from tests.tokenizer import tiny_llama, train_tokenizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, 320, 512)
    settings = {"num_hidden_layers": 2, "tie_word_embeddings": True, "initializer_range": 0.3}
    model = tiny_llama(tokenizer, **settings)
    directory = tmp_path_factory.mktemp("tiny-base")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(autouse=True)
def _every_machine_computes_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifiers' `dtype: auto` is bfloat16 on some; what tests expect is exact."""
    decide = "citepipe.models.pretrained.precision"
    monkeypatch.setattr(decide, lambda own, _: "float32" if own == "auto" else own)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of a client between attempts, in seconds, which are not waited for."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        slept.append(seconds)
        await sleep(min(seconds, 0.001))

    monkeypatch.setattr("asyncio.sleep", pause)
    monkeypatch.setattr("anyio.sleep", pause)
    return slept
