"""The plugin of Snakemake's command line: targets behind --resources, and progress."""

import io
import logging
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

import snakemake_logger_plugin_citepipe as plugin


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (
            "--cores 1 --resources gpu=1 results/table.csv",
            "--cores 1 --resources gpu=1 -- results/table.csv",
        ),
        ("--res gpu=1 a b -n", "--res gpu=1 -n -- a b"),
        ("--resources gpu=1 a -- b", "--resources gpu=1 -- b a"),
        ("--resources gpu=1 mem_mb=10 --cores 1 a", "--resources gpu=1 mem_mb=10 --cores 1 a"),
        ("--set-resources rule:gpu=1 a", "--set-resources rule:gpu=1 a"),
        ("a --cores 1", "a --cores 1"),
    ],
)
def test_words_behind_resources_without_a_value_are_targets(given: str, read: str) -> None:
    assert plugin.targets_last(given.split()) == read.split()


def test_a_signal_ends_a_run_also_while_its_scheduler_is_locked() -> None:
    scheduler = SimpleNamespace(_lock=threading.Lock(), _open_jobs=threading.Semaphore(0))
    job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with scheduler._lock, scheduler._open_jobs._cond:
        for _ in range(2):
            plugin.JobScheduler.exit_gracefully(scheduler)  # type: ignore[arg-type]
    assert scheduler._user_kill == "graceful"
    assert scheduler._open_jobs.acquire(timeout=10), "its loop looks what there is to do"
    assert job.wait(timeout=10) != 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(now=0.0)
    monkeypatch.setattr(plugin.time, "monotonic", lambda: found.now)
    return found


def handler(**settings: bool) -> plugin.LogHandler:
    none = {"dryrun": False, "verbose": False, "printshellcmds": False, "stdout": False}
    made = plugin.LogHandler(SimpleNamespace(**none | settings), None)  # type: ignore[arg-type]
    made.stream = io.StringIO()
    return made


def emit(made: plugin.LogHandler, message: str = "", **fields: Any) -> None:
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, message, None, None)
    record.__dict__ |= fields
    made.emit(record)


def lines(made: plugin.LogHandler) -> list[str]:
    return made.stream.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_line_of_progress_as_each_job_ends(clock: SimpleNamespace) -> None:
    made = handler()
    emit(made, event=LogEvent.RUN_INFO, stats={"sft": 2, "score": 2, "total": 4})
    emit(made, "Select jobs to execute...")
    for job, rule in enumerate(("sft", "score")):
        wildcards = {"system": "dist", "seed": "0"}
        emit(made, event=LogEvent.JOB_INFO, jobid=job, rule_name=rule, wildcards=wildcards)
    clock.now = 60.0
    emit(made, event=LogEvent.JOB_FINISHED, job_id=0)
    clock.now = 90.0
    emit(made, event=LogEvent.JOB_FINISHED, job_id=1)
    # Left at last: one sft of 60 s and one score of 90 s, at 150 s of work within the 90 s so far.
    assert lines(made) == [
        "4 jobs: 2 sft, 2 score",
        "[1/4] sft dist seed0 in 1 min 0 s; running: score dist seed0; more than 1 min 30 s left",
        "[2/4] score dist seed0 in 1 min 30 s; about 1 min 30 s left",
    ]


def test_errors_and_other_lines_are_shown_as_they_are() -> None:
    made = handler()
    emit(made, "Nothing to be done (all requested files are present and up to date).")
    assert lines(made) == ["Nothing to be done (all requested files are present and up to date)."]


def test_a_dry_run_shows_all_that_snakemake_says() -> None:
    made = handler(dryrun=True)
    emit(made, "Building DAG of jobs...")
    emit(made, "rule sft", event=LogEvent.JOB_INFO)
    assert lines(made) == ["Building DAG of jobs...", "rule sft"]
