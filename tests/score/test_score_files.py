from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_answers, read_json, write_examples, write_result
from citepipe.errors import InputError
from citepipe.options import ScoreOptions
from citepipe.score.files import Scorer, run
from citepipe.verify.base import Pair


class Yes:
    name = "yes"

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        return [True] * len(pairs)


def yes() -> Yes:
    return Yes()


DOCS = (Document("Oslo", "Anna Berg was born in Oslo."),)


def row(identity: str, output: str) -> Example:
    return Example(
        identity,
        "eli5",
        "Where?",
        DOCS,
        output=output,
        answer="Anna Berg was born in Oslo.",
        claims=("Anna Berg was born in Oslo.",),
    )


def test_every_dataset_under_every_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "always", sys.modules[__name__])
    answers, out = tmp_path / "eli5.json", tmp_path / "scores.json"
    examples = [row("1", "Anna Berg was born in Oslo [1]."), row("2", "Rome [1]."), row("3", "")]
    write_result(answers, {}, examples)
    run({"eli5": answers}, {"lexical": "lexical", "kind": "always:yes"}, ScoreOptions(), None, out)
    results = read_json(out)
    lexical, kind = results["lexical"]["eli5"], results["kind"]["eli5"]
    assert lexical["metrics"]["citation_rec"] == 50
    assert lexical["metrics"]["citation_f1"] == 50
    assert lexical["metrics"]["claims_nli"] == pytest.approx(100 / 3)
    assert kind["metrics"]["citation_f1"] == 100
    assert lexical["metrics"]["length"] == pytest.approx(7 / 3)
    assert lexical["counts"] == {
        "examples": 3,
        "without_statements": 1,
        "statements": 2,
        "citations": 2,
    }
    assert [own["id"] for own in lexical["per_example"]] == ["1", "2", "3"]
    assert set(lexical["intervals"]) == set(lexical["metrics"])
    assert kind["provenance"]["verifier"] == "yes"
    assert kind["provenance"]["splitter"] == "punkt-rules"
    assert kind["provenance"]["switches"]["zero_is_last"] is True
    assert kind["provenance"]["input"]["file"] == "eli5.json"


def scored(tmp_path: Path, *metrics: str, **fields: object) -> dict[str, Any]:
    answers = tmp_path / "eli5.json"
    write_result(answers, {}, [replace(row("1", "Anna Berg was born in Oslo [1]."), **fields)])
    options = ScoreOptions(metrics=metrics or None)
    return Scorer(read_answers(answers, None), options).under(Yes())


def test_only_wanted_metrics_are_given(tmp_path: Path):
    assert set(scored(tmp_path, "length")["metrics"]) == {"length"}
    result = scored(tmp_path, "citation_f1")
    assert result["metrics"] == {"citation_f1": 100}
    assert result["intervals"] == {"citation_f1": [100, 100]}
    # What it is the mean of stays with the examples, for comparisons.
    assert result["per_example"][0]["citation_rec"] == 100


def test_what_no_wanted_metric_needs_is_not_asked(tmp_path: Path):
    class Unwanted(Yes):
        def entails(self, pairs: Sequence[Pair]) -> list[bool]:
            assert not pairs
            return []

    answers = tmp_path / "eli5.json"
    write_result(answers, {}, [row("1", "Anna Berg was born in Oslo [1].")])
    file = read_answers(answers, None)
    for verifier in (Unwanted(), None):
        metrics = Scorer(file, ScoreOptions(metrics=("length", "rougeLsum"))).under(verifier)
        assert set(metrics["metrics"]) == {"length", "rougeLsum"}


def test_verdicts_are_kept_with_their_places(tmp_path: Path):
    own = scored(tmp_path)["per_example"][0]
    assert own["statements"] == [
        {
            "span": [0, 31],
            "text": "Anna Berg was born in Oslo [1].",
            "cited": [1],
            "supported": True,
        }
    ]
    assert own["citations"] == [{"span": [27, 30], "id": 1, "statement": 0, "right": True}]
    assert own["gold"] == [{"index": 0, "hit": True}]


def test_sane_rules_read_groups_and_years(tmp_path: Path):
    answers = tmp_path / "eli5.json"
    two = (*DOCS, Document("Rome", "Rome."))
    write_result(answers, {}, [replace(row("1", "Oslo [2012] [1, 2]."), docs=two)])
    file = read_answers(answers, None)
    alce = Scorer(file, ScoreOptions()).under(Yes())
    # 2012 is out of range: nothing supports the statement, and its citations do not count.
    assert (alce["metrics"]["citation_rec"], alce["counts"]["citations"]) == (0, 0)
    sane = Scorer(file, ScoreOptions().sane()).under(Yes())
    assert (sane["metrics"]["citation_rec"], sane["counts"]["citations"]) == (100, 2)
    own = sane["per_example"][0]
    assert own["read_as"] == "Oslo (2012) [1][2]."
    assert [own["read_as"][slice(*c["span"])] for c in own["citations"]] == ["[1]", "[2]"]
    assert sane["provenance"]["switches"]["years_are_ids"] is False


def test_several_datasets_are_also_scored_one_by_one(tmp_path: Path):
    answers = tmp_path / "combined.json"
    write_examples(answers, [row("1", "Oslo [1]."), replace(row("2", "Rome"), dataset="asqa")])
    result = Scorer(read_answers(answers, None), ScoreOptions()).under(Yes())
    assert result["metrics"]["citation_rec"] == 50
    assert result["datasets"]["eli5"]["metrics"]["citation_rec"] == 100
    assert result["datasets"]["asqa"]["counts"]["examples"] == 1


def test_an_unknown_metric_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="metric 'bleu': expected some of length"):
        scored(tmp_path, "bleu")


def test_a_row_without_an_answer_is_named(tmp_path: Path):
    answers = tmp_path / "eli5.json"
    answers.write_text('[{"dataset": "eli5", "question": "q", "docs": []}]')
    with pytest.raises(InputError, match="row 0, field output"):
        run({"eli5": answers}, {"l": "lexical"}, ScoreOptions(), None, tmp_path / "s.json")


def test_a_row_of_another_dataset_is_named(tmp_path: Path):
    answers = tmp_path / "answers.json"
    answers.write_text('[{"dataset": "eli5", "question": "q", "docs": [], "output": "a"}]')
    with pytest.raises(InputError, match="row 0, field dataset: expected asqa, got eli5"):
        run({"asqa": answers}, {"l": "lexical"}, ScoreOptions(), None, tmp_path / "s.json")
