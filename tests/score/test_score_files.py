from collections.abc import Sequence
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_json, write_result
from citepipe.errors import InputError
from citepipe.options.score import ScoreOptions
from citepipe.score.files import run
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
    assert kind["provenance"]["options"]["splitter"] == "punkt-rules"


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
