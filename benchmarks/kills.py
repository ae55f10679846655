"""Does training survive `kill -9` anywhere? Runs are killed at random moments and started again.

    python benchmarks/kills.py

Every run is a process of its own that trains an adapter of the miniature's base model for a few
steps and saves its state after each. One run per stage is never killed. Others are killed again and
again: half of the times at any moment, half within a phase that is over quickly, saving or
publishing, into which a kill at any moment would seldom fall. What they end with, weights and
metrics, has to be the same byte for byte, and nothing that was published may ever be anything else.

Processes are forked from one that has imported everything, so that a start costs no seconds. What
they are doing they say in a byte of shared memory, which a kill cannot cut off.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import RESULTS, Report

PHASES = ("loading", "step", "evaluating", "saving", "publishing")
_SHORT = ("saving", "saving", "publishing")
_BASE = Path(__file__).parents[1] / "workflow" / "resources" / "miniature-base"
_PRELOADED = (
    "torch",
    "peft",
    "transformers.trainer",
    "transformers.models.llama.modeling_llama",
    "citepipe.miniature.world",
    "citepipe.train.sft",
    "citepipe.train.rl",
    "citepipe.train.dpo",
)
# Longer than any run takes.
_PATIENCE = 120.0
# A kill at any moment comes this late at least: the process must be there.
_EARLIEST = 0.05
# Failures after which a stage is given up.
_ENOUGH = 5


@dataclass(frozen=True)
class Stage:
    """A kind of training.

    Attributes:
        name: as the report has it.
        train: trains into a folder; runs in the child.
        phases: functions by the phase that they are, as `module:name` or `module:Class.name`; the
            module is the one that calls it.
    """

    name: str
    train: Callable[[Path, Path], object]
    phases: dict[str, str]


@dataclass
class Tally:
    """What happened to the runs of a stage.

    Attributes:
        kills: by the phase that the child was in.
        ended: runs that went to their end.
        unequal: files that differed from those of the run that was never killed.
        failures: how children ended that were not killed and did not succeed, and what they said
            of anything damaged.
    """

    kills: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    unequal: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="over all stages")
    parser.add_argument("--stages", default=",".join(STAGES), help="which, by comma")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", type=Path, help="a folder for what the runs write")
    parser.add_argument("--out", type=Path, default=RESULTS / "kills.txt")
    arguments = parser.parse_args()
    # Children inherit these; two runs at a time would share the cores.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "WANDB_MODE": "disabled"}
    multiprocessing.set_start_method("forkserver")
    multiprocessing.set_forkserver_preload(list(_PRELOADED))
    report = Report(arguments.out, "torch", "transformers", "peft")
    names = arguments.stages.split(",")
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        parser.error(f"stages are {', '.join(STAGES)}, not {', '.join(unknown)}")
    shares = [len(range(i, arguments.kills, len(names))) for i in range(len(names))]
    began = time.perf_counter()
    with _folder(arguments.keep) as folder:
        _finish(Run(_write_questions, folder, folder))
        tallies = [
            torment(STAGES[name], folder, kills, random.Random(f"{arguments.seed} {name}"), report)
            for name, kills in zip(names, shares, strict=True)
        ]
    total = sum((tally.kills for tally in tallies), Counter[str]())
    report()
    report(f"kills in all: {total.total()} ({_told(total)}), {time.perf_counter() - began:.0f} s")
    wrong = sum(len(tally.unequal) + len(tally.failures) for tally in tallies)
    report(f"unequal or corrupt: {wrong}")
    return 1 if wrong else 0


def torment(stage: Stage, folder: Path, kills: int, rng: random.Random, report: Report) -> Tally:
    """Run a stage once in peace, then with as many kills, and compare.

    Args:
        stage: what is run.
        folder: with the questions; takes what the runs write.
        kills: how many.
        rng: of the moments.
        report: takes the lines.
    """
    peaceful = folder / stage.name / "peaceful"
    run = Run(stage.train, folder, peaceful, stage.phases)
    spent = run.watch()
    _finish(run)
    expected = _contents(peaceful / "out")
    again = Run(stage.train, folder, folder / stage.name / "again", stage.phases)
    _finish(again)
    tally = Tally()
    tally.unequal += _differences(expected, folder / stage.name / "again", "a second run in peace")
    total = sum(map(sum, spent.values()))
    report()
    report(
        f"{stage.name}: {total:.1f} s in peace ("
        + ", ".join(
            f"{name} {len(each)} x {statistics.median(each):.3f} s" for name, each in spent.items()
        )
        + f"), {len(expected)} files published"
    )
    number = 0
    where = folder / stage.name / "run-0"
    while tally.kills.total() < kills and len(tally.failures) < _ENOUGH:
        run = Run(stage.train, folder, where, stage.phases)
        killed = run.kill_somewhere(rng, spent, total)
        tally.failures += run.complaints()
        if killed is not None:
            tally.kills[killed] += 1
            if (where / "out").exists():
                tally.unequal += _differences(expected, where, f"published before a kill, {where}")
            continue
        tally.failures += run.failure() + _left_behind(where)
        tally.ended += 1
        tally.unequal += _differences(expected, where, str(where))
        number += 1
        where = folder / stage.name / f"run-{number}"
    run = Run(stage.train, folder, where, stage.phases)
    run.process.join(_PATIENCE)
    tally.failures += run.complaints() + run.failure() + _left_behind(where)
    tally.ended += 1
    tally.unequal += _differences(expected, where, str(where))
    report(f"  kills: {tally.kills.total()} ({_told(tally.kills)})")
    report(
        f"  runs that went to their end: {tally.ended}; files that differ: {len(tally.unequal)}; "
        f"failures or damage: {len(tally.failures)}"
    )
    for line in (*tally.unequal, *tally.failures):
        report(f"    {line}")
    return tally


class Run:
    """A process that trains into a folder.

    Args:
        train: called with the shared folder and its own.
        folder: with the questions.
        own: for what it writes; what a run before left there is gone on from.
        phases: see `Stage`.
    """

    def __init__(
        self,
        train: Callable[[Path, Path], object],
        folder: Path,
        own: Path,
        phases: dict[str, str] | None = None,
    ) -> None:
        own.mkdir(parents=True, exist_ok=True)
        self._log = own / "log.txt"
        self._said = self._log.stat().st_size if self._log.exists() else 0
        self._phase = multiprocessing.Value("b", 0, lock=False)
        self._began = time.perf_counter()
        self.process = multiprocessing.Process(
            target=_child, args=(train, folder, own, phases or {}, self._phase, self._log)
        )
        self.process.start()

    @property
    def phase(self) -> str:
        """What it is doing, or was when it ended."""
        return PHASES[self._phase.value]

    def watch(self) -> dict[str, list[float]]:
        """Until it ends: the seconds of each stretch of each phase."""
        spent: dict[str, list[float]] = {}
        now, since = self.phase, self._began
        while self.process.is_alive():
            if self.phase != now:
                at = time.perf_counter()
                spent.setdefault(now, []).append(at - since)
                now, since = self.phase, at
            time.sleep(2e-4)
        spent.setdefault(now, []).append(time.perf_counter() - since)
        return spent

    def kill_somewhere(
        self, rng: random.Random, spent: dict[str, list[float]], total: float
    ) -> str | None:
        """Kill it at a random moment.

        Args:
            rng: of the moment.
            spent: seconds that the phases of a run in peace took.
            total: seconds that all of it took.

        Returns:
            the phase that it was in, or None if it had ended before.
        """
        aimed = rng.choice(_SHORT) if rng.random() < 0.5 else None
        if aimed is None:
            self.process.join(max(_EARLIEST, rng.random() * total))
        else:
            stretches = spent.get(aimed, [0.0])
            # Of several saves one of the first, so that a resumed run still comes to it.
            self._await(aimed, rng.randint(1, max(1, len(stretches) // 2)))
            time.sleep(rng.random() * statistics.median(stretches))
        if not self.process.is_alive():
            return None
        self.process.kill()
        self.process.join()
        return self.phase if self.process.exitcode == -9 else None

    def failure(self) -> list[str]:
        """How it failed; empty if it did not."""
        if self.process.exitcode == 0:
            return []
        last = self._new_lines()[-1:] or ["said nothing"]
        return [f"{self._log.parent}: ended with {self.process.exitcode}: {last[0]}"]

    def complaints(self) -> list[str]:
        """What it said of anything damaged."""
        words = ("damaged", "corrupt", "Traceback", "cut off or")
        return [line for line in self._new_lines() if any(word in line for word in words)]

    def _await(self, phase: str, times: int) -> None:
        """Until it begins a phase for the n-th time, or ends."""
        inside = False
        while self.process.is_alive():
            if (self.phase == phase) != inside:
                inside = not inside
                times -= inside
                if times == 0:
                    return
            time.sleep(1e-4)

    def _new_lines(self) -> list[str]:
        if not self._log.exists():
            return []
        with self._log.open("rb") as stream:
            stream.seek(self._said)
            return stream.read().decode(errors="replace").splitlines()


def _child(
    train: Callable[[Path, Path], object],
    folder: Path,
    own: Path,
    phases: dict[str, str],
    phase: Any,
    log: Path,
) -> None:
    """In the new process: say what goes on, and train."""
    with log.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    for target, name in phases.items():
        _announce(target, PHASES.index(name), phase)
    train(folder, own)
    sys.stdout.flush()


def _announce(target: str, number: int, phase: Any) -> None:
    """Set the phase whenever a function runs, and behind it the one that it was called in, or
    `step` if that was loading and is over."""
    module_name, _, path = target.partition(":")
    owner: Any = importlib.import_module(module_name)
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    function = getattr(owner, name)

    def announcing(*arguments: Any, **more: Any) -> Any:
        before, phase.value = phase.value, number
        try:
            return function(*arguments, **more)
        finally:
            phase.value = before or PHASES.index("step")

    setattr(owner, name, announcing)


def _contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _differences(expected: dict[str, bytes], where: Path, told: str) -> list[str]:
    found = _contents(where / "out")
    return [
        f"{told}: {name} {'differs' if name in found else 'is missing'}"
        for name in expected.keys() | found.keys()
        if found.get(name) != expected.get(name)
    ]


def _left_behind(where: Path) -> list[str]:
    """What a run that has ended should have taken away."""
    names = sorted(path.name for path in where.iterdir() if path.name not in ("out", "log.txt"))
    return [f"{where}: left behind {name}" for name in names]


def _finish(run: Run) -> None:
    """Let a run end.

    Raises:
        RuntimeError: it failed.
    """
    run.process.join(_PATIENCE)
    failure = run.failure()
    if failure:
        raise RuntimeError(failure[0])


def _told(kills: Counter[str]) -> str:
    return ", ".join(f"{name} {kills[name]}" for name in PHASES if kills[name])


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    if keep.exists():
        shutil.rmtree(keep)
    keep.mkdir(parents=True)
    yield keep


def _write_questions(folder: Path, own: Path) -> None:
    """Some questions of the miniature with the teacher's answers, and preferences among them."""
    from odd_answers import taught_examples

    from citepipe.data.files import write_examples, write_jsonl

    examples = [e for dataset in ("asqa", "qampari") for e in taught_examples(dataset, 40, seed=3)]
    random.Random(0).shuffle(examples)
    write_examples(own / "train.json", examples[:16])
    write_examples(own / "dev.json", examples[16:22])
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
    write_jsonl(own / "candidates.jsonl", records)


def _common(folder: Path, own: Path) -> dict[str, Any]:
    """What all stages are told."""
    from citepipe.options import AdapterOptions, ModelOptions, PromptOptions

    return {
        "train": folder / "train.json",
        "dev": folder / "dev.json",
        "model": ModelOptions(
            base=str(_BASE), dtype="float32", adapter=AdapterOptions(r=4, alpha=8, dropout=0.1)
        ),
        "prompt": PromptOptions(
            instruction="",
            demo_prompt="Question: {Q}\n{D}Answer:{A}",
            doc_prompt=" [{ID}] {T}: {P}\n",
            max_input_tokens=160,
        ),
        "out": own / "out",
        "state": own / "state",
        "fingerprint": "kills",
        "seed": 0,
        "threads": 1,
    }


def _sft(folder: Path, own: Path) -> None:
    from citepipe.options import SFTOptions
    from citepipe.train import sft
    from citepipe.train.job import Job

    options = SFTOptions(
        max_steps=12,
        batch_size=4,
        learning_rate=3e-3,
        max_output_tokens=48,
        evaluations=4,
        save_every=1,
    )
    common = _common(folder, own)
    questions = {"train": common.pop("train"), "dev": common.pop("dev")}
    sft.run(Job(start=None, **common), options=options, **questions)


def _ppo(folder: Path, own: Path) -> None:
    _reinforce(folder, _common(folder, own), "ppo")


def _grpo(folder: Path, own: Path) -> None:
    _reinforce(folder, _common(folder, own), "grpo")


def _dpo(folder: Path, own: Path) -> None:
    from citepipe.options import DPOOptions
    from citepipe.train import dpo
    from citepipe.train.job import Job

    common = _common(folder, own)
    del common["train"], common["dev"]
    dpo.run(
        Job(start=folder / "sft" / "peaceful" / "out", **common),
        samples=folder / "candidates.jsonl",
        questions=folder / "train.json",
        options=DPOOptions(
            max_steps=8,
            batch_size=4,
            learning_rate=1e-3,
            max_output_tokens=48,
            evaluations=3,
            save_every=1,
        ),
    )


def _reinforce(folder: Path, common: dict[str, Any], method: str) -> None:
    from citepipe.options import RewardOptions
    from citepipe.train import rl
    from citepipe.train.job import Job
    from citepipe.train.methods import METHODS

    train, dev = common.pop("train"), common.pop("dev")
    rl.run(
        Job(start=folder / "sft" / "peaceful" / "out", **common),
        train,
        dev,
        method,
        METHODS[method].options(**_SAMPLING),
        reward=RewardOptions(),
        placement="fine_grained",
        verifier="lexical",
        cache=None,
    )


_SAMPLING: dict[str, Any] = {
    "episodes": 48,
    "prompts_per_step": 4,
    "samples_per_prompt": 2,
    "epochs_per_rollout": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "temperature": 1.0,
    "top_k": 0,
    "max_new_tokens": 24,
    "evaluations": 3,
    "dev_questions": 6,
    "save_every": 1,
}
_OF_LEARNING = {
    "citepipe.train.rl:Learner.collect": "step",
    "citepipe.train.rl:Learner.evaluate": "evaluating",
    "citepipe.train.checkpoint:Run.save": "saving",
    "citepipe.train.checkpoint:Run.keep_best": "saving",
    "citepipe.train.checkpoint:write_jsonl": "publishing",
    "citepipe.train.checkpoint:discard": "publishing",
}
_OF_TRAINER = {
    "citepipe.train.trainer:Trainer.learn": "step",
    "citepipe.train.checkpoint:Run.save": "saving",
    "citepipe.train.checkpoint:Run.keep_best": "saving",
    "citepipe.train.checkpoint:write_jsonl": "publishing",
    "citepipe.train.checkpoint:discard": "publishing",
}
# Later stages start from what the first one's run in peace has published.
STAGES = {
    stage.name: stage
    for stage in (
        Stage("sft", _sft, _OF_TRAINER),
        Stage("ppo", _ppo, _OF_LEARNING),
        Stage("grpo", _grpo, _OF_LEARNING),
        Stage("dpo", _dpo, _OF_TRAINER),
    )
}


if __name__ == "__main__":
    raise SystemExit(main())
