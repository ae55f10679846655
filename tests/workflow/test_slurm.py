"""The default, cut down, through `profiles/slurm`: `make test-slurm`, where there is a SLURM."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from .project import ENVIRONMENT, SNAKEMAKE, TABLE, copy_workflow, read_config, snakemake

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("sbatch"), reason="there is no SLURM here"),
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
        reason="SLURM's plugin is not installed (pip install -e '.[slurm]')",
    ),
]

SLOW = """
import os, time
from citepipe.verify.lexical import LexicalVerifier


class Slow(LexicalVerifier):
    def entails(self, pairs):
        time.sleep(float(os.environ["SLOW"]))
        return super().entails(pairs)
"""
"""A verifier that takes so many seconds per batch, without keeping a core busy."""


def write_default(folder: Path) -> None:
    """The workflow with a default of few steps and questions, its samples in two shards."""
    copy_workflow(folder)
    (folder / "slow.py").write_text(SLOW)
    config = read_config(folder)
    config["miniature"]["world"] = {"train": 60, "dev": 4, "test": 8, "expertqa": 8}
    config["systems"] = {name: config["systems"][name] for name in ("dist", "h_rs")}
    config["verifiers"]["train"] = "slow:Slow"
    config["sft"] |= {"max_steps": 6, "evaluations": 1}
    config["rs_sft"] |= {"max_steps": 2, "evaluations": 1}
    config["best_of_n"] |= {"questions": 32, "n": 2, "batch_size": 4, "min_reward": None}
    config["shards"] = 2
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def cancel(rule: str, process: subprocess.Popen[str]) -> bool:
    """Cancel a rule's job as soon as it runs; whether one ran before the run's end."""
    while process.poll() is None:
        listed = subprocess.run(
            ["squeue", "--noheader", "--states=R", "--format=%i %k"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for number, _, comment in (line.partition(" ") for line in listed):
            if comment.startswith(f"rule_{rule}"):
                # Python has started, and is in the middle of something.
                time.sleep(8)
                subprocess.run(["scancel", number], check=True)
                return True
        time.sleep(1)
    return False


def test_arrays_groups_wall_times_and_a_cancelled_job_give_the_table_of_a_local_run(
    tmp_path: Path,
) -> None:
    local, cluster = tmp_path / "local", tmp_path / "cluster"
    for folder in (local, cluster):
        write_default(folder)
    here = snakemake(local, SLOW="0")
    assert here.returncode == 0, here.stdout
    # A shard takes more than two minutes; a node may be small.
    options = ["--set-resources", "sample:runtime=2", "sample:mem_mb=2000", "--retries", "9"]
    options += ["--slurm-init-seconds-before-status-checks", "5", "--slurm-array-jobs", "sample"]
    groups = {"world": "begin", "data": "begin", "predict": "answers", "score": "answers"}
    options += ["--groups", *(f"{rule}={group}" for rule, group in groups.items())]
    with (cluster / "output.txt").open("w") as output:
        run = subprocess.Popen(
            [*SNAKEMAKE[:3], "--workflow-profile", "profiles/slurm", *options, "--", TABLE],
            cwd=cluster,
            env=ENVIRONMENT | {"SLOW": "16"},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            cancelled = cancel("sft", run)
            run.wait()
        finally:
            # Snakemake cancels its jobs, if this is before their end.
            run.terminate()
            run.wait()
    text = (cluster / "output.txt").read_text()
    assert run.returncode == 0, text
    assert cancelled
    # One job was cancelled, and both shards reached their time.
    assert text.count("Trying to restart job") >= 3
    assert "slurm_logs/group_begin" in text
    assert "slurm_logs/group_answers" in text
    # Logs of jobs that failed stay, here of an array's second shard.
    assert list((cluster / ".snakemake/slurm_logs/rule_sample").glob("*_2.log"))
    for name in ("table.csv", "scores.csv"):
        assert (cluster / "results" / name).read_bytes() == (local / "results" / name).read_bytes()
