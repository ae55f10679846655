"""The mixture: sizes, seeds, and no question in two splits."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_examples
from citepipe.data.mixture import in_proportion, kept_documents, mix, normalized_question
from citepipe.errors import InputError
from citepipe.options import DataOptions


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


def _written(out: Path, name: str) -> list[Example]:
    return read_examples(out / f"{name}.json")


def _account(out: Path) -> Any:
    return json.loads((out / "mixture.json").read_text())


def test_ids_of_several_files_that_count_from_0_are_told_apart(folder: Path) -> None:
    rows = [Example("0", "eli5", f"{n}?", (Document("T", "x"),)) for n in range(3)]
    write_examples(folder / "a.json", [*rows[:2], replace(rows[2], id="eli5-0-2")])
    mix(_options(folder, train=[str(folder / "a.json")]), folder / "out")
    ids = [e.id for e in _written(folder / "out", "train")]
    assert ids == ["eli5-0", "eli5-0-2", "eli5-eli5-0-2"]
    again = [Example("eli5-0", "eli5", "b?", rows[0].docs), replace(rows[0], id="0")]
    again += [replace(rows[1], id="0"), replace(rows[2], id="0-2")]
    write_examples(folder / "a.json", again)
    mix(_options(folder, train=[str(folder / "a.json")]), folder / "out")
    ids = [e.id for e in _written(folder / "out", "train")]
    assert ids == ["eli5-eli5-0", "eli5-0", "eli5-0-3", "eli5-0-2"]


def test_shares_go_to_the_largest_remainders() -> None:
    # 10 of 7 + 2 + 4 = 13: 5.38, 1.54, 3.08.
    assert in_proportion(10, {"a": 7, "b": 2, "c": 4}, "f") == {"a": 5, "b": 2, "c": 3}
    assert in_proportion(1, {"a": 1, "b": 1}, "f") == {"a": 1, "b": 0}
    assert in_proportion(13, {"a": 7, "b": 2, "c": 4}, "f") == {"a": 7, "b": 2, "c": 4}
    assert in_proportion(0, {}, "f") == {}
    with pytest.raises(InputError, match="f: expected 14 rows, got 13"):
        in_proportion(14, {"a": 7, "b": 2, "c": 4}, "f")


def test_one_number_is_spread_over_the_datasets(folder: Path) -> None:
    write_examples(folder / "train.json", _rows("asqa", "a", 9) + _rows("qampari", "q", 3))
    mix(_options(folder, train_size=8, test_size=4), folder / "out")
    train = Counter(e.dataset for e in _written(folder / "out", "train"))
    assert train == {"asqa": 6, "qampari": 2}
    # 3 and 2 rows: 2.4 and 1.6.
    assert len(_written(folder / "out", "test/asqa")) == 2
    assert len(_written(folder / "out", "test/qampari")) == 2
    # The rows are those of the same sizes by dataset.
    mix(_options(folder, train_size={"asqa": 6, "qampari": 2}), folder / "by")
    assert _written(folder / "by", "train") == _written(folder / "out", "train")
    with pytest.raises(InputError, match=r"train\.json: expected 13 rows, got 12"):
        mix(_options(folder, train_size=13), folder / "out")


def test_the_separate_setting_is_a_dataset_of_the_combined_files(folder: Path) -> None:
    mix(_options(folder, datasets=["asqa"]), folder / "out")
    assert {e.dataset for e in _written(folder / "out", "train")} == {"asqa"}
    assert len(_written(folder / "out", "train")) == 6
    # What is tested is said by `test`.
    assert len(_written(folder / "out", "test/qampari")) == 2
    with pytest.raises(InputError, match=r"dev\.json: expected rows of dataset qampari or eli5"):
        mix(_options(folder, datasets=["qampari", "eli5"]), folder / "out")


def test_what_repeats_a_row_is_left_out_of_a_split(folder: Path) -> None:
    docs = (Document("T", "x"),)
    other = (Document("U", "y"),)
    rows = [
        Example("1", "asqa", "What is it?", docs),
        Example("2", "asqa", "what IS it", docs, output="No [1]."),
        Example("3", "asqa", "What is it?", other),
        Example("4", "qampari", "What is it?", docs),
        Example("5", "asqa", "What else?", docs),
    ]
    write_examples(folder / "train.json", rows)
    for repetitions, ids in (
        ("rows", ["1", "3", "4", "5"]),
        ("questions", ["1", "5"]),
        ("keep", ["1", "2", "3", "4", "5"]),
    ):
        line = mix(_options(folder, repetitions=repetitions), folder / "out")
        assert [e.id for e in _written(folder / "out", "train")] == ids
        left = 5 - len(ids)
        assert _account(folder / "out")["splits"]["train"]["repetitions"] == left
        assert line.endswith(f"left out as repeated {left}" if left else "test/qampari 2")


def test_the_account_says_what_became_of_the_files(folder: Path) -> None:
    more = folder / "more.json"
    leaked = Example("x", "asqa", "t question 0", (Document("T", "x"),))
    write_examples(more, [leaked, *_rows("asqa", "m", 2), *_rows("asqa", "m", 1)])
    options = _options(folder, train=[str(folder / "train.json"), str(more)], documents=7, seed=3)
    line = mix(options, folder / "out")
    assert line == (
        "data: train 14, dev 4, test/asqa 3, test/qampari 2, left out as in another split 1, "
        "left out as repeated 1"
    )
    account = _account(folder / "out")
    assert account["seed"] == 3
    assert account["splits"]["train"] == {
        "rows": 14,
        "datasets": {"asqa": 8, "qampari": 6},
        "files": {str(folder / "train.json"): 12, str(more): 2},
        "leaks": 1,
        "repetitions": 1,
        "without_documents": 0,
        "documents_found": 0,
        "documents_cut": 0,
    }
    assert account["inputs"][str(more)] == hashlib.sha256(more.read_bytes()).hexdigest()
    assert len(account["inputs"]) == 4
    assert account["options"] == options.model_dump(mode="json")
    mix(options.model_copy(update={"documents": 5}), folder / "out")
    assert _account(folder / "out")["splits"]["train"]["documents_cut"] == 14


def test_the_same_files_come_of_the_same_seed(folder: Path) -> None:
    options = _options(folder, train_size=7, test_size={"asqa": 1})
    for run in ("1", "2"):
        mix(options, folder / run)
    written = sorted(p.relative_to(folder / "1") for p in (folder / "1").rglob("*.json"))
    assert len(written) == 5
    for path in written:
        assert (folder / "1" / path).read_bytes() == (folder / "2" / path).read_bytes()


def test_no_question_is_in_two_splits(folder: Path) -> None:
    """Whatever the files are, and however their questions are written."""
    rng = random.Random(0)
    ways = (str.upper, str.title, "  {}?".format, "“{}”".format, "{}\u200b!".format)
    for run in range(20):
        for name in ("train", "dev", "test"):
            rows = []
            for number in range(40):
                question = rng.choice(ways)(f"straße {rng.randrange(60)} où")
                dataset = rng.choice(("asqa", "qampari"))
                docs = (Document("T", str(rng.randrange(3))),)
                rows.append(Example(f"{name}{number}", dataset, question, docs))
            write_examples(folder / f"{name}.json", rows)
        settings: dict[str, Any] = {"repetitions": rng.choice(("rows", "questions", "keep"))}
        settings |= rng.choice(({}, {"test_size": 10, "dev_size": 5}, {"train_size": 3}))
        mix(_options(folder, seed=run, **settings), folder / "out")
        tests = _written(folder / "out", "test/asqa") + _written(folder / "out", "test/qampari")
        splits = [_written(folder / "out", "train"), _written(folder / "out", "dev"), tests]
        questions = [{normalized_question(e.question) for e in split} for split in splits]
        assert not questions[0] & questions[1]
        assert not questions[0] & questions[2]
        assert not questions[1] & questions[2]
        if settings["repetitions"] == "questions":
            assert len(questions[0]) == len(splits[0])


def _own(folder: Path, rows: Sequence[dict[str, Any]]) -> DataOptions:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return _options(folder, train=[str(path)])


def test_own_rows_need_no_dataset(folder: Path) -> None:
    options = _own(folder, [{"question": "1?", "passages": ["x"], "answers": ["a"]}])
    mix(options, folder / "out")
    assert [e.dataset for e in _written(folder / "out", "train")] == ["eli5"]
    mix(options.model_copy(update={"own_as": "qampari"}), folder / "out")
    (example,) = _written(folder / "out", "train")
    assert (example.dataset, example.answers) == ("qampari", (("a",),))


def test_rows_without_documents_are_refused_left_out_or_helped(folder: Path) -> None:
    options = _own(folder, [{"question": "1?", "docs": ["x"]}, {"question": "2?"},
                            {"question": "3?", "docs": []}])  # fmt: skip
    with pytest.raises(InputError) as error:
        mix(options, folder / "out")
    assert str(error.value) == (
        f"{folder}/mine.jsonl, line 2, field docs: expected documents, got none (2 of 3 rows have "
        "none; `retrieval` finds them some, and `data.without_documents: leave_out` goes on "
        "without them)"
    )
    leaving = options.model_copy(update={"without_documents": "leave_out"})
    assert mix(leaving, folder / "out").endswith("left out without documents 2")
    assert [e.question for e in _written(folder / "out", "train")] == ["1?"]

    asked: list[str] = []

    def find(examples: Sequence[Example]) -> list[Example]:
        asked.extend(e.question for e in examples)
        found = [(Document("F", e.question),) if e.question != "3?" else () for e in examples]
        return [replace(e, docs=docs) for e, docs in zip(examples, found, strict=True)]

    with pytest.raises(InputError, match=r"line 3, field docs: .*1 of 3 .*`retrieval` found none"):
        mix(options, folder / "out", find)
    assert asked == ["2?", "3?"]
    line = mix(leaving, folder / "out", find)
    assert line.endswith("left out without documents 1, documents found for 1")
    assert [e.docs for e in _written(folder / "out", "train")] == [
        (Document("", "x"),),
        (Document("F", "2?"),),
    ]


def test_a_file_without_any_documents_is_refused_in_any_case(folder: Path) -> None:
    options = _own(folder, [{"question": "1?"}])
    leaving = options.model_copy(update={"without_documents": "leave_out"})
    with pytest.raises(InputError, match="1 of 1 rows have none"):
        mix(leaving, folder / "out")


@pytest.mark.parametrize(
    ("summaries", "kept"),
    [
        (["a", "b", "c"], "01"),
        (["irrelevant", "b", "It is Irrelevant.", "d", "e"], "13"),
        (["a", None, "c"], "0"),
        ([None, "b"], "0"),
        (["irrelevant", None, "c"], "1"),
        (["irrelevant", "irrelevant"], "0"),
        ([], ""),
    ],
)
def test_documents_are_chosen_by_a_shorter_text(summaries: list[str | None], kept: str) -> None:
    docs = tuple(Document("", str(n), summary=s) for n, s in enumerate(summaries))
    options = DataOptions(train=[], dev=[], test={}, documents=2, shorter="summary")
    example = Example("0", "eli5", "?", docs)
    assert "".join(doc.text for doc in kept_documents(example, options)) == kept


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"train_size": -1}, "expected rows per dataset, .* one whole number from 0, got -1"),
        ({"train_size": "all"}, "got 'all'"),
        ({"train_size": True}, "got True"),
        ({"dev_size": {"nq": 1}}, "expected datasets .asqa, .*, got 'nq'"),
        ({"test_size": {"asqa": -1}}, "expected a whole number from 0 for asqa, got -1"),
        ({"test_size": {"asqa": None}}, "expected a whole number from 0 for asqa, got None"),
        ({"datasets": []}, "datasets: expected at least one"),
        (
            {"datasets": ["asqa"], "train_size": {"eli5": 1}},
            "train_size: expected datasets of data.datasets .asqa., got 'eli5'",
        ),
    ],
)  # fmt: skip
def test_bad_options_are_named(folder: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        _options(folder, **change)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who is it?", "who is it"),
        ("Who  is\tit", "Who is it"),
        ("Who is “it”?", 'Who is "it"?'),
        ("Cafe\u0301", "CAFÉ"),
        ("ﬁve", "Five"),
        ("STRASSE", "straße"),
        ("１２", "12"),
        ("Who\u200b is it", "Who is it"),
        ("Who\u00a0is it", "Who is it"),
        ("snake_case", "snake case"),
    ],
)
def test_questions_that_are_written_otherwise_are_the_same(one: str, other: str) -> None:
    assert normalized_question(one) == normalized_question(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who is it?", "Who was it?"),
        ("resume", "résumé"),
        ("की", "कि"),
        ("?", "!"),
        ("", "?"),
        ("in 2001", "in 2002"),
    ],
)
def test_other_questions_are_not(one: str, other: str) -> None:
    assert normalized_question(one) != normalized_question(other)


def test_what_is_compared() -> None:
    assert normalized_question("  What's the U.S. GDP (2001)?\n") == "what s the u s gdp 2001"
