"""Prompts, their demonstrations, and how long ones are shortened."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from pydantic import ValidationError

from citepipe.data.example import Document, Example
from citepipe.data.mixture import kept_documents
from citepipe.data.prompts import (
    Demonstration,
    check_prompt,
    chosen,
    fit,
    read_prompt_file,
    render,
    shown_documents,
)
from citepipe.errors import InputError
from citepipe.options import DataOptions, PromptOptions

EXAMPLE = Example(
    "7", "asqa", "Who?", (Document("One", "a b c d e f", summary="a"), Document("Two {Q}", "g h"))
)
PLAIN = PromptOptions(instruction="Say.")
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


def words(text: str) -> list[int]:
    return [len(word) for word in text.split()]


def within(options: PromptOptions, tokens: int) -> PromptOptions:
    return options.model_copy(update={"max_input_tokens": tokens})


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "asqa.json").write_text(json.dumps(FILE))
    return str(tmp_path / "asqa.json")


def prompting(path: str, **others: Any) -> PromptOptions:
    return PromptOptions.model_validate({"files": {"asqa": path}, **others})


def test_the_default_layout_is_that_of_alce() -> None:
    assert render(EXAMPLE, PLAIN) == (
        "Say.\n\nQuestion: Who?\n\nDocument [1](Title: One): a b c d e f\n"
        "Document [2](Title: Two {Q}): g h\n\nAnswer:"
    )


def test_lists_may_have_an_instruction_of_their_own() -> None:
    options = PLAIN.model_copy(update={"list_instruction": "List."})
    listing = Example("0", "qampari", "Which?", ())
    # Without documents there is no empty line for them.
    assert render(listing, options) == "List.\n\nQuestion: Which?\n\nAnswer:"
    assert render(EXAMPLE, options).startswith("Say.")


@pytest.mark.parametrize(
    ("name", "template", "lacking"),
    [("demo_prompt", "{INST} {D}", "{Q}"), ("doc_prompt", "{ID} {T}", "{P}")],
)
def test_a_template_has_to_show_question_and_documents(
    name: str, template: str, lacking: str
) -> None:
    with pytest.raises(ValidationError, match=f"{name}\n.*expected {lacking} in the template"):
        PromptOptions.model_validate({name: template})


def test_the_longest_documents_are_shortened_first_and_the_question_never() -> None:
    # Two words too many leave four of the first document's six, and both of the second's.
    prompt = fit(EXAMPLE, within(PLAIN, len(words(render(EXAMPLE, PLAIN))) - 2), words)
    assert prompt.shortened
    assert prompt.text == render(EXAMPLE, PLAIN).replace("a b c d e f", "a b c d")
    with pytest.raises(InputError, match=r"question 7: .* tokens without any document text"):
        fit(EXAMPLE, within(PLAIN, 8), words)


def test_a_prompt_with_a_demonstration(path: str) -> None:
    text = render(EXAMPLE, prompting(path, shots=1, demo_documents=1))
    assert text == (
        "Say.\n\nQuestion: Q0?\n\n[1] T: one two 0\n\nAnswer: A0 [1].\n\n"
        "Say.\n\nQuestion: Who?\n\n[1] One: a b c d e f\n[2] Two {Q}: g h\n\nAnswer:"
    )
    shorter = render(EXAMPLE, prompting(path, shots=1, demo_documents=1, documents="summary"))
    assert shorter == text.replace("one two 0", "sum 0").replace("a b c d e f", "a")


@pytest.mark.parametrize(
    ("summaries", "shown", "kept"),
    [
        (["a", "b", "c"], "01", "01"),
        (["irrelevant", "b", "It is Irrelevant.", "d", None, "f"], "13", "13"),
        ([None, "b"], "0", "0"),
        # A question keeps one document where a demonstration shows none.
        (["irrelevant", "irrelevant"], "", "0"),
        ([], "", ""),
    ],
)
def test_documents_are_chosen_by_a_shorter_text(
    summaries: list[str | None], shown: str, kept: str
) -> None:
    docs = tuple(Document("", str(n), summary=text) for n, text in enumerate(summaries))
    prompt = PromptOptions(documents="summary", demo_documents=2)
    data = DataOptions(train=[], dev=[], test={}, documents=2, shorter="summary")
    demonstration, example = Demonstration("Q?", "A.", docs), Example("0", "eli5", "?", docs)
    assert "".join(doc.text for doc in shown_documents(demonstration, prompt)) == shown
    assert "".join(doc.text for doc in kept_documents(example, data)) == kept


def test_demonstrations_go_before_words_of_the_question_do(path: str) -> None:
    options = prompting(path, shots=2)
    one, none = (render(EXAMPLE, prompting(path, shots=shots)) for shots in (1, 0))
    for text, left_out in ((one, 1), (none, 2)):
        short = fit(EXAMPLE, within(options, len(words(text))), words)
        assert (short.text, short.left_out, short.shortened) == (text, left_out, False)
    shorter = fit(EXAMPLE, within(options, len(words(none)) - 3), words)
    assert shorter.text.endswith("Who?\n\n[1] One: a b c\n[2] Two {Q}: g h\n\nAnswer:")
    assert (shorter.left_out, shorter.shortened) == (2, True)


def test_demonstrations_are_the_first_or_drawn_by_a_seed(path: str) -> None:
    file = read_prompt_file(path)
    assert [d.question for d in chosen(file, prompting(path, shots=2), path)] == ["Q0?", "Q1?"]
    numpy.random.seed(42)
    drawn = numpy.random.choice(4, 2, replace=False)
    found = chosen(file, prompting(path, shots=2, demo_seed=42), path)
    assert [d.question for d in found] == [f"Q{n}?" for n in drawn]


def test_too_few_demonstrations_and_no_file(path: str) -> None:
    with pytest.raises(InputError, match="field demos: expected at least 5, got 4"):
        check_prompt(prompting(path, shots=5), ["asqa"])
    with pytest.raises(InputError, match=r"^prompt\.files\.eli5: missing"):
        check_prompt(prompting(path, shots=1), ["asqa", "eli5"])
    check_prompt(prompting(path), ["asqa", "eli5"])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"doc_prompt": "{T}"}, "doc_prompt: expected {P} in the template"),
        ({"question": 3}, "demos[1].question: expected a string, got a number"),
        ({"docs": [{"title": "a"}]}, "demos[1].docs[0].text: missing"),
    ],
)
def test_a_bad_prompt_file_is_one_clear_line(
    change: dict[str, Any], line: str, tmp_path: Path
) -> None:
    value = copy.deepcopy(FILE)
    (value if change.keys() <= FILE.keys() else value["demos"][1]).update(change)
    (tmp_path / "bad.json").write_text(json.dumps(value))
    with pytest.raises(InputError) as caught:
        check_prompt(prompting(str(tmp_path / "bad.json")), ["asqa"])
    assert str(caught.value) == f"{tmp_path}/bad.json, field {line}"
