"""What all scripts share: a job's configuration and paths, its log, and errors as one line."""

import errno
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import __main__

ROOT = Path(__file__).resolve().parents[2]
# The package beside the workflow is the one whose code the workflow watches; a user's own modules
# lie in the working directory.
sys.path.insert(0, str(ROOT))
sys.path.append(str(Path.cwd()))

from citepipe.config import load_config  # noqa: E402
from citepipe.errors import InputError  # noqa: E402
from citepipe.inputs import localise  # noqa: E402
from citepipe.provenance import (  # noqa: E402
    STALE,
    digest_of,
    digest_of_path,
    record_of,
    write_record,
)
from citepipe.runstate import STOP  # noqa: E402
from citepipe.train.launch import is_launched, launch, run_launched  # noqa: E402
from devices import take_devices  # noqa: E402

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class Job:
    """A job of the workflow, as a stage needs it; `cfg` is what its results depend on."""

    def __init__(self) -> None:
        # Snakemake puts it into the script that imports this module.
        self.snakemake = snakemake = __main__.snakemake
        wildcards = dict(snakemake.wildcards.items())
        self.cfg = snakemake.params["cfg"]
        self.system: str = wildcards.get("system", "")
        self.seed = int(wildcards.get("seed", 0))
        self.out = Path(snakemake.output[0])
        self.threads: int = snakemake.threads
        named = [wildcards[key] for key in ("source", "system") if key in wildcards]
        seed = [f"seed{self.seed}"] if "seed" in wildcards else []
        self.label = " ".join([snakemake.rule, *named, *seed])

    @cached_property
    def config(self) -> Any:
        """The whole configuration, with paths in place of addresses and all that a rule needs."""
        return localise(load_config(self.snakemake.config))[0]

    @property
    def options(self) -> Any:
        """The options of the system's training, its own overrides included."""
        return self.config.training_options(self.system)

    @property
    def cache(self) -> Path:
        """The file with the decisions of verifiers."""
        return Path(self.config.results, "cache", "verifier.sqlite")

    def given(self, name: str) -> Path:
        """The one file of an input."""
        return self.all_given(name)[0]

    def all_given(self, name: str) -> list[Path]:
        """The files of an input."""
        paths = self.snakemake.input[name]
        return [Path(path) for path in ([paths] if isinstance(paths, str) else paths)]

    @property
    def samples(self) -> list[tuple[str, int, Path, Path]]:
        """By system and seed the answers to learn from, and what they were chosen among."""
        given = self.all_given("samples")
        pairs = zip(self.cfg["sampled"], given[::2], given[1::2], strict=True)
        return [(*run, answers, candidates) for run, answers, candidates in pairs]

    def made(self, name: str) -> Path:
        """An output by its name."""
        return Path(self.snakemake.output[name])

    @cached_property
    def fingerprint(self) -> str:
        """What is done and, behind a colon, by which code (see `citepipe.runstate.claim`)."""
        named = [name for name, _ in self.snakemake.input.items() if name != STALE]
        inputs = [digest_of_path(path) for name in named for path in self.all_given(name)]
        code = self.snakemake.params["made_of"]["code"]
        return f"{digest_of([self.cfg, self.label, inputs])}:{code}"

    def shared(self, state: Path) -> dict[str, Any]:
        """What stages with a model receive; `state` is what a job that was cut off goes on from."""
        return {
            "model": self.config.model,
            "prompt": self.config.prompt,
            "state": state,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "threads": self.threads,
        }

    def answering(self, state: Path, system: str) -> Any:
        """What sampling and prediction receive; they prompt as the named system does."""
        from citepipe.sample.job import Job as Answering

        return Answering(
            **self.shared(state) | {"prompt": self.config.prompt_of(system)},
            adapter=Path(self.cfg["adapter"]) if self.cfg["adapter"] else None,
            server=self.config.server,
            reward=self.config.reward,
            verifier=self.config.verifiers.train,
            cache=self.cache,
        )

    @contextmanager
    def training(self) -> Iterator[Any]:
        """What all training stages receive; the first of several processes has the tracker."""
        from citepipe.tracking import Tracker
        from citepipe.train.job import Job as Training

        options, rule, start = self.config.tracking, self.snakemake.rule, self.cfg["start"]
        shared = self.shared(self.out.with_name(f"{self.out.name}.state"))
        tracker = Tracker()
        if options.wandb != "off" and os.environ.get("RANK", "0") == "0":
            tracker = Tracker(
                key=f"{self.label}|{self.fingerprint.partition(':')[0]}",
                mode=options.wandb,
                project=options.project,
                dir=Path(self.config.results),
                name=f"{self.system}-seed{self.seed}",
                group=self.system,
                job_type=rule,
                config={"stage": rule, "system": self.system, "seed": self.seed, **self.cfg},
            )
        with tracker:
            begin = Path(start) if start else None
            yield Training(**shared, start=begin, out=self.out, tracker=tracker)


def run_stage(work: Callable[[Job], str], together: bool = False) -> None:
    """Do a job and print the line that sums it up, or exit with status 1 if it failed.

    With `together` as many processes as the rule has GPUs do it, each of them running the script.
    """
    threading.Thread(target=end_with_run, daemon=True).start()
    job = Job()
    processes = job.snakemake.resources.gpu if together else 1
    if together and is_launched():
        signal.signal(signal.SIGTERM, STOP)
        run_launched(lambda: work(job), complaint)
    # What it prints, native libraries included, shows on the terminal and stays in the log: whoever
    # writes there is not ended by the signal that asks a job to save.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tee = subprocess.Popen(["tee", job.snakemake.log[0]], stdin=subprocess.PIPE, stdout=2)
    os.dup2(tee.stdin.fileno(), 2)  # type: ignore[union-attr]
    record = record_of(job.config.results, job.snakemake.output[0])
    record.unlink(missing_ok=True)
    started = time.monotonic()
    print(f"== {job.label}", file=sys.stderr, flush=True)
    stop_in_time(job.snakemake.resources.runtime)
    try:
        # Kept by this name, as a lock that nobody holds is let go.
        devices = take_devices(job.snakemake.resources.gpu)
        if devices:
            print(f"on GPU {', '.join(devices)}", file=sys.stderr, flush=True)
        summary = work(job) if processes == 1 else launch(processes, job.threads)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as stopped:
        sys.exit(f"{job.label}: {stopped}")
    except Exception as error:
        line = complaint(error)
        if line is None:
            traceback.print_exc()
            line = f"failed; the log is {job.snakemake.log[0]}"
        sys.exit(f"{job.label}: {line}")
    write_record(record, {name: job.snakemake.params[name] for name in ("cfg", "made_of")})
    seconds = time.monotonic() - started
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    memory = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1e6
    label = f"== {job.label}, {seconds:.1f} s, {memory:.1f} GB"
    print(f"{label}: {summary}", file=sys.stderr, flush=True)


def stop_in_time(minutes: int) -> None:
    """Have this process end by SIGTERM so that nothing is lost, and send it that signal before a
    scheduler ends a job of so many minutes: a tenth of them, but at most ten, before."""
    signal.signal(signal.SIGTERM, STOP)
    if begun := os.environ.get("CITEPIPE_BEGUN"):
        left = float(begun) + 60 * (minutes - min(minutes / 10, 10)) - time.time()
        timer = threading.Timer(left, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()


def complaint(error: Exception) -> str | None:
    """The line that tells a user what to do about an error; None if it is the program's own."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return f"{error.filename or 'results'} cannot be written: {error.strerror}"
    return None


def end_with_run() -> None:
    """End this process when the run that started it is gone.

    A run that is killed cannot end its jobs; a job left behind would write its results at the same
    time as the next run's. Only Linux can tell.
    """
    if not hasattr(os, "pidfd_open"):
        return
    try:
        run = os.pidfd_open(int(os.environ["CITEPIPE_RUN"]))
        select.select([run], [], [])
    except ProcessLookupError:
        pass
    os._exit(1)
