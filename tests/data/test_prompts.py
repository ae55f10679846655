"""Prompts, and how long ones are shortened."""

from __future__ import annotations

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.prompts import Prompt, Turn, fit, render
from citepipe.errors import InputError
from citepipe.options import PromptOptions

EXAMPLE = Example(
    "0",
    "asqa",
    "Who?",
    (Document("One", "a b c d e f"), Document("Two {Q}", "g h")),
)
PLAIN = PromptOptions(instruction="Say.")


def words(text: str) -> list[int]:
    return [len(word) for word in text.split()]


def test_the_default_layout_is_that_of_alce() -> None:
    assert render(EXAMPLE, PLAIN) == (
        "Say.\n\nQuestion: Who?\n\nDocument [1](Title: One): a b c d e f\n"
        "Document [2](Title: Two {Q}): g h\n\nAnswer:"
    )


def test_lists_may_have_an_instruction_of_their_own() -> None:
    options = PromptOptions(instruction="Say.", list_instruction="List.", demo_prompt="{INST} {Q}")
    listing = Example("0", "qampari", "Which?", ())
    assert render(listing, options) == "List. Which?"
    assert render(EXAMPLE, options) == "Say. Who?"


def test_a_prompt_within_budget_stays_as_it_is() -> None:
    prompt = fit(EXAMPLE, PLAIN, words)
    assert prompt.text == render(EXAMPLE, PLAIN)
    assert not prompt.shortened
    assert prompt.token_ids == tuple(words(prompt.text))


def test_the_longest_documents_are_shortened_first_and_the_question_never() -> None:
    # 21 words in all; 19 leave four of the first document's six, and both of the second's.
    options = PLAIN.model_copy(update={"max_input_tokens": len(words(render(EXAMPLE, PLAIN))) - 2})
    prompt = fit(EXAMPLE, options, words)
    assert prompt.shortened
    assert "(Title: One): a b c d\n" in prompt.text
    assert "g h" in prompt.text
    assert "Who?" in prompt.text
    assert prompt.text.endswith("Answer:")


def test_a_question_that_cannot_fit_is_an_error() -> None:
    options = PLAIN.model_copy(update={"max_input_tokens": 8})
    with pytest.raises(InputError, match=r"question 0: .* tokens without any document text"):
        fit(EXAMPLE, options, words)


def test_what_is_wrapped_around_a_prompt_counts_and_is_remembered() -> None:
    turn = Turn(" ", " </s>", 2)
    plain = len(words(render(EXAMPLE, PLAIN)))

    def asked(budget: int) -> Prompt:
        options = PLAIN.model_copy(update={"max_input_tokens": budget})
        return fit(EXAMPLE, options, words, lambda said: f"<user> {said[0]} <assistant>", turn)

    whole, cut = asked(plain + 2), asked(plain + 1)
    assert whole.text == f"<user> {render(EXAMPLE, PLAIN)} <assistant>"
    assert len(whole.token_ids) == plain + 2
    assert len(cut.token_ids) == plain + 1
    assert "(Title: One): a b c d e\n" in cut.text
    assert (whole.shortened, cut.shortened) == (False, True)
    assert whole.turn == cut.turn == turn
