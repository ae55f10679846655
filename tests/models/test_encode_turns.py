"""Demonstrations as earlier turns of a chat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.prompts import render
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.options import PromptOptions
from tests.models.test_encode import KINDS, chat_tokenizer

EXAMPLE = Example("0", "asqa", "Who?", (Document("T", "It was Zoë."),))
ASKED = "Say.\n\nQuestion: {}?\n\n[1] T: {}.\n\nAnswer:"
MESSAGES = [
    {"role": "user", "content": ASKED.format("A", "a a a a")},
    {"role": "assistant", "content": "One [1]."},
    {"role": "user", "content": ASKED.format("B", "b b b b")},
    {"role": "assistant", "content": "Two [1]."},
    {"role": "user", "content": ASKED.format("Who", "It was Zoë")},
]


@pytest.fixture
def options(tmp_path: Path) -> PromptOptions:
    demos = [
        {"question": f"{name}?", "answer": answer, "docs": [{"title": "T", "text": text}]}
        for name, answer, text in [("A", "One [1].", "a a a a."), ("B", " Two [1].", "b b b b.")]
    ]
    value = {
        "instruction": "Say.",
        "demo_sep": "\n\n\n",
        "demo_prompt": "{INST}\n\nQuestion: {Q}\n\n{D}\nAnswer: {A}",
        "doc_prompt": "[{ID}] {T}: {P}\n",
        "demos": demos,
    }
    path = tmp_path / "asqa.json"
    path.write_text(json.dumps(value))
    return PromptOptions(files={"asqa": str(path)}, shots=2, demo_turns=True, max_input_tokens=4000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_demonstration_is_a_message_and_its_answer(kind: str, options: PromptOptions) -> None:
    name, template, _ = KINDS[kind]
    tokenizer = chat_tokenizer(name, template)
    prompt = encode_prompt(EXAMPLE, options, tokenizer)
    text = tokenizer.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert prompt.text == text + ("### assistant:\n" if kind == "roles" else "")
    answered = [*MESSAGES, {"role": "assistant", "content": "Zoë [1]."}]
    whole = tokenizer.apply_chat_template(answered, tokenize=False, enable_thinking=False)
    answer = encode_answer(prompt, "Zoë [1].", tokenizer, 500)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    both = [*prompt.token_ids, *answer[:-1]]
    assert ids[: len(both)] == both


def test_without_a_template_all_is_one_text(options: PromptOptions) -> None:
    tokenizer = chat_tokenizer(*KINDS["chatml"][:2])
    plain = options.model_copy(update={"chat": "plain"})
    together = options.model_copy(update={"demo_turns": False})
    assert encode_prompt(EXAMPLE, plain, tokenizer).text == render(EXAMPLE, together)


def test_demonstrations_in_turns_lose_words_too(options: PromptOptions) -> None:
    tokenizer = chat_tokenizer(*KINDS["chatml"][:2])
    whole = len(encode_prompt(EXAMPLE, options, tokenizer).token_ids)
    short = options.model_copy(update={"max_input_tokens": whole - 1})
    prompt = encode_prompt(EXAMPLE, short, tokenizer)
    assert prompt.shortened
    assert len(prompt.token_ids) < whole
    assert "It was Zoë." in prompt.text
    assert "a a a a." not in prompt.text
    least = options.model_copy(update={"max_input_tokens": 20})
    with pytest.raises(InputError, match="tokens without any document text"):
        encode_prompt(EXAMPLE, least, tokenizer)
