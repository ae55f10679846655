"""Questions and answers as tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.models.load import load_tokenizer
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions

EXAMPLE = Example("0", "asqa", "Who?", (Document("T", "It was Zoë."),))


@pytest.fixture
def tokenizer(tiny_base: Path):  # type: ignore[no-untyped-def]
    return load_tokenizer(ModelOptions(base=str(tiny_base)))


def test_prompt_and_answer_join_to_the_text_that_a_model_sees(tokenizer) -> None:  # type: ignore[no-untyped-def]
    prompt = encode_prompt(EXAMPLE, PromptOptions(instruction="Say."), tokenizer)
    answer = encode_answer(prompt, "Zoë [1].", tokenizer, 200)
    assert tokenizer.decode([*prompt.token_ids, *answer[:-1]]) == f"{prompt.text} Zoë [1]."
    assert answer[-1] == tokenizer.eos_token_id


def test_an_end_of_sequence_that_a_tokenizer_appends_is_not_part_of_the_prompt(tokenizer) -> None:  # type: ignore[no-untyped-def]
    from tokenizers.processors import TemplateProcessing

    plain = encode_prompt(EXAMPLE, PromptOptions(instruction="Say."), tokenizer)
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    assert encode_prompt(EXAMPLE, PromptOptions(instruction="Say."), tokenizer) == plain
    assert encode_answer(plain, "No.", tokenizer, 9).count(tokenizer.eos_token_id) == 1
