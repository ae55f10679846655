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
