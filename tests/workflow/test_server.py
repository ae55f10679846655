"""A stage whose answers a server gives, which dies in the middle of the job."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoTokenizer

from citepipe.data.files import read_jsonl
from tests.generate.loopback_server import LoopbackServer

from .project import read_config, snakemake
from .tiny import write_project

QUESTIONS, SAMPLES = 5, 4
SAMPLED = "results/samples/h_rs/seed0"


class Speaker:
    """Answers by the seed alone, `last` times, and then takes its server down."""

    def __init__(self, base: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(base)
        self.words = tokenizer("It was directed by Anna Berg [1][2].")["input_ids"]
        self.last = 10**9
        self._counting = threading.Lock()
        self.server = LoopbackServer(
            self.answer, tokenizer.decode, tokenizer.eos_token_id, root=str(base)
        )

    def answer(self, body: dict[str, Any]) -> Iterator[tuple[int, float]]:
        with self._counting:
            self.last -= 1
        if self.last < 0:
            self.server.die()
        dice = random.Random(body["seed"])
        while dice.random() < 0.9:
            yield dice.choice(self.words), -0.5
        yield self.server.end_id, -0.5

    @property
    def seeds(self) -> list[tuple[int, float]]:
        """The seeds of all completions that were requested, and their temperatures: the likeliest
        answer has the seed of the first sample."""
        return [(body["seed"], body["temperature"]) for body in self.server.bodies]


def test_a_server_that_dies_loses_no_finished_answer(tmp_path: Path) -> None:
    write_project(tmp_path)
    config = read_config(tmp_path)
    config["best_of_n"] |= {"questions": QUESTIONS, "n": SAMPLES}
    config["verifiers"]["train"] = "lexical"
    data = {"sample": "best_of_n", "from": "dist"}
    config["systems"]["h_rs"] = {"train": "sft", "start": "dist", "data": data}
    speaker = Speaker(tmp_path / "models" / "base")
    with speaker.server:
        config["server"] = {"url": speaker.server.url, "concurrency": 1, "retries": 0}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        speaker.last = 7
        done = snakemake(tmp_path, "--", f"{SAMPLED}/candidates.jsonl")
        assert done.returncode == 1
        assert speaker.server.url in done.stdout
        assert "Traceback" not in done.stdout
        assert len(speaker.seeds) >= 8
        before, speaker.last = len(speaker.seeds), 10**9
        speaker.server.start()
        done = snakemake(tmp_path, "--", f"{SAMPLED}/candidates.jsonl")
    assert done.returncode == 0, done.stdout
    again = speaker.seeds[before:]
    # Each question's likeliest answer is asked for too.
    assert len(again) == QUESTIONS * (SAMPLES + 1) - 7
    assert not set(speaker.seeds[:7]) & set(again)
    assert len(list(read_jsonl(tmp_path / SAMPLED / "candidates.jsonl"))) == QUESTIONS
