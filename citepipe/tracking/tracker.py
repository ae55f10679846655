"""A run at Weights & Biases, as training sees it.

wandb runs in a process of its own. So it costs training no start-up time, can neither hang nor end
it, cannot touch its random numbers, signals or output, and sees no environment but what it needs.
Training appends what it has to say to a journal, a file of JSON lines, and rings: it writes a byte
into a pipe. The process reads the journal on. It ends when the pipe closes, whatever closed it.

The journal is also what makes a run that was cut off one run. wandb's offline folders of one run
are not put together when they are uploaded: without further settings each replaces the curves of
the one before. So the process starts with what the journal has from before the point at which
training goes on; its folder is whole, and takes the place of the earlier ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import netrc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from citepipe.progress import say

if TYPE_CHECKING:
    from citepipe.options import TrackingOptions

Mode = Literal["offline", "online"]

MODES: dict[str, Mode | None] = {
    "offline": "offline",
    "dryrun": "offline",
    "online": "online",
    "run": "online",
    "shared": "online",
    "disabled": None,
}
"""What WANDB_MODE may say."""

NEEDED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")
NEEDED_ONLINE = (
    "HOME",
    "NETRC",
    "USERPROFILE",
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "WANDB_ENTITY",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
)
"""The variables of the environment that wandb's process gets to see."""

PATIENCE: dict[Mode, float] = {"offline": 60.0, "online": 300.0}
"""How long, at the end, wandb may take to write or upload what it still has (seconds)."""


class Tracker:
    """A run at wandb, or nothing where `track` found that it cannot be.

    No method raises for wandb's sake; what goes wrong is said once, and then nothing more is done.
    """

    def __init__(
        self, journal: Path | None = None, behind: int = 0, mode: Mode = "offline"
    ) -> None:
        self._mode = mode
        self._process: subprocess.Popen[bytes] | None = None
        self._file = self._bell = -1
        if journal is not None:
            with self._quietly():
                self._start(journal, behind)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a step (losses, rewards, rates), for the curves."""
        numbers = {
            name: float(value)
            for name, value in figures.items()
            if isinstance(value, Real) and name != "step"
        }
        self._tell({"step": step, "figures": numbers})

    def samples(self, step: int, rows: Sequence[Mapping[str, str | float]]) -> None:
        """Answers that were generated at a step with their rewards, for a table.

        Args:
            step: the step.
            rows: all with the same keys, which are the table's columns.
        """
        if rows:
            table = {name: [row.get(name) for row in rows] for name in rows[0]}
            self._tell({"step": step, "samples": table})

    def finish(self) -> None:
        """Wait until all is written (or, online, sent): training has come to its end."""
        self._end(finished=True)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After an error the run may yet go on: its journal stays.
        self._end(finished=kind is None)

    def _start(self, journal: Path, behind: int) -> None:
        environment = _environment(self._mode)
        self._file = os.open(journal, os.O_WRONLY | os.O_APPEND)
        bell, self._bell = os.pipe()
        # A bell that was rung often enough need not be heard each time.
        os.set_blocking(self._bell, False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "citepipe.tracking.follow", str(journal), str(behind)],
                stdin=bell,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                # Ctrl-C and the end of a terminal are for training; this ends when training has.
                start_new_session=True,
            )
        finally:
            os.close(bell)

    def _tell(self, message: Mapping[str, Any]) -> None:
        if self._process is None:
            return
        with self._quietly():
            line = json.dumps(message).encode() + b"\n"
            if os.write(self._file, line) < len(line):
                raise OSError("the disk is full")
            with contextlib.suppress(BlockingIOError):
                os.write(self._bell, b".")

    def _end(self, finished: bool) -> None:
        """Say that no more comes, and wait for the process to end."""
        self._tell({"end": finished})
        process = self._process
        if process is None:
            return
        with self._quietly():
            self._close()
            _, complaint = process.communicate(timeout=PATIENCE[self._mode])
            self._process = None
            if process.returncode != 0:
                raise OSError(_last_line(complaint) or "its process has failed")

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Say what goes wrong inside of the block, and let wandb be from then on."""
        try:
            yield
        except (OSError, TypeError, ValueError, subprocess.SubprocessError) as error:
            self._close()
            complaint = b""
            if self._process is not None:
                with contextlib.suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                _, complaint = self._process.communicate()
                self._process = None
            why = str(error)
            if isinstance(error, subprocess.TimeoutExpired):
                why = f"not done after {error.timeout:.0f} s"
            elif isinstance(error, BrokenPipeError):
                why = _last_line(complaint) or "its process has ended"
            say(f"wandb: {why}; training goes on without it")

    def _close(self) -> None:
        for descriptor in (self._file, self._bell):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._bell = -1


def track(
    options: TrackingOptions,
    folder: Path,
    stage: str,
    system: str,
    seed: int,
    key: str,
    config: Mapping[str, Any],
) -> Tracker:
    """Begin a run at wandb, or go on with it.

    Args:
        options: whether, and where to.
        folder: the results' folder; the run's files go into its folder `wandb`.
        stage: sft, ppo, …: the run's job type.
        system: the system that is trained: the run's group.
        seed: its seed.
        key: what is trained with what, as a digest. The same key is the same run.
        config: the options of the run. Of absolute paths only the last part is kept.

    Returns:
        The run; one that does nothing where wandb is off, not installed, cannot be reached or
        cannot write, which is said on stderr.
    """
    mode = _mode(options)
    if mode is None:
        return Tracker()
    spec = importlib.util.find_spec("wandb")
    # Without a file it is some folder called wandb in the working directory.
    if spec is None or spec.origin is None:
        say("wandb: not installed; training goes on without it")
        return Tracker()
    if mode == "online" and not _logged_in():
        say("wandb: not logged in (`wandb login`, or WANDB_API_KEY); training goes on without it")
        return Tracker()
    run_id = hashlib.sha256(f"{stage}|{system}|{seed}|{key}".encode()).hexdigest()[:16]
    begin = {
        "mode": mode,
        "project": options.project,
        "id": run_id,
        "name": f"{system}-seed{seed}",
        "group": system,
        "job_type": stage,
        "config": {"stage": stage, "system": system, "seed": seed, **_without_folders(config)},
    }
    journal = folder / "wandb" / f"{run_id}.journal"
    try:
        line = json.dumps({"begin": begin})
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("ab") as stream:
            # The line before may have been cut off.
            stream.write(f"\n{line}\n".encode())
            behind = stream.tell()
    except (OSError, TypeError, ValueError) as error:
        say(f"wandb: {error}; training goes on without it")
        return Tracker()
    return Tracker(journal.resolve(), behind, mode)


def _mode(options: TrackingOptions) -> Mode | None:
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if options.wandb == "off":
        return None
    if asked in MODES:
        return MODES[asked]
    if asked:
        say(f"wandb: WANDB_MODE {asked} is none of {', '.join(MODES)}, and not honoured")
    if options.wandb == "auto":
        return "online" if _logged_in() else "offline"
    return options.wandb


def _logged_in() -> bool:
    """Whether there is an API key, in the environment or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    base = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    host = base.split("://")[-1].split("/")[0].split(":")[0]
    place = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        return netrc.netrc(place).authenticators(host) is not None
    except (OSError, ValueError, netrc.NetrcParseError):
        return False


def _environment(mode: Mode) -> dict[str, str]:
    names = NEEDED if mode == "offline" else (*NEEDED, *NEEDED_ONLINE)
    known = {name: os.environ[name] for name in names if name in os.environ}
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return known | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _without_folders(value: Any) -> Any:
    """Options in which absolute paths are only names: folders tell of the user and the machine."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    if isinstance(value, str | Path) and Path(value).expanduser().is_absolute():
        return Path(value).name
    return value


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
