"""Runs at wandb: what is written, what never is, and how little can go wrong."""

from __future__ import annotations

import getpass
import json
import os
import random
import re
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from citepipe.options import TrackingOptions
from citepipe.tracking import follow
from citepipe.tracking.tracker import PATIENCE, Tracker, track

KEY = "0123456789abcdef0123456789abcdef01234567"

FAKE = '''
"""Stands for wandb: writes down what it is asked to do; `behaviour` is run by init."""

import json
from pathlib import Path


def note(**what):
    with Path({notes!r}).open("a") as stream:
        stream.write(json.dumps(what, default=str) + "\\n")


class Run:
    dir = {folder!r}

    def log(self, content, step):
        note(step=step, content=content)

    def finish(self, exit_code):
        note(exit_code=exit_code)


def Settings(**settings):
    return settings


def init(**settings):
    import os, sys, time
    {behaviour}
    note(init=settings, environment=dict(os.environ))
    return Run()
'''


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of one's own, without anything of wandb's in it or in the environment."""
    for name in [name for name in os.environ if name.startswith("WANDB") or name == "NETRC"]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home-of-somebody"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a fake wandb in the true one's place; returns where it writes its notes."""

    def install(behaviour: str = "pass") -> Path:
        notes = tmp_path / "notes.jsonl"
        package = tmp_path / "packages" / "wandb"
        package.mkdir(parents=True)
        source = FAKE.format(
            notes=str(notes), folder=str(tmp_path / "run" / "files"), behaviour=behaviour
        )
        (package / "__init__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        return notes

    return install


def begin(folder: Path, config: dict[str, Any] | None = None, **options: Any) -> Tracker:
    return track(TrackingOptions(**options), folder, "ppo", "fg_rl", 3, "a key", config or {})


def noted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def history(folder: Path) -> dict[int, dict[str, Any]]:
    """Step by step what the one offline run in a folder has logged."""
    from wandb.proto import wandb_internal_pb2

    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    steps: dict[int, dict[str, Any]] = {}
    for content in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        if record.HasField("history"):
            items = {i.key or ".".join(i.nested_key): i.value_json for i in record.history.item}
            row = {name: json.loads(value) for name, value in items.items()}
            steps.setdefault(row.pop("_step"), {}).update(row)
    return steps


def records(log: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log: chunks with a header of 7 bytes, in blocks of 32 KiB."""
    place, whole = 7, b""
    while place + 7 <= len(log):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        _, length, part = struct.unpack("<IHB", log[place : place + 7])
        whole += log[place + 7 : place + 7 + length]
        place += 7 + length
        # 1 is a whole record, 4 the last part of one.
        if part in (1, 4):
            yield whole
            whole = b""


def test_an_offline_run_has_the_figures_and_nothing_of_its_user(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("SOME_PASSWORD", "sesame-open")
    folder = home / "results"
    config = {"base": str(home / "llama"), "files": [Path("/of-somebody/train.json"), "~/dev.json"]}
    with begin(folder, config) as tracker:
        tracker.log(1, {"step": 1, "reward": 0.25, "kl": 0.5})
        tracker.log(2, {"reward": 0.75})
        tracker.samples(2, [{"question": "Who?", "answer": "Zoë [1].", "reward": 0.2}])
    assert capsys.readouterr().err == ""
    steps = history(folder)
    assert {step: row.get("reward") for step, row in steps.items()} == {1: 0.25, 2: 0.75}
    assert steps[1]["kl"] == 0.5
    assert "step" not in steps[1]
    (table,) = folder.glob("wandb/*/files/media/table/*.json")
    assert steps[2]["samples.path"] == str(table.relative_to(table.parents[2]))
    assert json.loads(table.read_text()) == {
        "columns": ["question", "answer", "reward"],
        "data": [["Who?", "Zoë [1].", 0.2]],
    }
    written = b""
    for path in folder.rglob("*"):
        written += f"{path.relative_to(home)}\n".encode()
        written += os.readlink(path).encode() if path.is_symlink() else b""
        written += path.read_bytes() if path.is_file() else b""
    # No environment, no requirements, no output, and no artifact, whose files would not be here.
    files = {path.name for path in folder.rglob("files/*")}
    assert files == {"media"}
    assert b"artifact" not in written
    for told in ("llama", "train.json", "dev.json", "fg_rl-seed3"):
        assert told.encode() in written
    for secret in ("of-somebody", "~/", KEY, "sesame-open", str(Path.cwd()), sys.executable):
        assert secret.encode() not in written
    for name in (socket.gethostname(), getpass.getuser()):
        assert not re.search(rb"(?<![A-Za-z0-9])" + name.encode() + rb"(?![A-Za-z0-9])", written)


def test_a_run_that_was_cut_off_goes_on_as_one_whole_run(tmp_path: Path) -> None:
    class CutOffError(Exception):
        pass

    def first() -> None:
        with begin(tmp_path) as tracker:
            for step in range(1, 6):
                tracker.log(step, {"reward": step / 10})
            raise CutOffError

    with pytest.raises(CutOffError):
        first()
    assert sorted(history(tmp_path)) == [1, 2, 3, 4, 5]
    (journal,) = (tmp_path / "wandb").glob("*.journal")
    # The last line that a killed process writes may be half a line.
    with journal.open("a") as stream:
        stream.write('{"step": 6, "fig')
    with begin(tmp_path) as tracker:
        tracker.log(4, {"reward": 4.5})
        tracker.log(6, {"reward": 6.5})
    rewards = {step: row["reward"] for step, row in history(tmp_path).items()}
    assert rewards == {1: 0.1, 2: 0.2, 3: 0.3, 4: 4.5, 6: 6.5}
    assert not journal.exists()


def test_what_was_lost_twice_is_logged_once(tmp_path: Path, fake: Callable[..., Path]) -> None:
    notes = fake()
    for steps in ([1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7]):
        notes.unlink(missing_ok=True)
        tracker = begin(tmp_path)
        for step in steps:
            tracker.log(step, {"reward": step})
        if steps[-1] == 7:
            tracker.finish()
        else:
            tracker.__exit__(ValueError, ValueError(), None)
    first, *logged, last = noted(notes)
    assert first["init"]["resume"] == "allow"
    # What was logged again is the same, and wandb takes it for more of that step.
    assert [note["step"] for note in logged] == [1, 2, 3, 3, 4, 5, 5, 6, 7]
    assert last == {"exit_code": 0}


def test_a_process_that_is_left_behind_leaves_the_next_alone(
    tmp_path: Path, fake: Callable[..., Path]
) -> None:
    notes = fake()
    first = begin(tmp_path)
    first.log(1, {"reward": 1})
    second = begin(tmp_path)
    second.log(2, {"reward": 2})
    # What the end of a killed process does.
    first._close()
    assert first._process is not None
    first._process.communicate()
    (journal,) = (tmp_path / "wandb").iterdir()
    second.finish()
    assert not journal.exists()
    own = [note for note in noted(notes) if note.get("content") == {"reward": 2.0}]
    assert own == [{"step": 2, "content": {"reward": 2.0}}]


def test_only_earlier_folders_of_the_same_run_are_replaced(tmp_path: Path) -> None:
    names = [
        "offline-run-20260101_100000-abc",
        "run-20260101_100001-abc",
        "offline-run-20260101_100002-abc",
        "offline-run-20260101_100002-abc-1",
        "offline-run-20260101_100000-xyz",
    ]
    folder = tmp_path / "wandb"
    for name in names:
        (folder / name).mkdir(parents=True)
    follow._remove_earlier(folder / names[2], "abc")
    assert sorted(path.name for path in folder.iterdir()) == sorted(names[2:])


def test_the_same_key_is_the_same_run(tmp_path: Path, fake: Callable[..., Path]) -> None:
    notes = fake()
    options = TrackingOptions(project="mine")
    for stage, system, seed, key in [
        ("ppo", "a", 0, "k"), ("ppo", "a", 0, "k"), ("sft", "a", 0, "k"),
        ("ppo", "b", 0, "k"), ("ppo", "a", 1, "k"), ("ppo", "a", 0, "l"),
    ]:  # fmt: skip
        with track(options, tmp_path, stage, system, seed, key, {}) as tracker:
            tracker.log(1, {"reward": 0.0})
    begun = [note["init"] for note in noted(notes) if "init" in note]
    ids = [settings["id"] for settings in begun]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 5
    assert begun[2] | {"id": "", "settings": "", "dir": ""} == {
        "mode": "offline", "project": "mine", "id": "", "name": "a-seed0", "group": "a",
        "job_type": "sft", "config": {"stage": "sft", "system": "a", "seed": 0},
        "resume": "allow", "settings": "", "dir": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "environment", "logged_in", "mode"),
    [
        ("off", None, "by key", None),
        ("off", "online", "by key", None),
        ("offline", None, "by key", "offline"),
        ("offline", "online", "by key", "online"),
        ("online", None, "by netrc", "online"),
        ("online", "offline", "by netrc", "offline"),
        ("online", "disabled", "by key", None),
        ("online", None, "not", None),
        ("auto", None, "by key", "online"),
        ("auto", None, "by netrc", "online"),
        ("auto", None, "elsewhere", "offline"),
        ("auto", None, "not", "offline"),
        ("auto", "dryrun", "by key", "offline"),
        ("offline", "sideways", "by key", "offline"),
    ],
)
def test_whether_a_run_is_online(
    asked: str,
    environment: str | None,
    logged_in: str,
    mode: str | None,
    home: Path,
    fake: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes = fake()
    if environment is not None:
        monkeypatch.setenv("WANDB_MODE", environment)
    if logged_in == "by key":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    host = {"by netrc": "api.wandb.ai", "elsewhere": "wandb.example.org"}.get(logged_in)
    if host is not None:
        (home / ".netrc").write_text(f"machine {host} login user password {KEY}\n")
        (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("SOME_PASSWORD", "sesame-open")
    with begin(home / "results", wandb=asked) as tracker:
        tracker.log(1, {"reward": 0.0})
    begun = noted(notes)[:1]
    assert [note["init"]["mode"] for note in begun] == ([] if mode is None else [mode])
    for note in begun:
        seen = note["environment"]
        assert "SOME_PASSWORD" not in seen
        assert ("WANDB_API_KEY" in seen) == (mode == "online" and logged_in == "by key")
        assert (seen["HOME"] == str(home)) == (mode == "online")


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        ("raise ConnectionError('no way\\nthrough')", "ConnectionError: no way through"),
        ("os._exit(3)", "its process has failed"),
        ("os.kill(os.getpid(), 9)", "its process has failed"),
        ("print('noise', file=sys.stderr); raise SystemExit('gone')", "SystemExit: gone"),
        ("time.sleep(600)", "not done after 2 s"),
    ],
)
def test_a_service_that_fails_is_one_line_and_nothing_else(
    behaviour: str,
    complaint: str,
    tmp_path: Path,
    fake: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fake(behaviour)
    monkeypatch.setitem(PATIENCE, "offline", 2.0 if "sleep" in behaviour else 60.0)
    with begin(tmp_path) as tracker:
        tracker.log(1, {"reward": 0.0})
    assert capfd.readouterr() == ("", f"wandb: {complaint}; training goes on without it\n")


def test_a_service_that_dies_is_noticed_while_training_goes_on(
    tmp_path: Path, fake: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    fake("raise ConnectionError('lost')")
    tracker = begin(tmp_path)
    tracker.log(1, {"reward": 0.0})
    assert tracker._process is not None
    tracker._process.wait()
    for step in range(2, 5):
        tracker.log(step, {"reward": 0.0})
    tracker.finish()
    assert capfd.readouterr().err == ("wandb: ConnectionError: lost; training goes on without it\n")


def test_nowhere_to_write(
    tmp_path: Path, fake: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    fake()
    (tmp_path / "file").write_text("")
    with begin(tmp_path / "file") as tracker:
        tracker.log(1, {"reward": 0.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"wandb: .*Not a directory.*; training goes on without it", line)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk(
    tmp_path: Path, fake: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    fake()
    tracker = begin(tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, tracker._file)
    os.close(full)
    tracker.log(1, {"reward": 0.0})
    tracker.log(2, {"reward": 0.0})
    tracker.finish()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"wandb: .*No space left.*; training goes on without it", line)


def test_wandb_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with begin(tmp_path) as tracker:
        tracker.log(1, {"reward": 0.0})
        tracker.samples(1, [{"answer": "No."}])
    assert capsys.readouterr().err == "wandb: not installed; training goes on without it\n"
    assert list(tmp_path.glob("wandb")) == []


def test_a_run_without_figures_leaves_nothing(tmp_path: Path, fake: Callable[..., Path]) -> None:
    notes = fake()
    with begin(tmp_path) as tracker:
        tracker.samples(1, [])
    assert noted(notes) == []
    assert list((tmp_path / "wandb").iterdir()) == []


def test_training_is_left_as_it_was(tmp_path: Path, fake: Callable[..., Path]) -> None:
    def state() -> list[Any]:
        return [
            random.getstate(),
            np.random.get_state()[1].tolist(),  # type: ignore[index]
            torch.get_rng_state().tolist(),
            [signal.getsignal(number) for number in sorted(signal.valid_signals())],
            sys.excepthook,
            dict(os.environ),
            sorted(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else [],
        ]

    fake()
    before = state()
    with begin(tmp_path) as tracker:
        tracker.log(1, {"reward": 0.0})
    assert state() == before
