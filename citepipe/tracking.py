"""Learning curves and sampled answers at Weights & Biases, beside the metrics files.

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
import logging
import netrc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from citepipe.progress import say

if TYPE_CHECKING:
    from citepipe.options.tracking import TrackingOptions

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
                [sys.executable, "-P", "-m", "citepipe.tracking", str(journal), str(behind)],
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
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
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


def follow(journal: Path, behind: int, bell: int) -> None:
    """Put a journal into a run at wandb until it says that training has finished, or `bell` closes.

    The work of wandb's own process. Nothing is begun before there is a figure to log.

    Args:
        journal: what training has to say.
        behind: the byte behind the line that begins this run.
        bell: a descriptor from which there is something to read when the journal has grown.
    """
    with journal.open("rb") as lines:
        begin, earlier = _read_begin(lines, behind)
        run = None
        finished = False
        for message in _messages(lines, bell):
            # Another begin: training that was cut off goes on already, and has its own process.
            if "end" in message or "begin" in message:
                finished = message.get("end", False)
                break
            if run is None:
                run = _begin_run(begin, journal.parent.parent)
                _drop_later(earlier, message["step"])
                for old in earlier:
                    _log(run, old)
            _log(run, message)
    if run is not None:
        run.finish(exit_code=0 if finished else 1)
        _remove_earlier(Path(run.dir).parent, begin["id"])
        _remove_dangling(Path(run.dir).parent)
    if finished:
        journal.unlink(missing_ok=True)


def _read_begin(lines: BinaryIO, behind: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The begin that ends at byte `behind`, and what was logged before."""
    begin: dict[str, Any] = {}
    earlier: list[dict[str, Any]] = []
    while lines.tell() < behind:
        message = _decoded(lines.readline())
        if "begin" in message:
            begin = message["begin"]
        elif "step" in message:
            _drop_later(earlier, message["step"])
            earlier.append(message)
    return begin, earlier


def _drop_later(messages: list[dict[str, Any]], step: int) -> None:
    """Take from the end of the list what is later than a step to which training went back.

    What is as late stays: of one step there can be figures of training and of an evaluation.
    """
    while messages and messages[-1]["step"] > step:
        messages.pop()


def _messages(lines: BinaryIO, bell: int) -> Iterator[dict[str, Any]]:
    """The journal's further lines, each as soon as it is there, until the bell closes."""
    rest = b""
    ringing = True
    while ringing:
        ringing = bool(os.read(bell, 2**16))
        *whole, rest = (rest + lines.read()).split(b"\n")
        for message in map(_decoded, whole):
            if message:
                yield message


def _decoded(line: bytes) -> dict[str, Any]:
    """A line of the journal; nothing if it is blank or was cut off."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _begin_run(begin: Mapping[str, Any], folder: Path) -> Any:
    import wandb

    # Its logs have nothing about training, and the folder's full path.
    logging.getLogger("wandb").setLevel(logging.CRITICAL)
    return wandb.init(
        **begin,
        dir=folder,
        # Of no effect offline.
        resume="allow",
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            host="",
            init_timeout=30,
            save_code=False,
            silent=True,
            symlink=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_log_level=logging.CRITICAL,
            x_save_requirements=False,
        ),
    )


def _log(run: Any, message: Mapping[str, Any]) -> None:
    if "samples" in message:
        import wandb

        table = message["samples"]
        rows: list[Any] = [list(row) for row in zip(*table.values(), strict=True)]
        samples = wandb.Table(columns=list(table), data=rows)
        # A table that is a file of the run already is not made an artifact too. Those are kept
        # outside of the run's folder until they are uploaded.
        samples.bind_to_run(run, "samples", message["step"])
        content = {"samples": samples}
    else:
        content = message["figures"]
    run.log(content, step=message["step"])


def _remove_earlier(own: Path, run_id: str) -> None:
    """Remove the folders that a run left before, when it was cut off: this one has it all."""

    def begun(folder: Path) -> str:
        """The date and time in the folder's name, which sort as text."""
        return folder.name.partition("run-")[2]

    for folder in own.parent.glob(f"*run-*-{run_id}*"):
        if folder.is_dir() and begun(folder) < begun(own):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_dangling(folder: Path) -> None:
    """Remove links to wandb's own logs, which lie in a folder that goes with its process.

    Programs that copy a folder stop at links that lead nowhere.
    """
    for path in folder.rglob("*"):
        if path.is_symlink():
            path.unlink()


def main() -> None:
    """Follow the journal that the command line names, from a byte on; stdin is the bell."""
    bell, complaints = os.dup(0), os.dup(2)
    # Whatever wandb asks and prints: nobody is there to answer, and training has the terminal.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            os.environ[name] = scratch
        os.environ.setdefault("HOME", scratch)
        # wandb would report its own errors with the name of the machine.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        try:
            follow(Path(sys.argv[1]), int(sys.argv[2]), bell)
        # The one thing left to do is to say it: wandb raises what it likes.
        except BaseException as error:
            line = ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
            os.write(complaints, line.encode()[:500])
            sys.exit(1)


if __name__ == "__main__":
    main()
