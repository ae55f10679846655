"""Files of answers scored as wholes."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Document, Example, QAPair
from citepipe.data.files import read_answers, read_json, write_examples
from citepipe.options import ScoreOptions
from citepipe.scoring.files import Scorer, run
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier

BORN = "Anna Berg was born in Oslo"
DOCS = (Document("Oslo", f"{BORN}."),)


class Yes:
    name = "yes"

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        return [True] * len(pairs)


class Unwanted(Yes):
    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        assert not pairs
        return []


def yes() -> Yes:
    return Yes()


def row(identity: str, output: str) -> Example:
    born = f"{BORN}."
    return Example(identity, "eli5", "Where?", DOCS, output=output, answer=born, claims=(born,))


def scored(
    folder: Path, *rows: Example, verifier: Any = None, options: ScoreOptions | None = None
) -> dict[str, Any]:
    write_examples(folder / "answers.json", rows or [row("1", f"{BORN} [1].")])
    file = read_answers(folder / "answers.json", None)
    return Scorer(file, options or ScoreOptions()).under(verifier or Yes())


def test_every_dataset_under_every_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "always", sys.modules[__name__])
    answers, out = tmp_path / "eli5.json", tmp_path / "scores.json"
    write_examples(answers, [row("1", f"{BORN} [1]."), row("2", "Rome [1]."), row("3", "")])
    run({"eli5": answers}, {"lexical": "lexical", "kind": "always:yes"}, ScoreOptions(), None, out)
    results = read_json(out)
    lexical, kind = results["lexical"]["eli5"], results["kind"]["eli5"]
    metrics = {"citation_rec": 50, "citation_f1": 50, "claims_nli": 100 / 3, "length": 7 / 3}
    assert {name: lexical["metrics"][name] for name in metrics} == pytest.approx(metrics)
    assert kind["metrics"]["citation_f1"] == 100
    counts = {"examples": 3, "without_statements": 1, "statements": 2, "citations": 2}
    assert lexical["counts"] == counts
    assert [own["id"] for own in lexical["per_example"]] == ["1", "2", "3"]
    assert set(lexical["intervals"]) == set(lexical["metrics"])
    found = kind["provenance"]
    assert (found["verifier"], found["splitter"]) == ("yes", "punkt-rules")
    assert (found["rules"], found["input"]["file"]) == ("alce", "eli5.json")


class Partly(Yes):
    graded = True

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        return [None if "Rome" in hypothesis else True for _, hypothesis in pairs]


def test_weighted_scores_are_trecs(tmp_path: Path):
    """Of four sentences one is supported in full, one in part, and one cites nothing; of those that
    cite anything the last cites what is not there: 1.5 of 4, and of 3."""
    own = row("1", f"{BORN} [1]. Rome [1]. So. It is [2].")
    found = scored(tmp_path, own, verifier=Partly())
    weighted = {"weighted_citation_rec": 37.5, "weighted_citation_prec": 50}
    assert found["metrics"].items() >= {**weighted, "citation_rec": 25}.items()
    assert found["reasons"]["statements"]["partly supported"] == 1
    # By verdicts of yes and no only if they are asked for, as 1 and 0.
    assert found["metrics"].keys() - scored(tmp_path, own)["metrics"].keys() == weighted.keys()
    named = scored(tmp_path, own, options=ScoreOptions(metrics=tuple(weighted)))["metrics"]
    assert named == pytest.approx({"weighted_citation_rec": 50, "weighted_citation_prec": 200 / 3})


def test_only_wanted_metrics_are_given_and_the_verifier_queried_for_what_they_need(tmp_path: Path):
    text = ScoreOptions(metrics=("length", "rougeLsum"))
    assert set(scored(tmp_path, options=text, verifier=Unwanted())["metrics"]) == set(text.metrics)
    result = scored(tmp_path, options=ScoreOptions(metrics=("citation_f1",)))
    assert result["metrics"] == {"citation_f1": 100}
    assert result["intervals"] == {"citation_f1": [100, 100]}
    [own] = result["per_example"]
    # What it is the mean of stays with the examples, for comparisons, and verdicts with places.
    assert own["citation_rec"] == 100
    text = f"{BORN} [1]."
    found = {"span": [0, 31], "text": text, "cited": [1], "supported": True, "reason": "supported"}
    passage = {"document": 1, "title": "Oslo", "text": f"{BORN}."}
    assert own["statements"] == [found | {"passage": passage}]
    citation = {"span": [27, 30], "id": 1, "statement": 0, "right": True, "reason": "supports"}
    assert own["citations"] == [citation]
    assert result["reasons"] == {"statements": {"supported": 1}, "citations": {"supports": 1}}
    assert [one["gold"] for one in scored(tmp_path)["per_example"]] == [[{"index": 0, "hit": True}]]


def test_of_several_lines_alces_rules_read_the_first_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    both = row("1", f"{BORN} [1].\n\n{BORN} [1].")
    assert scored(tmp_path, both)["counts"]["statements"] == 1
    assert "1 of 1 answers have several lines, of which alce reads" in capsys.readouterr().err
    sane = scored(tmp_path, both, options=ScoreOptions(rules="sane"))
    assert sane["counts"]["statements"] == 2
    [own] = sane["per_example"]
    assert [both.output[slice(*s["span"])] for s in own["statements"]] == [f"{BORN} [1]."] * 2
    assert capsys.readouterr().err == ""


def test_sane_rules_read_groups_and_years(tmp_path: Path):
    one = replace(row("1", "Oslo [2012] [1, 2]."), docs=(*DOCS, Document("Rome", "Rome.")))
    alce = scored(tmp_path, one)
    # 2012 is out of range: nothing supports the statement, and its citations do not count.
    assert (alce["metrics"]["citation_rec"], alce["counts"]["citations"]) == (0, 0)
    sane = scored(tmp_path, one, options=ScoreOptions(rules="sane"))
    assert (sane["metrics"]["citation_rec"], sane["counts"]["citations"]) == (100, 2)
    [own] = sane["per_example"]
    assert [(one.output[slice(*c["span"])], c["id"]) for c in own["citations"]] == [
        ("[1, 2]", 1),
        ("[1, 2]", 2),
    ]
    assert sane["provenance"]["rules"] == "sane"


def test_refusals_are_right_where_no_document_has_a_gold_answer(tmp_path: Path):
    def asked(identity: str, output: str, gold: str) -> Example:
        return Example(
            identity, "own", "Who?", DOCS, output=output, qa_pairs=(QAPair("", (gold,)),)
        )

    answered = asked("1", f"{BORN} [1].", "Anna")
    assert "refused" not in scored(tmp_path, answered)["metrics"]
    declined = "The documents do not say."
    rows = [answered, asked("2", f"{BORN} [1].", "Eve"), asked("3", declined, "Eve")]
    rows += [asked("4", declined, "Anna"), asked("5", declined, "Anna")]
    rows += [replace(asked("6", declined, ""), qa_pairs=())]
    result = scored(tmp_path, *rows)
    # Of three refusals with gold answers one is right, of two that are due one is given; of two
    # answers one is due, of three that are due one is given.
    expected = {"refused": 400 / 6, "refusal_acc": 40}
    expected |= {"refusal_prec": 100 / 3, "refusal_rec": 50, "refusal_f1": 40}
    expected |= {"answered_prec": 50, "answered_rec": 100 / 3, "answered_f1": 40, "grounded_f1": 40}
    found = result["metrics"]
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert (found["citation_rec"], result["n"]["citation_rec"]) == (100, 2)
    assert result["reasons"]["statements"] == {"refusal": 4, "supported": 2}


def test_sentences_in_scripts_without_spaces_are_found_in_their_documents(tmp_path: Path):
    docs = (Document("庭", "庭は広い。"), Document("水車", "水車は焼失した。1820年に建てられた。"))
    text = "1820年に建てられた[2]。1830年に建てられた。"
    asked = Example("1", "own", "いつ？", docs, output=text)
    result = scored(tmp_path, asked, verifier=load_verifier("lexical"))
    [own] = result["per_example"]
    assert [s["supported"] for s in own["statements"]] == [True, False]
    assert [s["passage"]["text"] for s in own["statements"]] == ["1820年に建てられた。"] * 2
    assert own["copied"] == 50


def test_several_datasets_are_also_scored_one_by_one(tmp_path: Path):
    result = scored(tmp_path, row("1", "Oslo [1]."), replace(row("2", "Rome"), dataset="asqa"))
    assert result["metrics"]["citation_rec"] == 50
    assert result["datasets"]["eli5"]["metrics"]["citation_rec"] == 100
    assert result["datasets"]["asqa"]["counts"]["examples"] == 1
