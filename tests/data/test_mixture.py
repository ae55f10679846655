"""The mixture: sizes, seeds, and no question in two splits."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_examples
from citepipe.data.mixture import mix, normalized_question, sizes_per_dataset
from citepipe.errors import InputError
from citepipe.options import DataOptions

DOCS = (Document("T", "x"),)


def _rows(dataset: str, name: str, count: int) -> list[Example]:
    return [
        Example(f"{name}-{i}", dataset, f"{name} question {i}?", DOCS * 7) for i in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_examples(tmp_path / "train.json", _rows("asqa", "a", 6) + _rows("qampari", "q", 6))
    write_examples(tmp_path / "dev.json", _rows("asqa", "d", 4))
    write_examples(tmp_path / "test.json", _rows("asqa", "t", 3) + _rows("qampari", "u", 2))
    return tmp_path


def _options(folder: Path, **more: object) -> DataOptions:
    files = {
        "train": [str(folder / "train.json")],
        "dev": [str(folder / "dev.json")],
        "test": {d: str(folder / "test.json") for d in ("asqa", "qampari")},
    }
    return DataOptions.model_validate(files | more)


def _mix(folder: Path, train: Sequence[Example] = (), **more: object) -> dict[str, list[Example]]:
    """The splits of the mixture, perhaps of other training rows."""
    if train:
        write_examples(folder / "train.json", train)
    options = _options(folder, **more)
    mix(options, folder / "out")
    names = ["train", "dev", *(f"test/{dataset}" for dataset in options.test)]
    return {name: read_examples(folder / "out" / f"{name}.json") for name in names}


def _ids(examples: Sequence[Example]) -> list[str]:
    return [example.id for example in examples]


def _account(folder: Path) -> Any:
    return json.loads((folder / "out" / "mixture.json").read_text())


def test_sizes_are_per_dataset_and_chosen_by_the_seed(folder: Path) -> None:
    sizes = {"asqa": 3, "qampari": 4}
    first, again, other = (_ids(_mix(folder, train_size=sizes, seed=s)["train"]) for s in (1, 1, 2))
    assert first == again != other
    assert Counter(i[0] for i in first) == {"a": 3, "q": 4}


def test_one_file_can_be_dealt_out_among_the_splits(folder: Path) -> None:
    path = str(folder / "train.json")
    sizes = {"dev_size": {"asqa": 1, "qampari": 2}, "test_size": {"asqa": 2}}
    splits = _mix(folder, dev=[path], test={"asqa": path}, **sizes)
    assert [len(rows) for rows in splits.values()] == [7, 3, 2]
    assert len({i for rows in splits.values() for i in _ids(rows)}) == 12


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"train_size": {"asqa": 9}}, r"train\.json: expected 9 rows of dataset asqa, got 6"),
        ({"train_size": 13}, r"train\.json: expected 13 rows, got 12"),
        ({"datasets": ["eli5"]}, r"dev\.json: expected rows of dataset eli5"),
    ],
)
def test_too_few_rows_are_an_error(folder: Path, options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        _mix(folder, **options)


def test_rows_with_one_id_are_told_apart(folder: Path) -> None:
    rows = [Example("0", "eli5", f"{n}?", DOCS) for n in range(4)]
    two_datasets = [rows[0], replace(rows[1], dataset="qampari")]
    assert _ids(_mix(folder, two_datasets)["train"]) == ["eli5-0", "qampari-0"]
    several_files = [*rows[:2], replace(rows[2], id="eli5-0-2")]
    assert _ids(_mix(folder, several_files)["train"]) == ["eli5-0", "eli5-0-2", "eli5-eli5-0-2"]
    named = [replace(rows[0], id="eli5-0"), rows[1], rows[2], replace(rows[3], id="0-2")]
    ids = ["eli5-eli5-0", "eli5-0", "eli5-0-3", "eli5-0-2"]
    assert _ids(_mix(folder, named)["train"]) == ids


def test_shares_go_to_the_largest_remainders() -> None:
    # 10 of 7 + 2 + 4 = 13: 5.38, 1.54, 3.08.
    assert sizes_per_dataset(10, {"a": 7, "b": 2, "c": 4}, "f") == {"a": 5, "b": 2, "c": 3}
    assert sizes_per_dataset(1, {"a": 1, "b": 1}, "f") == {"a": 1, "b": 0}
    assert sizes_per_dataset(0, {}, "f") == {}


def test_one_number_is_spread_over_the_datasets(folder: Path) -> None:
    rows = _rows("asqa", "a", 9) + _rows("qampari", "q", 3)
    splits = _mix(folder, rows, train_size=8, test_size=4)
    assert Counter(e.dataset for e in splits["train"]) == {"asqa": 6, "qampari": 2}
    # 3 and 2 rows: 2.4 and 1.6.
    assert (len(splits["test/asqa"]), len(splits["test/qampari"])) == (2, 2)
    # The rows are those of the same sizes by dataset; what is tested is named by `test`.
    by_dataset = _mix(folder, datasets=["asqa"], train_size={"asqa": 6})
    assert {*_ids(by_dataset["train"])} < {*_ids(splits["train"])}
    assert len(by_dataset["test/qampari"]) == 2


@pytest.mark.parametrize(
    ("repetitions", "ids"), [("rows", "1345"), ("questions", "15"), ("keep", "12345")]
)
def test_what_repeats_a_row_is_left_out_of_a_split(
    folder: Path, repetitions: str, ids: str
) -> None:
    rows = [
        Example("1", "asqa", "What is it?", DOCS),
        Example("2", "asqa", "what IS it", DOCS, output="No [1]."),
        Example("3", "asqa", "What is it?", (Document("U", "y"),)),
        Example("4", "qampari", "What is it?", DOCS),
        Example("5", "asqa", "What else?", DOCS),
    ]
    assert "".join(_ids(_mix(folder, rows, repetitions=repetitions)["train"])) == ids
    assert _account(folder)["splits"]["train"]["repetitions"] == 5 - len(ids)


def test_the_account_says_what_became_of_the_files(folder: Path) -> None:
    more = folder / "more.json"
    leaked = Example("x", "asqa", "T QUESTION 0", DOCS)
    write_examples(more, [leaked, *_rows("asqa", "m", 2), *_rows("asqa", "m", 1)])
    options = _options(folder, train=[str(folder / "train.json"), str(more)], seed=3)
    assert mix(options, folder / "out") == (
        "data: train 14, dev 4, test/asqa 3, test/qampari 2, left out as in another split 1, "
        "left out as repeated 1"
    )
    account = _account(folder)
    assert account["seed"] == 3
    assert account["splits"]["train"] == {
        "rows": 14,
        "datasets": {"asqa": 8, "qampari": 6},
        "files": {str(folder / "train.json"): 12, str(more): 2},
        "leaks": 1,
        "repetitions": 1,
        "without_documents": 0,
        "documents_found": 0,
    }
    assert account["inputs"][str(more)] == hashlib.sha256(more.read_bytes()).hexdigest()
    assert len(account["inputs"]) == 4


_WAYS = (str.upper, str.title, "  {}?".format, "“{}”".format, "{}\u200b!".format)
_QUESTIONS = st.builds(
    lambda way, n: way(f"straße {n} où"), st.sampled_from(_WAYS), st.integers(0, 60)
)
_EXAMPLES = st.lists(
    st.tuples(_QUESTIONS, st.sampled_from(["asqa", "qampari"]), st.sampled_from("123")),
    min_size=40,
    max_size=40,
)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    files=st.tuples(_EXAMPLES, _EXAMPLES, _EXAMPLES),
    repetitions=st.sampled_from(["rows", "questions", "keep"]),
    sizes=st.sampled_from([{}, {"test_size": 5, "dev_size": 3}]),
    seed=st.integers(0, 99),
)
def test_no_question_is_in_two_splits(
    folder: Path, files: Any, repetitions: str, sizes: dict[str, int], seed: int
) -> None:
    """Whatever the files are, and however their questions are written."""
    for name, rows in zip(("train", "dev", "test"), files, strict=True):
        examples = [
            Example(f"{name}{i}", d, q, (Document("T", t),)) for i, (q, d, t) in enumerate(rows)
        ]
        write_examples(folder / f"{name}.json", examples)
    try:
        splits = _mix(folder, repetitions=repetitions, seed=seed, **sizes)
    except InputError:
        reject()  # So few rows are left of a split or dataset that nothing is written.
    questions = {
        name: [normalized_question(e.question) for e in rows] for name, rows in splits.items()
    }
    tests = {*questions["test/asqa"], *questions["test/qampari"]}
    assert not {*questions["train"]} & {*questions["dev"]}
    assert not {*questions["train"], *questions["dev"]} & tests
    if repetitions == "questions":
        assert len(set(questions["train"])) == len(questions["train"])


def _own(folder: Path, *rows: dict[str, Any], **more: object) -> DataOptions:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return _options(folder, train=[str(path)], **more)


def test_rows_without_documents_are_refused_left_out_or_helped(folder: Path) -> None:
    options = _own(
        folder,
        {"question": "1?", "docs": ["x"]},
        {"question": "2?"},
        {"question": "3?", "docs": []},
    )
    with pytest.raises(InputError) as error:
        mix(options, folder / "out")
    assert str(error.value) == (
        f"{folder}/mine.jsonl, line 2, field docs: expected documents, got none (2 of 3 rows have "
        "none; `retrieval` finds them some, and `data.without_documents: leave_out` goes on "
        "without them)"
    )
    leaving = options.model_copy(update={"without_documents": "leave_out"})
    assert mix(leaving, folder / "out").endswith("left out without documents 2")

    def find(examples: Sequence[Example]) -> list[Example]:
        assert [e.question for e in examples] == ["2?", "3?"]
        return [replace(examples[0], docs=(Document("F", "found"),)), examples[1]]

    with pytest.raises(InputError, match=r"line 3, field docs: .*1 of 3 .*`retrieval` found none"):
        mix(options, folder / "out", find)
    line = mix(leaving, folder / "out", find)
    assert line.endswith("left out without documents 1, documents found for 1")
    bare = _own(folder, {"question": "1?"}, without_documents="leave_out")
    with pytest.raises(InputError, match=r"1 of 1 rows have none; .* nothing is left without them"):
        mix(bare, folder / "out")
    found = [e.docs for e in read_examples(folder / "out" / "train.json")]
    assert found == [(Document("", "x"),), (Document("F", "found"),)]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"train_size": -1}, "expected rows per dataset .* one whole number from 0, got -1"),
        ({"dev_size": {"nq": 1}}, "dataset .asqa, .*, got {'nq': 1}"),
        (
            {"datasets": ["asqa"], "train_size": {"eli5": 1}},
            "train_size: expected datasets of data",
        ),
    ],
)
def test_bad_options_are_named(folder: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        _options(folder, **change)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Who is it?", "who is it", True),
        ("Cafe\u0301", "CAFÉ", True),
        ("ﬁve １２", "Five 12", True),
        ("STRASSE", "straße", True),
        ("Who\u200b is it", "Who is it", True),
        ("snake_case", "snake case", True),
        ("Who is it?", "Who was it?", False),
        ("resume", "résumé", False),
        ("की", "कि", False),
        ("?", "!", False),
        ("What's the U.S. GDP (2001)?", "what s the u s gdp 2001", True),
    ],
)
def test_when_two_questions_are_the_same(one: str, other: str, same: bool) -> None:
    assert (normalized_question(one) == normalized_question(other)) is same
