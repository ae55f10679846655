"""Prompt files in ALCE's layout, and prompts with demonstrations."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.demonstrations import Demonstration, chosen, read_prompt_file, shown_documents
from citepipe.data.example import Document, Example
from citepipe.data.prompts import check_prompt, fit, render
from citepipe.errors import InputError
from citepipe.options import PromptOptions

SHARED = Path(__file__).parents[3] / "shared" / "data"
FILE: dict[str, Any] = {
    "instruction": "Say.",
    "demo_sep": "\n\n",
    "demo_prompt": "{INST}\n\nQuestion: {Q}\n\n{D}\nAnswer: {A}",
    "doc_prompt": "[{ID}] {T}: {P}\n",
    "demos": [
        {
            "question": f"Q{n}?",
            "answer": f" A{n} [1].",
            "docs": [{"title": "T", "text": f"one two {n}", "summary": f"sum {n}"}] * 2,
        }
        for n in range(4)
    ],
}
EXAMPLE = Example(
    "7", "asqa", "Who?", (Document("One", "a b c d e f", summary="a"), Document("Two", "g h"))
)


def written(tmp_path: Path, value: Any = FILE) -> str:
    path = tmp_path / "asqa.json"
    path.write_text(json.dumps(value))
    return str(path)


def prompting(path: str, **others: Any) -> PromptOptions:
    return PromptOptions.model_validate({"files": {"asqa": path}, **others})


def test_a_prompt_with_a_demonstration(tmp_path: Path) -> None:
    options = prompting(written(tmp_path), shots=1, demo_documents=1)
    assert render(EXAMPLE, options) == (
        "Say.\n\nQuestion: Q0?\n\n[1] T: one two 0\n\nAnswer: A0 [1].\n\n"
        "Say.\n\nQuestion: Who?\n\n[1] One: a b c d e f\n[2] Two: g h\n\nAnswer:"
    )


def test_shorter_texts_are_shown_where_there_are_some(tmp_path: Path) -> None:
    options = prompting(written(tmp_path), shots=1, demo_documents=1, documents="summary")
    text = render(EXAMPLE, options)
    assert "[1] T: sum 0\n" in text
    assert "[1] One: a\n[2] Two: g h\n" in text


@pytest.mark.parametrize(
    ("summaries", "at_most", "shown"),
    [
        (["a", "b", "c"], 2, [0, 1]),
        (["irrelevant", "b", "It is Irrelevant.", "d"], 2, [1, 3]),
        (["a", None, "c"], 3, [0]),
        ([None, "b"], 3, [0]),
        (["irrelevant", None, "c"], 3, [1]),
        (["irrelevant", "irrelevant"], 3, []),
        (["a", "b"], 0, []),
        (["a"] * 7, None, [0, 1, 2, 3, 4]),
    ],
)
def test_demonstrations_show_what_their_shorter_texts_choose(
    summaries: list[str | None], at_most: int | None, shown: list[int]
) -> None:
    docs = tuple(Document(str(n), "text", summary=text) for n, text in enumerate(summaries))
    options = PromptOptions(documents="summary", demo_documents=at_most)
    found = shown_documents(Demonstration("Q?", "A.", docs), options)
    assert [int(doc.title) for doc in found] == shown


def test_without_documents_there_is_no_empty_line(tmp_path: Path) -> None:
    bare = Example("7", "asqa", "Who?", ())
    assert render(bare, prompting(written(tmp_path))) == "Say.\n\nQuestion: Who?\n\nAnswer:"


def test_demonstrations_lose_words_before_the_question_does(tmp_path: Path) -> None:
    options = prompting(written(tmp_path), shots=2)
    whole = render(EXAMPLE, options)

    def count(text: str) -> list[str]:
        return text.split()

    def tokens(text: str) -> list[int]:
        return [0] * len(count(text))

    # Each word less per document of a demonstration is four in all.
    short = fit(
        EXAMPLE, options.model_copy(update={"max_input_tokens": len(count(whole)) - 3}), tokens
    )
    assert short.shortened
    assert "[1] T: one two\n" in short.text
    assert "[1] T: one two 0\n" not in short.text
    assert "[1] One: a b c d e f\n[2] Two: g h\n" in short.text
    # All twelve words of demonstrations and three of the question's own documents must go.
    shorter = fit(
        EXAMPLE, options.model_copy(update={"max_input_tokens": len(count(whole)) - 15}), tokens
    )
    assert "[1] T: \n[2] T: \n" in shorter.text
    assert "[1] One: a b c\n[2] Two: g h\n" in shorter.text
    assert "Q1?" in shorter.text
    assert shorter.text.endswith("Who?\n\n[1] One: a b c\n[2] Two: g h\n\nAnswer:")
    with pytest.raises(InputError, match=r"question 7: .* tokens without any document text"):
        fit(EXAMPLE, options.model_copy(update={"max_input_tokens": 10}), tokens)


def test_demonstrations_are_the_first_or_drawn_by_a_seed(tmp_path: Path) -> None:
    import numpy

    path = written(tmp_path)
    file = read_prompt_file(path)
    assert [d.question for d in chosen(file, prompting(path, shots=2), path)] == ["Q0?", "Q1?"]
    numpy.random.seed(42)
    drawn = numpy.random.choice(4, 2, replace=False)
    found = chosen(file, prompting(path, shots=2, demo_seed=42), path)
    assert [d.question for d in found] == [f"Q{n}?" for n in drawn]


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in FILE.items() if key != name}


def _demo(**change: Any) -> dict[str, Any]:
    value = copy.deepcopy(FILE)
    value["demos"][1] |= change
    return value


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([], ": expected an object with instruction, templates and demos"),
        (_without("instruction"), ", field instruction: expected a string"),
        (_without("demo_sep"), ", field demo_sep: expected a string"),
        (FILE | {"demo_prompt": "{Q}"}, ", field demo_prompt: expected {A} in it"),
        (FILE | {"doc_prompt": "{T}"}, ", field doc_prompt: expected {P} in it"),
        (FILE | {"demos": {}}, ", field demos: expected a list"),
        (FILE | {"demos": ["x"]}, ", field demos[0]: expected an object"),
        (_demo(question=3), ", field demos[1], field question: expected a string"),
        (
            _demo(answer=[1]),
            ", field demos[1], field answer: expected a string, or a list of lines",
        ),
        (_demo(docs="d"), ", field demos[1], field docs: expected a list"),
        (_demo(docs=["d"]), ", field demos[1], field docs[0]: expected an object"),
        (
            _demo(docs=[{"title": "a"}]),
            ", field demos[1], field docs[0], field text: expected a string",
        ),
        (
            _demo(docs=[{"title": "a", "text": "b", "summary": 1}]),
            ", field demos[1], field docs[0], field summary: expected a string",
        ),
    ],
)
def test_a_bad_file_is_told_in_a_line(value: Any, line: str, tmp_path: Path) -> None:
    path = written(tmp_path, value)
    with pytest.raises(InputError) as caught:
        check_prompt(prompting(path), ["asqa"])
    assert str(caught.value) == f"{path}{line}"


def test_too_few_demonstrations_and_no_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(InputError, match="field demos: expected at least 5, got 4"):
        check_prompt(prompting(path, shots=5), ["asqa"])
    with pytest.raises(InputError, match=r"^prompt\.files\.eli5: missing"):
        check_prompt(prompting(path, shots=1), ["asqa", "eli5"])
    check_prompt(prompting(path), ["asqa", "eli5"])


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("dataset", ["asqa", "qampari", "eli5"])
def test_alces_own_files(dataset: str) -> None:
    path = str(SHARED / f"alce_prompt_{dataset}_default.json")
    options = PromptOptions.model_validate({"files": {dataset: path}, "shots": 2})
    text = render(Example("0", dataset, "Who?", (Document("T", "P"),)), options)
    assert text.count("Question: ") == 3
    assert text.count("\nDocument [") == 11
    assert text.endswith("Question: Who?\n\nDocument [1](Title: T): P\n\nAnswer:")
