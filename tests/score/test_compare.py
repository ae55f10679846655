import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.score.compare import compare_files

COUNTS = {"statements": 1, "citations": 1, "gold": 1, "gold_top5": 1, "items": 0}
TERMS = {"identity": "lexical", "splitter": "punkt-rules", "switches": {}}


def row(identity: str, dataset: str = "asqa", **scores: float) -> dict[str, Any]:
    return {"id": identity, "dataset": dataset, "counts": COUNTS, **scores}


def written(path: Path, *rows: dict[str, Any], **terms: Any) -> Path:
    path.write_text(json.dumps({"per_example": rows, "provenance": TERMS | terms}))
    return path


def test_questions_are_paired_by_id(tmp_path: Path):
    first = written(tmp_path / "a", row("1", length=1), row("2", length=5), row("3", length=9))
    second = written(tmp_path / "b", row("4", length=0), row("2", length=6), row("1", length=4))
    [found] = compare_files(first, second, 100, 0.95, 0)
    assert (found["n"], found["only_in_a"], found["only_in_b"]) == (2, 1, 1)
    length = found["metrics"]["length"]
    assert (length["a"], length["b"], length["difference"]) == (3, 5, 2)


def test_a_metric_that_one_answer_lacks_is_left_out_of_its_pair(tmp_path: Path):
    first = written(tmp_path / "a", row("1", citation_rec=100), row("2", citation_rec=0))
    second = written(tmp_path / "b", row("1"), row("2", citation_rec=100), row("1", "eli5"))
    [one] = compare_files(first, second, 10, 0.95, 0)
    recall = one["metrics"]["citation_rec"]
    # Datasets are compared one by one; the other file has none of ELI5's questions.
    assert (one["label"], recall["a"], recall["b"]) == ("asqa", 0, 100)


def test_files_of_the_workflow_have_verifiers_and_datasets(tmp_path: Path):
    path = tmp_path / "seed0.json"
    result = {"per_example": [row("1", length=1)], "provenance": TERMS}
    path.write_text(json.dumps({"lexical": {"asqa": result}, "oracle": {"asqa": result}}))
    labels = [one["label"] for one in compare_files(path, path, 10, 0.95, 0)]
    assert labels == ["lexical, asqa", "oracle, asqa"]


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", *(f'{{"per_example": {x}, "provenance": {{}}}}' for x in ("[]", '[{"id": "1"}]'))],
)
def test_what_is_no_score_file_is_named(tmp_path: Path, content: str):
    good, bad = written(tmp_path / "good", row("1", length=1)), tmp_path / "bad"
    bad.write_text(content)
    with pytest.raises(InputError, match="/bad: expected a file of scores"):
        compare_files(good, bad, 10, 0.95, 0)


@pytest.mark.parametrize(
    ("rows", "terms", "message"),
    [
        ([row("1")], {"identity": "TRUE"}, "identity 'TRUE' in asqa, but 'lexical'"),
        ([row("1"), row("1")], {}, "id '1' occurs twice in asqa"),
        ([row("1", "eli5")], {}, "nothing in common .* has eli5, and that has asqa"),
        ([row("2")], {}, "no question of asqa in common"),
    ],
)
def test_what_cannot_be_paired(
    tmp_path: Path, rows: list[dict[str, Any]], terms: dict[str, str], message: str
):
    first = written(tmp_path / "a", row("1"))
    with pytest.raises(InputError, match=message):
        compare_files(first, written(tmp_path / "b", *rows, **terms), 10, 0.95, 0)
