"""Stages that have a server answer: it may move, die or be left in the middle of a job."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from citepipe.data.files import read_jsonl
from tests.generate.loopback_server import LoopbackServer

from .command import ENVIRONMENT, SNAKEMAKE, snakemake, stale
from .tiny import write_project

QUESTIONS, SAMPLES = 5, 4
MODEL = "results/models/dist/seed0"
PREDICTED = "results/predictions/dist/seed0/asqa.json"
SAMPLED = "results/samples/h_rs/seed0"


class Speaker:
    """Answers by the seed alone; it can be slow, and it can take its server down.

    Attributes:
        last: how many answers are given before the server dies.
        pause: seconds that an answer takes.
    """

    def __init__(self, base: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(base)
        self.words = tokenizer("It was directed by Anna Berg [1][2].")["input_ids"]
        self.last, self.pause = 10**9, 0.0
        self._counting = threading.Lock()
        self.server = LoopbackServer(
            self.answer, tokenizer.decode, tokenizer.eos_token_id, root=str(base)
        )

    def answer(self, body: dict[str, Any]) -> Iterator[tuple[int, float]]:
        with self._counting:
            self.last -= 1
        if self.last < 0:
            self.server.die()
        time.sleep(self.pause)
        dice = random.Random(body["seed"])
        while dice.random() < 0.9:
            yield dice.choice(self.words), -0.5
        yield self.server.end_id, -0.5

    @property
    def asked(self) -> list[int]:
        """The seeds of all completions that were asked for."""
        return [body["seed"] for body in self.server.bodies]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has a trained model."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["best_of_n"] |= {"questions": QUESTIONS, "n": SAMPLES}
    config["verifiers"]["train"] = "lexical"
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = snakemake(folder, "--", MODEL)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def speaker(project: Path) -> Iterator[Speaker]:
    found = Speaker(project / "models" / "base")
    with found.server:
        yield found


def served(speaker: Speaker, *others: str) -> tuple[str, ...]:
    """Arguments that have the server answer."""
    options = ", ".join([f"url: {speaker.server.url}", "concurrency: 1", "retries: 0", *others])
    return ("--config", f"server={{{options}}}", "--")


def test_a_server_that_moves_makes_nothing_stale(project: Path, speaker: Speaker) -> None:
    done = snakemake(project, *served(speaker), PREDICTED)
    assert done.returncode == 0, done.stdout
    # It answers with the system's adapter, which it was made to load.
    assert {body["model"].split("-")[0] for body in speaker.server.bodies} == {"citepipe"}
    moved = "server={url: 'http://127.0.0.1:9/v1', concurrency: 3, retries: 1, timeout: 5}"
    assert stale(project, "--config", moved, "--", PREDICTED) == set()
    # Nor does another size of the batches, in this process or on a server.
    assert stale(project, "--config", moved, "predict={batch_size: 3}", "--", PREDICTED) == set()
    longer = "predict={max_new_tokens: 13}"
    assert stale(project, "--config", moved, longer, "--", PREDICTED) == {"predict dist"}
    named = "server={url: 'http://127.0.0.1:9/v1', model: another}"
    assert stale(project, "--config", named, "--", PREDICTED) == {"predict dist"}
    assert stale(project, "--", PREDICTED) == {"predict dist"}


def gpus(project: Path, *arguments: str) -> dict[str, int]:
    """What the jobs of a dry run ask for."""
    done = snakemake(project, "--dry-run", "--forceall", "--quiet", "host", *arguments)
    blocks = re.split(r"^(?=(?:local)?rule \w+:)", done.stdout, flags=re.MULTILINE)[1:]
    found = {}
    for block in blocks:
        asked = re.search(r"\bgpu=(\d)", block)
        found[re.split(r"[ :]", block)[1]] = int(asked[1]) if asked else 0
    return found


def test_with_a_server_only_a_verifier_wants_a_gpu(project: Path, speaker: Speaker) -> None:
    wanted = ["results/predictions/searched/seed0/asqa.json", PREDICTED]
    wanted.append(f"{SAMPLED}/answers.json")
    alone = gpus(project, "--", *wanted)
    generating = ("best_of_n", "predict", "predict_by_search")
    assert [alone[rule] for rule in generating] == [1, 1, 1]
    lexical = gpus(project, *served(speaker), *wanted)
    assert [lexical[rule] for rule in generating] == [0, 0, 0]
    assert lexical["sft"] == 1
    assert lexical["merge_samples"] == 0
    with_model = (project / "config.yaml").read_text().replace("train: lexical", "train: x/y")
    (project / "model.yaml").write_text(with_model)
    neural = gpus(project, "--configfile", "model.yaml", *served(speaker), *wanted)
    assert [neural[rule] for rule in generating] == [1, 0, 1]


def test_neither_a_server_that_dies_nor_a_kill_loses_a_finished_answer(
    project: Path, speaker: Speaker
) -> None:
    shutil.rmtree(project / SAMPLED, ignore_errors=True)
    speaker.last = 7
    done = snakemake(project, *served(speaker), f"{SAMPLED}/candidates.jsonl")
    assert done.returncode == 1
    assert speaker.server.url in done.stdout
    assert "Traceback" not in done.stdout
    assert len(speaker.asked) >= 8
    before, speaker.last = len(speaker.asked), 10**9
    speaker.server.start()
    done = snakemake(project, *served(speaker), f"{SAMPLED}/candidates.jsonl")
    assert done.returncode == 0, done.stdout
    assert "going on after 1 of 5 questions" in done.stdout
    assert "3 answers of unfinished questions are there already" in done.stdout
    again = speaker.asked[before:]
    assert len(again) == QUESTIONS * SAMPLES - 7
    assert not set(speaker.asked[:7]) & set(again)
    assert len(list(read_jsonl(project / SAMPLED / "candidates.jsonl"))) == QUESTIONS
    # Then the job is killed, in the middle of a shard: it goes on, and the files are the same.
    files = [project / SAMPLED / name for name in ("candidates.jsonl", "answers.json")]
    whole = [file.read_bytes() for file in files]
    shutil.rmtree(project / SAMPLED)
    speaker.server.bodies.clear()
    speaker.pause = 0.3
    command = [*SNAKEMAKE, "--set-scatter", "shards=2", *served(speaker)]
    run = subprocess.Popen(
        [*command, f"{SAMPLED}/candidates.jsonl"],
        cwd=project,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert run.stderr is not None
    journals = (project / SAMPLED / "shards").glob
    while run.poll() is None and not list(journals("*.state/c*.jsonl")):
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    # The pipe closes when the jobs themselves, which hold it too, have ended.
    run.stderr.read()
    first = len(speaker.asked)
    assert 0 < first < QUESTIONS * SAMPLES
    speaker.pause = 0.0
    speaker.server.bodies.clear()
    done = snakemake(
        project,
        "--rerun-incomplete",
        "--set-scatter",
        "shards=2",
        *served(speaker),
        f"{SAMPLED}/candidates.jsonl",
    )
    assert done.returncode == 0, done.stdout
    assert "there already" in done.stdout or "going on after" in done.stdout
    assert len(speaker.asked) < QUESTIONS * SAMPLES
    assert [file.read_bytes() for file in files] == whole
