"""Habits of answers that no reward sees, and answers that need no question."""

import pytest

from citepipe.data.example import Document, Example
from citepipe.options import RewardOptions
from citepipe.rewards import Rewarder
from citepipe.text.sentences import load_splitter
from citepipe.train.watch import divergences, habits, probe

DOCS = (
    Document("Silver River", "Silver River was directed by Anna Berg in 1995. Its end is sad."),
    Document("Oslo", "Oslo is a city."),
)
EXAMPLE = Example("1", "eli5", "Who directed Silver River?", DOCS)


def test_habits_of_an_answer():
    splitter = load_splitter("punkt-rules")
    text = "It was directed by Anna Berg in 1995 [1][2]. It was directed by Anna Berg in 1995."
    found = habits(EXAMPLE, EXAMPLE.read(text, splitter))
    # Of 16 words 7 in a row are the first document's.
    expected = {"copied_run": 7 / 16, "citations_per_statement": 1, "refusals": 0, "repeated": 0.5}
    assert found == pytest.approx(expected)
    declining = EXAMPLE.read("The documents do not say who directed it.", splitter)
    assert habits(EXAMPLE, declining)["refusals"] == 1


def test_what_earns_more_than_the_models_own_answers_is_said(capsys: pytest.CaptureFixture[str]):
    rewarder = Rewarder("lexical", RewardOptions(citation_precision=0.0))
    found = probe([EXAMPLE], ["It is short [1]."], rewarder)
    # Two sentences of a document are supported by it, a title is in it word for word.
    assert found["probe_quote"] == pytest.approx(0.4)
    assert found["probe_cite_all"] == pytest.approx(-0.2)
    said = capsys.readouterr().err
    assert "all of the first document, with its number earn +0.40 per answer, the start's" in said
    assert "own answers -0.20" in said
    assert "all documents behind each statement earn" not in said


def test_a_run_diverges_while_rewards_rise_and_another_verdict_falls():
    figures = [(0, 1.0, 50.0), (1, 2.0, 60.0), (2, 3.0, 70.0), (3, 4.0, 60.0), (4, 3.5, 69.0)]
    metrics = [{"step": step, "dev_reward": reward, "f1": f1} for step, reward, f1 in figures]
    assert divergences(metrics, 2, "f1") == 2
    assert divergences(metrics[:4], 2, "f1") == 1
    assert divergences(metrics, 0, "f1") == 0
    assert divergences([*metrics, {"step": 5, "dev_reward": 2.5, "f1": 10.0}], 2, "f1") == 0
    assert divergences(metrics[:1], None, "f1") == 0
