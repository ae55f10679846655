"""Jobs side by side, each on devices of its own: made-up ones, as a lock knows no difference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .project import ENVIRONMENT, ROOT

JOB = """
import os, sys
from devices import take_devices
held = take_devices(int(sys.argv[1]))
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


class Jobs:
    """Processes that take devices, and hold them until they end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, list[subprocess.Popen[str]]()

    def start(self, count: int, visible: str, **environment: str) -> subprocess.Popen[str]:
        paths = f"{ROOT}:{ROOT / 'workflow/scripts'}"
        own = {"PYTHONPATH": paths, "TMPDIR": str(self.folder), "CUDA_VISIBLE_DEVICES": visible}
        job = subprocess.Popen(
            [sys.executable, "-c", JOB, str(count)],
            env=ENVIRONMENT | own | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(job)
        return job

    def seen(self, count: int, visible: str, **environment: str) -> list[str]:
        """What a job sees that does not wait."""
        job = self.start(count, visible, **environment)
        assert job.stdout
        return job.stdout.readline().strip().split(",")


@pytest.fixture
def jobs(tmp_path: Path) -> object:
    made = Jobs(tmp_path)
    yield made
    for job in made.running:
        job.kill()
        job.communicate()


def test_jobs_have_devices_of_their_own_and_a_killed_one_lets_go(jobs: Jobs) -> None:
    seen = [jobs.seen(2, "3,5,GPU-8a"), jobs.seen(1, "3,5,GPU-8a")]
    assert seen == [["3", "5"], ["GPU-8a"]]
    waiting = jobs.start(2, "3,5,GPU-8a")
    assert waiting.stderr
    assert waiting.stdout
    assert waiting.stderr.readline() == "waits for 2 of GPUs 3, 5, GPU-8a\n"
    jobs.running[0].kill()
    assert waiting.stdout.readline() == "3,5\n"


def test_what_is_given_is_taken(jobs: Jobs) -> None:
    # Just as many as are asked for, no GPU, none asked for, and those of a scheduler.
    for count, visible, more in (
        (1, "3", {}),
        (1, "3", {}),
        (1, "", {}),
        (0, "3,5", {}),
        (1, "3,5", {"CITEPIPE_BEGUN": "0"}),
    ):
        assert jobs.seen(count, visible, **more) == visible.split(",")


def test_more_devices_than_there_are_is_an_error(jobs: Jobs) -> None:
    _, told = jobs.start(3, "3,5").communicate()
    assert "3 GPUs are asked for, see `devices`, and 2 are here" in told
