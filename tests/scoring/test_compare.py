"""Score files are paired by their questions and held against the first."""

import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.scoring.compare import compare, read_systems

COUNTS = {"statements": 1, "citations": 1, "gold": 1, "gold_top5": 1, "items": 0}
TERMS = {"verifier": "v", "identity": "lexical", "splitter": "punkt-rules", "rules": "alce"}


def row(identity: str, dataset: str = "asqa", question: str = "", **own: Any) -> dict[str, Any]:
    asked = {"question": question or f"{identity}?", "documents": "d"}
    return {"id": identity, "dataset": dataset, "counts": COUNTS, **asked, **own}


def result(*rows: dict[str, Any], **terms: Any) -> dict[str, Any]:
    return {"per_example": rows, "provenance": TERMS | terms}


def written(path: Path, content: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def compared(*paths: str) -> list[dict[str, Any]]:
    return compare(read_systems(paths), 100, 0.95, 0)


def two(folder: Path, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Any:
    """The one comparison of two files."""
    [found] = compared(
        written(folder / "a.json", result(*ours)), written(folder / "b.json", result(*theirs))
    )
    return found


def test_questions_are_paired_by_id(tmp_path: Path):
    ours = [row("1", length=1), row("2", length=5), row("3", length=9)]
    found = two(tmp_path, ours, [row("4", length=0), row("2", length=6), row("1", length=4)])
    assert (found["n"], found["only_in_a"], found["only_in_b"]) == (2, 1, 1)
    length = found["metrics"]["length"]
    assert (length["a"], length["b"], length["difference"]) == (3, 5, 2)


def test_rows_without_ids_are_paired_by_what_was_asked_never_by_their_places(tmp_path: Path):
    def rows(order: str, **more: Any) -> list[dict[str, Any]]:
        return [
            row(str(n), "asqa", f"{name}?", is_numbered=True, length=ord(name), **more)
            for n, name in enumerate(order)
        ]

    for theirs in (rows("cba"), rows("cba", documents="others")):
        found = two(tmp_path, rows("abc"), theirs)
        assert found["n"] == 3
        assert found["metrics"]["length"]["interval"] == [0, 0]
    # Ids of two kinds say nothing.
    ours, theirs = [row("a1", question="a?", length=1)], [row("b7", question="a?", length=2)]
    assert two(tmp_path, ours, theirs)["n"] == 1
    # A question that is asked twice is told apart by its documents, or not at all.
    again = [row("3", question="a?", is_numbered=True, length=0, documents="e")]
    assert two(tmp_path, rows("abc") + again, again + rows("cba"))["n"] == 4
    with pytest.raises(InputError, match="repeated with the same documents"):
        two(tmp_path, rows("abca"), rows("abc"))
    with pytest.raises(InputError, match=r"id '0' is 'b\?', but 'a\?' in"):
        two(tmp_path, [row("0", question="a?")], [row("0", question="b?")])


def test_a_metric_that_one_answer_lacks_is_left_out_of_its_pair(tmp_path: Path):
    ours = [row("1", citation_rec=100), row("2", citation_rec=0)]
    one = two(tmp_path, ours, [row("1"), row("2", citation_rec=100), row("1", "eli5")])
    recall = one["metrics"]["citation_rec"]
    # Datasets are compared one by one; the other file has none of ELI5's questions.
    assert (one["label"], recall["a"], recall["b"]) == ("asqa", 0, 100)


def test_files_of_the_workflow_and_of_the_command_compare(tmp_path: Path):
    """By systems and seeds, and over datasets."""

    def seed(asqa: float, eli5: float) -> dict[str, Any]:
        sets = {
            "asqa": result(row("1", citation_rec=asqa, citation_prec=asqa, str_em=asqa)),
            "eli5": result(row("1", "eli5", citation_rec=eli5, citation_prec=eli5, claims_nli=1)),
        }
        return {"lexical": sets, "oracle": {"asqa": result(row("1"), identity="oracle")}}

    paths = [
        written(tmp_path / name / f"seed{n}.json", seed(*own))
        for name, n, own in (("dist", 0, (10, 40)), ("dist", 1, (20, 40)), ("rl", 0, (30, 60)))
    ]
    command = result(row("1", citation_rec=5, citation_prec=5))
    both = written(tmp_path / "both.json", {"files": {"mine": command, "theirs": command}})
    found = {(one["system"], one["label"]): one for one in compared(*paths, both)}
    assert [*found] == [
        *(("rl", label) for label in ("asqa by lexical", "eli5 by lexical", "asqa by oracle")),
        *(("rl", "mean by lexical"), ("mine", "asqa"), ("theirs", "asqa")),
    ]
    f1 = found["rl", "asqa by lexical"]["metrics"]["citation_f1"]
    assert (f1["a"], f1["b"]) == (15, 30)
    mean = found["rl", "mean by lexical"]["metrics"]
    assert (mean["citation_f1"]["a"], mean["citation_f1"]["b"]) == (27.5, 45)
    assert (mean["correctness"]["a"], mean["correctness"]["b"]) == (8, 15.5)
    assert found["mine", "asqa"]["metrics"]["citation_f1"]["difference"] == -10
    assert f1["p_holm"] >= f1["p"]
    asked = {"files": {"a": command, "b": result(row("2"))}}
    with pytest.raises(InputError, match=r"both.json, b: no question .* with .*both.json, a$"):
        compared(written(tmp_path / "both.json", asked))


def test_systems_are_named_by_their_files_or_as_one_says(tmp_path: Path):
    one, other, seed = (tmp_path / name for name in ("x/s.json", "y/s.json", "y/seed1.json"))
    for path in (one, other, seed):
        written(path, result(row("1", length=1)))
    assert list(read_systems([f"{one}", f"{other}", f"{seed}"])) == [str(one), str(other), "y"]
    systems = read_systems([f"a={one}", f"a={other}", f"b={seed}"])
    assert {name: len(runs) for name, runs in systems.items()} == {"a": 2, "b": 1}
    with pytest.raises(InputError, match="expected two systems or more to compare, got a"):
        compared(f"a={one}", f"a={other}")


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", *(f'{{"per_example": {x}, "provenance": {{}}}}' for x in ("[]", '[{"id": "1"}]'))],
)
def test_what_is_no_score_file_is_named(tmp_path: Path, content: str):
    (tmp_path / "bad").write_text(content)
    with pytest.raises(InputError, match="/bad: expected a file of scores"):
        read_systems([str(tmp_path / "bad")])


@pytest.mark.parametrize(
    ("rows", "terms", "message"),
    [
        ([row("1")], {"identity": "TRUE"}, "nothing in common with a: asqa by TRUE, there asqa by"),
        ([row("1")], {"splitter": "x"}, "splitter 'x', but 'punkt-rules' in"),
        ([row("1", "eli5")], {}, "nothing in common with a: eli5 by lexical, there asqa"),
        ([row("2")], {}, "no question in common"),
    ],
)
def test_what_cannot_be_paired(
    tmp_path: Path, rows: list[dict[str, Any]], terms: dict[str, str], message: str
):
    first = written(tmp_path / "a.json", result(row("1")))
    with pytest.raises(InputError, match=message):
        compared(first, written(tmp_path / "b.json", result(*rows, **terms)))
