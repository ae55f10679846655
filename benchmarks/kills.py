"""Does training survive `kill -9` anywhere? Runs are killed at random moments and started again.

    python benchmarks/kills.py

Every run is a process of its own that trains an adapter of the miniature's base model for a few
steps and saves its state after each. One run per stage is never killed. Others are killed again and
again: half of the times at any moment, half just when files are written, by saving or publishing,
which a kill at any moment would seldom meet. What they end with, weights and metrics, has to be the
same byte for byte, and nothing that was published may ever be anything else.

Processes are forked from one that has imported everything, so that a start costs no seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import BASE, Report, argument_parser
from odd_answers import taught_examples
from transformers.models.llama import modeling_llama  # noqa: F401 (imported before the fork)

from citepipe.data.files import write_examples, write_jsonl
from citepipe.options import (
    AdapterOptions,
    DPOOptions,
    MiniatureOptions,
    ModelOptions,
    RewardOptions,
    SFTOptions,
)
from citepipe.train import dpo, rl, sft
from citepipe.train.job import Job
from citepipe.train.methods import METHODS

STAGES = ("sft", "ppo", "grpo", "dpo")
_DAMAGE = ("damaged", "corrupt", "Traceback", "cut off or")
# Seconds: longer than any run takes, and the earliest kill, since the process must be there.
_PATIENCE, _EARLIEST = 120.0, 0.05
# Seconds that saving a state takes, at most.
_SAVING = 0.03
# Failures after which a stage is given up.
_ENOUGH = 5


def train(stage: str, folder: Path, own: Path) -> None:
    """A run of a stage, in the child; all but the first start from what `sft` has published."""
    job = Job(
        model=ModelOptions(
            base=str(BASE), dtype="float32", adapter=AdapterOptions(r=4, alpha=8, dropout=0.1)
        ),
        prompt=MiniatureOptions().prompt,
        start=None if stage == "sft" else folder / "sft" / "peaceful" / "out",
        out=own / "out",
        state=own / "state",
        fingerprint="kills",
        seed=0,
        threads=1,
    )
    questions, dev = folder / "train.json", folder / "dev.json"
    supervised: dict[str, Any] = {"batch_size": 4, "max_output_tokens": 48, "save_every": 1}
    if stage == "sft":
        options = SFTOptions(max_steps=12, learning_rate=3e-3, evaluations=4, **supervised)
        sft.run(job, questions, dev, options)
    elif stage == "dpo":
        preferences = DPOOptions(max_steps=8, learning_rate=1e-3, evaluations=3, **supervised)
        dpo.run(job, folder / "candidates.jsonl", questions, preferences)
    else:
        method = METHODS[stage].options(
            episodes=48,
            prompts_per_step=4,
            samples_per_prompt=2,
            epochs_per_rollout=2,
            learning_rate=1e-3,
            warmup_steps=2,
            temperature=1.0,
            top_k=0,
            max_new_tokens=24,
            evaluations=3,
            dev_questions=6,
            save_every=1,
        )
        rewards = RewardOptions()
        rl.run(job, questions, dev, stage, method, rewards, "fine_grained", "lexical", None)


class Run:
    """A process that trains into a folder; what a run before left there is gone on from."""

    def __init__(self, stage: str, folder: Path, name: str) -> None:
        self.own = folder / stage / name
        self.own.mkdir(parents=True, exist_ok=True)
        self._log = self.own / "log.txt"
        self._log.touch()
        self._logged = self._log.stat().st_size
        self.process = multiprocessing.Process(
            target=_child, args=(stage, folder, self.own, self._log)
        )
        self.process.start()

    def kill_somewhere(self, rng: random.Random, seconds: float) -> str | None:
        """Kill it at a random moment of the seconds that a run in peace takes, or when one of the
        next files is written.

        Returns:
            the kind of moment, or None if it had ended before.
        """
        moment = rng.choice(("any", "writing"))
        if moment == "any":
            self.process.join(max(_EARLIEST, rng.random() * seconds))
        else:
            for _ in range(rng.randint(1, 12)):
                before = self._files()
                while self.process.is_alive() and self._files() == before:
                    time.sleep(1e-4)
            time.sleep(rng.random() * _SAVING)
        if not self.process.is_alive():
            return None
        self.process.kill()
        self.process.join()
        return moment if self.process.exitcode == -9 else None

    def _files(self) -> list[str]:
        """Names of what it has written."""
        return [name for _, folders, files in os.walk(self.own) for name in (*folders, *files)]

    def failures(self, killed: bool = False) -> list[str]:
        """Lines about damage; of a run that was not killed also how it failed, and what it left."""
        with self._log.open("rb") as stream:
            stream.seek(self._logged)
            lines = stream.read().decode(errors="replace").splitlines()
        found = [line for line in lines if any(word in line for word in _DAMAGE)]
        if not killed:
            if self.process.exitcode != 0:
                found.append(f"{self.own}: ended with {self.process.exitcode}: {lines[-1:]}")
            left = sorted({path.name for path in self.own.iterdir()} - {"out", "log.txt"})
            found += [f"{self.own}: left behind {name}" for name in left]
        return found

    def differences(self, expected: dict[str, bytes]) -> list[str]:
        """Published files that are not as expected."""
        found = published(self.own)
        return [
            f"{self.own}: {name} {'differs' if name in found else 'is missing'}"
            for name in expected.keys() | found.keys()
            if found.get(name) != expected.get(name)
        ]


def published(own: Path) -> dict[str, bytes]:
    """Every file that a run has published."""
    out = own / "out"
    paths = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def torment(
    stage: str, folder: Path, kills: int, rng: random.Random, report: Report
) -> tuple[Counter[str], list[str]]:
    """Run a stage once in peace, then with as many kills, and compare.

    Returns:
        kills by the kind of moment, and everything that was not as it should be.
    """
    began = time.perf_counter()
    peaceful = Run(stage, folder, "peaceful")
    peaceful.process.join(_PATIENCE)
    seconds = time.perf_counter() - began
    expected = published(peaceful.own)
    wrong = peaceful.failures()
    happened: Counter[str] = Counter()
    ended = 0
    while len(wrong) < _ENOUGH:
        run = Run(stage, folder, f"run-{ended}")
        killed = run.kill_somewhere(rng, seconds) if happened.total() < kills else None
        run.process.join(_PATIENCE)
        wrong += run.failures(killed=killed is not None)
        if killed is None or (run.own / "out").exists():
            wrong += run.differences(expected)
        if killed is not None:
            happened[killed] += 1
            continue
        ended += 1
        if happened.total() >= kills:
            break
    report(
        f"{stage}: {seconds:.1f} s in peace, {len(expected)} files published; kills at any moment "
        f"{happened['any']}, when files are written {happened['writing']}; runs that went to their "
        f"end {ended}; wrong: {len(wrong)}"
    )
    for line in wrong:
        report(f"  {line}")
    return happened, wrong


def _child(stage: str, folder: Path, own: Path, log: Path) -> None:
    """In the new process: train, and log."""
    with log.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    train(stage, folder, own)
    sys.stdout.flush()


def _write_questions(folder: Path) -> None:
    """Some questions of the miniature with the teacher's answers, and preferences among them."""
    examples = [e for dataset in ("asqa", "qampari") for e in taught_examples(dataset, 40, seed=3)]
    random.Random(0).shuffle(examples)
    write_examples(folder / "train.json", examples[:16])
    write_examples(folder / "dev.json", examples[16:22])
    # To each question another one's answer too, which is preferred less.
    records = [
        {
            "id": example.id,
            "candidates": [
                {"text": example.output, "reward": 1.0},
                {"text": other.output, "reward": 0.0},
            ],
        }
        for example, other in pairwise(examples[:17])
    ]
    write_jsonl(folder / "candidates.jsonl", records)


def main() -> int:
    parser = argument_parser(__doc__, "kills.txt")
    parser.add_argument("--kills", type=int, default=50, help="over all stages")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    # Children inherit these; two runs at a time would share the cores.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "WANDB_MODE": "disabled"}
    multiprocessing.set_start_method("forkserver")
    report = Report(arguments.out, "torch", "transformers", "peft")
    kills: Counter[str] = Counter()
    wrong = 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        _write_questions(Path(folder))
        for number, stage in enumerate(STAGES):
            share = len(range(number, arguments.kills, len(STAGES)))
            rng = random.Random(f"{arguments.seed} {stage}")
            happened, failures = torment(stage, Path(folder), share, rng, report)
            kills += happened
            wrong += len(failures)
    report(f"kills in all: {kills.total()}, {time.perf_counter() - began:.0f} s; wrong: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
