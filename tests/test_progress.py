import pytest

from citepipe.progress import Progress, say, summary


def test_in_a_file_every_state_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    work = Progress("sft", 4, "steps", every=0.0)
    work.advance(2, loss=0.123456)
    say("a word between")
    work.advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("sft: 0/4 steps, ")
    assert lines[1].startswith("sft: 2/4 steps, ")
    assert lines[1].endswith(" left, loss 0.1235")
    assert lines[2] == "a word between"
    assert lines[-1].startswith("sft: 4/4 steps, ")


def test_the_time_left_follows_the_work_and_is_not_0_before_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of 10 s, 1 s a part, and then an evaluation as long; more is done than expected."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    work = Progress("sft", 2, "steps", work=40)
    for part in range(50):
        now += 1
        step = part in (9, 29)
        work.advance(step and part == 9, 1)
    work.advance(1, 0)
    lines = capsys.readouterr().err.splitlines()
    shown = [(line.split(", ")[0], line.rsplit(", ", 1)[-1]) for line in lines]
    assert shown[1] == ("sft: 0/2 steps", "00:35 left"), "within five seconds"
    assert ("sft: 1/2 steps", "00:20 left") in shown
    assert [time for _, time in shown if time in ("? left", "00:00 left")] == [
        *["? left"] * 4,
        "00:00 left",
    ]


def test_nothing_is_shown_of_work_that_is_done_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Progress("judging", 2, "pairs", patient=True).advance(2)
    assert capsys.readouterr().err == ""


def test_a_resumed_run_counts_from_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    work = Progress("judging", 100, "pairs", done=90, every=0.0)
    work.advance(5)
    assert "judging: 95/100 pairs" in capsys.readouterr().err
    assert (work.done, work.first) == (95, 90)


def test_summary() -> None:
    assert summary("sft", {"loss": 0.123456, "steps": 7}) == "sft: loss 0.1235, steps 7"
