"""Snakemake as a user runs it, in a project's folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

# Two jobs of one thread each, so that the tests take half as long.
OPTIONS = ["--cores", "2", "--max-threads", "1", "--resources", "gpu=2"]
SNAKEMAKE = [sys.executable, "-m", "snakemake", *OPTIONS]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1"}


def snakemake(
    project: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end; stdout and stderr come back as one text in `stdout`."""
    return subprocess.run(
        [*SNAKEMAKE, *arguments],
        cwd=project,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def stale(project: Path, *arguments: str) -> set[str]:
    """The jobs that a dry run would do, as `rule` or `rule system`."""
    done = snakemake(project, "--dry-run", "--quiet", "host", *arguments)
    assert done.returncode == 0, done.stdout
    jobs = set()
    for block in re.split(r"^(?=(?:local)?rule \w+:)", done.stdout, flags=re.MULTILINE)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)
        system = re.search(r"wildcards: system=([^,\n]+)", block)
        assert rule is not None
        jobs.add(f"{rule[1]} {system[1]}" if system else rule[1])
    return jobs
