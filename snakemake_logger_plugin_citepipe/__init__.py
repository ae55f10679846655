"""What Snakemake lacks for this workflow: a target behind --resources, an end by SIGTERM, progress.

Snakemake imports every package of this name before it reads its arguments. Nothing here changes
another workflow's run: the arguments that are rewritten are an error otherwise, and progress is
shown only where a profile or command line has `logger: citepipe`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from logging import LogRecord
from typing import Any, TextIO

import psutil
from snakemake.common.argparse import ArgumentParser
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


def targets_last(arguments: Sequence[str]) -> list[str]:
    """Move words without `=` behind --resources to the end: they are targets.

    `--resources gpu=1 results/table.csv` takes the target for a resource and ends in a traceback,
    as the option takes all words up to the next option.
    """
    kept: list[str] = []
    targets: list[str] = []
    inside = False
    for number, word in enumerate(arguments):
        if word == "--":
            return [*kept, *arguments[number:], *targets]
        if word.startswith("-"):
            inside = word in ("--resources", "--res")
        if inside and not word.startswith("-") and "=" not in word:
            targets.append(word)
        else:
            kept.append(word)
    return [*kept, "--", *targets] if targets else kept


def parse_args(
    self: ArgumentParser, args: Sequence[str] | None = None, *rest: Any, **named: Any
) -> Any:
    """`ArgumentParser.parse_args` on arguments whose targets stand where they are read."""
    given = sys.argv[1:] if args is None else args
    return _parse_args(self, targets_last(given), *rest, **named)


_parse_args = ArgumentParser.parse_args
ArgumentParser.parse_args = parse_args


def exit_gracefully(self: JobScheduler, *_: Any) -> None:
    """Start no job more, and ask those that run here to save and end.

    Snakemake's own waits for them to finish, and takes a lock that the thread which the signal
    interrupts may hold, so that one time in three a run hung under `timeout`.
    """
    self._user_kill = "graceful"
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            # Not what a script has started to write its log and its curves.
            if process.name().startswith("python"):
                process.terminate()
    threading.Thread(target=self._open_jobs.release).start()


JobScheduler.exit_gracefully = exit_gracefully

NOISE = (
    "Select jobs to execute",
    "Building DAG of jobs",
    "Assuming unrestricted shared filesystem",
    "Using shell",
    "Provided cores",
    "Provided resources",
    "Rules claiming more threads",
    "Conda environments: ignored",
)
"""The begins of lines that a run repeats and nobody reads."""


class LogHandler(LogHandlerBase):
    """A line of overall progress as each job ends, and a summary at the end of the run.

    A dry run, and a run with --verbose or --printshellcmds, shows all that Snakemake says.
    """

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        settings: Any = self.common_settings
        self.whole = settings.dryrun or settings.verbose or settings.printshellcmds
        self.stream: TextIO = sys.stdout if settings.stdout else sys.stderr
        self.begun = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.total = self.done = 0
        self.names: dict[int, tuple[str, str]] = {}
        self.running: dict[int, float] = {}
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def emit(self, record: LogRecord) -> None:
        """Count what begins and ends; show the rest as Snakemake has it."""
        event = getattr(record, "event", None)
        if self.whole or event not in EVENTS:
            text = self.format(record)
            if text and (self.whole or not text.startswith(NOISE)):
                self.show(text)
        else:
            EVENTS[event](self, record.__dict__)

    def show(self, text: str) -> None:
        """Print a text."""
        print(text, file=self.stream, flush=True)

    def on_run_info(self, record: dict[str, Any]) -> None:
        """How many jobs of each rule there are."""
        self.counts = Counter(record["stats"])
        self.total = self.counts.pop("total", 0)
        rules = ", ".join(f"{count} {rule}" for rule, count in self.counts.items())
        self.show(f"{self.total} jobs: {rules}")

    def on_job_info(self, record: dict[str, Any]) -> None:
        """A job begins."""
        job, wildcards = record["jobid"], dict(record["wildcards"] or {})
        seed = wildcards.pop("seed", None)
        values = [*wildcards.values(), *([f"seed{seed}"] if seed is not None else [])]
        rule = record["rule_name"]
        self.names[job] = (rule, " ".join([rule, *map(str, values)]))
        self.running[job] = time.monotonic()

    def on_job_finished(self, record: dict[str, Any]) -> None:
        """A job has ended well."""
        job = record["job_id"]
        rule, name = self.names.get(job, ("", f"job {job}"))
        now = time.monotonic()
        self.seconds[rule].append(now - self.running.pop(job, now))
        self.counts[rule] -= 1
        self.done += 1
        parts = [f"[{self.done}/{self.total}] {name} in {clock(self.seconds[rule][-1])}"]
        if self.running:
            parts.append("running: " + ", ".join(self.names[job][1] for job in self.running))
        if self.done < self.total:
            unknown = any(count and not self.seconds[rule] for rule, count in self.counts.items())
            parts.append(f"{'more than' if unknown else 'about'} {clock(self.left(now))} left")
        else:
            parts.append(f"all done in {clock(now - self.begun)}")
        self.show("; ".join(parts))

    def left(self, now: float) -> float:
        """Seconds until the end, if jobs take as long as those of their rule have taken so far."""
        known = {rule: sum(times) / len(times) for rule, times in self.seconds.items() if times}
        usual = sum(known.values()) / len(known)
        work = sum(count * known.get(rule, usual) for rule, count in self.counts.items())
        spent = sum(sum(times) for times in self.seconds.values())
        spent += sum(now - begun for begun in self.running.values())
        return work / max(1.0, spent / (now - self.begun))

    def ignore(self, record: dict[str, Any]) -> None:
        """Nothing is said of it."""


EVENTS = {
    LogEvent.RUN_INFO: LogHandler.on_run_info,
    LogEvent.JOB_INFO: LogHandler.on_job_info,
    LogEvent.JOB_FINISHED: LogHandler.on_job_finished,
    LogEvent.JOB_STARTED: LogHandler.ignore,
    LogEvent.PROGRESS: LogHandler.ignore,
    LogEvent.RESOURCES_INFO: LogHandler.ignore,
}


def clock(seconds: float) -> str:
    """A time as people read it: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
