"""Does the workflow survive `kill -9` anywhere? Runs are killed at random moments and begun again.

    python benchmarks/kills.py

The tests' smallest project, with fine-tuning, a search and PPO, runs once in peace. A copy of
it runs by the same command and is killed, Snakemake and jobs at once: half of the times at any
moment, half just when a file is written, which a kill at any moment would seldom meet. The same
command follows, until it ends; then another copy has its turn. All that an ended run has published
has to be the same byte for byte, no process may outlive a kill, and no state of training a run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import yaml
from common import Report, argument_parser

sys.path.append(str(Path(__file__).parents[1]))
from tests.workflow.project import ENVIRONMENT, SNAKEMAKE, TABLE, read_config
from tests.workflow.tiny import write_project

# Logs say when, caches are rebuilt, and figures have a date.
OTHER = ("logs", "cache", "figures", "wandb", ".lock")
# Seconds after its start that a run is killed in.
EARLIEST, LATEST = 1.0, 25.0
# Seconds that the jobs of a killed run have to notice.
NOTICE = 0.5


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The workflow, in a group of processes of its own."""
    return subprocess.Popen(
        [*SNAKEMAKE[:3], "--cores", "1", "--", TABLE],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log.txt").open("ab"),
        start_new_session=True,
    )


def files(folder: Path) -> list[Path]:
    """What is below `results/`, hidden notes of Snakemake's apart."""
    found = (Path(at, name) for at, _, names in os.walk(folder / "results") for name in names)
    return sorted(path for path in found if not path.name.startswith(".snakemake"))


def published(folder: Path) -> dict[str, bytes]:
    """The content of every file of a run that has ended."""
    results = folder / "results"
    named = {path.relative_to(results): path for path in files(folder)}
    return {str(k): path.read_bytes() for k, path in named.items() if k.parts[0] not in OTHER}


def kill_somewhere(run: subprocess.Popen[bytes], folder: Path, rng: random.Random) -> str | None:
    """Kill a run and its jobs.

    Returns:
        the kind of moment; None if the run had ended before.
    """
    end = time.monotonic() + rng.uniform(EARLIEST, LATEST)
    while run.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    moment = rng.choice(("any moment", "a file is written"))
    before = files(folder)
    while moment != "any moment" and run.poll() is None and files(folder) == before:
        time.sleep(5e-3)
    if run.poll() is not None:
        return None
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return moment


def outliving(folder: Path) -> list[str]:
    """The commands of processes that still work in a project."""
    time.sleep(NOTICE)
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if Path(process.info["cwd"] or "/").is_relative_to(folder):
            found.append(" ".join(process.info["cmdline"]))
    return found


def last_stage(folder: Path) -> str:
    """The rule whose job has begun last."""
    logs = folder / "results/logs"
    begun = sorted(logs.rglob("*.log"), key=lambda path: path.stat().st_mtime)
    return begun[-1].relative_to(logs).parts[0].removesuffix(".log") if begun else "none"


def main() -> int:
    parser = argument_parser(__doc__, "kills.txt")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    report = Report(arguments.out, "snakemake", "torch", "transformers", "peft")
    rng, began = random.Random(arguments.seed), time.monotonic()
    moments, stages, wrong, ended = Counter[str](), Counter[str](), list[str](), 0
    with tempfile.TemporaryDirectory() as room:
        fresh, peace, war = (Path(room, name) for name in ("fresh", "peace", "war"))
        write_project(fresh)
        config = read_config(fresh)
        config["verifiers"] = {"train": "lexical", "report": {"lexical": "lexical"}}
        (fresh / "config.yaml").write_text(yaml.safe_dump(config))
        shutil.copytree(fresh, peace)
        if start(peace).wait():
            raise SystemExit((peace / "log.txt").read_text())
        expected = published(peace)
        report(f"in peace: {len(expected)} files, {time.monotonic() - began:.0f} s")
        while moments.total() < arguments.kills or war.exists():
            if not war.exists():
                shutil.copytree(fresh, war)
            run = start(war)
            more = moments.total() < arguments.kills
            if more and (moment := kill_somewhere(run, war, rng)):
                moments[moment] += 1
                stages[last_stage(war)] += 1
                wrong += [f"outlives its run: {line}" for line in outliving(war)]
                continue
            if run.wait():
                wrong.append(f"ended with {run.returncode}: {(war / 'log.txt').read_text()}")
            found, ended = published(war), ended + 1
            names = sorted(expected.keys() | found.keys())
            wrong += [f"differs: {n}" for n in names if expected.get(n) != found.get(n)]
            shutil.rmtree(war)
    report(f"kills: {', '.join(f'{count} at {of}' for of, count in sorted(moments.items()))}")
    report(f"by what had begun last: {', '.join(f'{n} {of}' for of, n in sorted(stages.items()))}")
    report(f"runs that went to their end: {ended}; {time.monotonic() - began:.0f} s")
    for line in wrong:
        report(line)
    report(f"wrong: {len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
