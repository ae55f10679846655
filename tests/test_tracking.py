"""Runs at wandb: what is written, what never is, and that no failure of wandb's ends training."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from citepipe.options import TrackingOptions
from citepipe.tracking import Tracker

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A home directory with nothing of wandb's in it or in the environment."""
    for name in [name for name in os.environ if name.startswith("WANDB") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # Where another test has imported openai, wandb would print a line about a product of its own.
    monkeypatch.setenv("WANDB_DISABLE_WEAVE", "true")
    return tmp_path


def test_an_offline_run_that_was_cut_off_has_one_id_all_figures_and_no_secret(
    home: Path, monkeypatch: Patch, capfd: Captured
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("SOME_PASSWORD", "sesame-open")
    before = random.getstate(), torch.get_rng_state().tolist()

    def train(reward: float, fails: bool) -> None:
        # wandb names folders by the second, and these two runs begin in one.
        folder = home / f"results-{reward}"
        folder.mkdir()
        with Tracker("ppo|a", mode="offline", dir=folder, name="fg_rl-seed3") as tracker:
            tracker.log(1, {"step": 1, "reward": reward})
            tracker.samples(1, [{"answer": "Anna Berg [1].", "reward": 0.5}])
            if fails:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(0.625, fails=True)
    train(0.875, fails=False)
    assert (random.getstate(), torch.get_rng_state().tolist()) == before
    assert capfd.readouterr() == ("", "")
    assert len({path.name for path in home.glob("*/wandb/offline-run-*/*.wandb")}) == 1
    files = [path for path in home.glob("results-*/**/*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    for expected in (b"0.625", b"0.875", b"fg_rl-seed3", b"Anna Berg [1]."):
        assert expected in written
    for secret in (KEY, "sesame-open"):
        assert secret.encode() not in written


@pytest.fixture
def fake(monkeypatch: Patch) -> SimpleNamespace:
    """wandb that notes the settings of its runs in `begun` and the figures in `logged`."""
    wandb = SimpleNamespace(begun=[], logged=[], Settings=dict)
    run = SimpleNamespace(
        log=lambda figures, step: wandb.logged.append((step, figures)),
        finish=lambda exit_code: wandb.logged.append(("finished", exit_code)),
    )
    wandb.run = run
    wandb.init = lambda **settings: wandb.begun.append(settings) or run
    wandb.login = lambda **_: bool(os.environ.get("WANDB_API_KEY"))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return wandb


def test_a_key_names_a_run_that_begins_with_its_first_figure(fake: SimpleNamespace):
    for key in ("a", "a", "b"):
        with Tracker(key, mode="offline") as tracker:
            tracker.samples(0, [])
            assert fake.logged[-1:] in ([], [("finished", 0)])
            tracker.log(1, {"reward": 0.5})
    ids = [settings["id"] for settings in fake.begun]
    assert ids[0] == ids[1] != ids[2]
    assert fake.logged[:2] == [(1, {"reward": 0.5}), ("finished", 0)]
    assert all(settings["resume"] == "allow" for settings in fake.begun)


@pytest.mark.parametrize(
    ("configured", "environment", "logged_in", "mode"),
    [
        ("offline", None, True, "offline"),
        ("offline", "online", True, "online"),
        ("online", "disabled", True, "disabled"),
        ("online", None, False, None),
        ("auto", None, True, "online"),
        ("auto", None, False, "offline"),
        ("auto", "offline", True, "offline"),
    ],
)
def test_a_run_is_sent_only_when_configured_or_when_logged_in(
    configured: str, environment: str | None, logged_in: bool, mode: str | None,
    fake: SimpleNamespace, monkeypatch: Patch, capsys: Captured,
):  # fmt: skip
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    if logged_in:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    with Tracker("a", mode=configured) as tracker:
        tracker.log(1, {"reward": 0.5})
    assert [settings["mode"] for settings in fake.begun] == ([mode] if mode else [])
    assert ("wandb: not logged in" in capsys.readouterr().err) == (mode is None)


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_a_failure_is_logged_once_and_training_continues(
    failing: str, fake: SimpleNamespace, monkeypatch: Patch,
    capsys: Captured,
):  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no way\nthrough")

    monkeypatch.setattr(fake if failing == "init" else fake.run, failing, fail)
    with Tracker("a", mode="offline") as tracker:
        tracker.log(1, {"reward": 0.5})
        tracker.log(2, {"reward": 0.5})
    line = "wandb: no way through; training continues without it\n"
    assert capsys.readouterr() == ("", line)


def test_off_is_the_word_that_yaml_reads_as_false():
    assert TrackingOptions.model_validate({"wandb": False}).wandb == "off"
    with Tracker() as tracker:
        tracker.log(1, {"reward": 0.5})
