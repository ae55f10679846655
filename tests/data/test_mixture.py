"""The mixture: sizes, seeds, and no question in two splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_examples
from citepipe.data.mixture import mix
from citepipe.errors import InputError
from citepipe.options.data import DataOptions


def _rows(dataset: str, name: str, count: int) -> list[Example]:
    docs = (Document("T", "x"),) * 7
    return [Example(f"{name}-{i}", dataset, f"{name} question {i}?", docs) for i in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_examples(tmp_path / "train.json", _rows("asqa", "a", 6) + _rows("qampari", "q", 6))
    write_examples(tmp_path / "dev.json", _rows("asqa", "d", 4))
    write_examples(tmp_path / "test.json", _rows("asqa", "t", 3) + _rows("qampari", "u", 2))
    return tmp_path


def _options(folder: Path, **more: object) -> DataOptions:
    return DataOptions.model_validate(
        {
            "train": [str(folder / "train.json")],
            "dev": [str(folder / "dev.json")],
            "test": {d: str(folder / "test.json") for d in ("asqa", "qampari")},
            **more,
        }
    )


def test_without_sizes_everything_is_taken(folder: Path) -> None:
    summary = mix(_options(folder), folder / "out")
    assert len(read_examples(folder / "out" / "train.json")) == 12
    tests = {d: read_examples(folder / "out" / "test" / f"{d}.json") for d in ("asqa", "qampari")}
    assert {d: len(rows) for d, rows in tests.items()} == {"asqa": 3, "qampari": 2}
    assert summary == "data: train 12, dev 4, test/asqa 3, test/qampari 2"


def test_sizes_are_per_dataset_and_chosen_by_the_seed(folder: Path) -> None:
    chosen = []
    for run, seed in enumerate((1, 1, 2)):
        options = _options(folder, train_size={"asqa": 3, "qampari": 4}, seed=seed)
        mix(options, folder / str(run))
        chosen.append([e.id for e in read_examples(folder / str(run) / "train.json")])
    assert chosen[0] == chosen[1] != chosen[2]
    assert Counter(i[0] for i in chosen[0]) == {"a": 3, "q": 4}


def test_as_many_documents_are_kept_as_will_be_shown(folder: Path) -> None:
    mix(_options(folder, documents=5), folder / "out")
    assert {len(e.docs) for e in read_examples(folder / "out" / "train.json")} == {5}


def test_a_question_of_a_later_split_leaves_the_earlier_ones(folder: Path) -> None:
    repeated = [Example("x", "asqa", "T QUESTION 0", (Document("T", "x"),))]
    write_examples(folder / "train.json", repeated + _rows("asqa", "a", 2))
    mix(_options(folder), folder / "out")
    assert [e.id for e in read_examples(folder / "out" / "train.json")] == ["a-0", "a-1"]


def test_one_file_can_be_dealt_out_among_the_splits(folder: Path) -> None:
    path = str(folder / "train.json")
    options = DataOptions(
        train=[path],
        dev=[path],
        test={"asqa": path},
        dev_size={"asqa": 1, "qampari": 2},
        test_size={"asqa": 2},
    )
    mix(options, folder / "out")
    splits = [
        [e.id for e in read_examples(folder / "out" / f"{name}.json")]
        for name in ("train", "dev", "test/asqa")
    ]
    assert [len(split) for split in splits] == [7, 3, 2]
    assert len({i for split in splits for i in split}) == 12


def test_too_few_rows_are_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match=r"train\.json: expected 9 rows of dataset asqa, got 6"):
        mix(_options(folder, train_size={"asqa": 9}), folder / "out")


def test_rows_with_one_id_get_different_ones(folder: Path) -> None:
    same = [
        Example("0", "asqa", "One?", (Document("T", "x"),)),
        Example("0", "qampari", "Two?", (Document("T", "x"),)),
    ]
    write_examples(folder / "train.json", same)
    mix(_options(folder), folder / "out")
    assert [e.id for e in read_examples(folder / "out" / "train.json")] == ["asqa-0", "qampari-0"]
