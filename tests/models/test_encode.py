"""Questions and answers as tokens."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.prompts import render
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompt, encode_prompts, end_token, stops
from citepipe.models.load import load_tokenizer
from citepipe.options import ModelOptions, PromptOptions
from tests.generate.tiny_tokenizers import make_tokenizer

EXAMPLE = Example("0", "asqa", "Who?", (Document("T", "It was Zoë."),))


def test_plain_text_goes_on_from_the_prompt_to_the_end_of_sequence(tiny_base: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = load_tokenizer(ModelOptions(base=str(tiny_base)))
    plain = encode_prompt(EXAMPLE, PromptOptions(instruction="Say."), tokenizer)
    answer = encode_answer(plain, "Zoë [1].", tokenizer, 200)
    assert tokenizer.decode([*plain.token_ids, *answer[:-1]]) == f"{plain.text} Zoë [1]."
    assert answer[-1] == tokenizer.eos_token_id
    # An end of sequence that a tokenizer appends is not part of the prompt.
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    assert encode_prompt(EXAMPLE, PromptOptions(instruction="Say."), tokenizer) == plain
    assert encode_answer(plain, "No.", tokenizer, 9).count(tokenizer.eos_token_id) == 1


QUESTION = Example("0", "asqa", "Who?", (Document("T", " ".join(["It was Zoë."] * 40)),))
SHORT = PromptOptions(instruction="Say.", max_input_tokens=400)
LONG = SHORT.model_copy(update={"max_input_tokens": 4000})

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Thoughts can be switched off: then the generation prompt writes them out, left empty.
THINKING = (
    "{{ '' if enable_thinking is false else 'Think.' }}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA_2 = (
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{{ bos_token + '[INST] ' + message.content | trim + ' [/INST]' }}{% else %}"
    "{{ ' ' + message.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# No generation prompt, no end of turn.
ROLES = "{% for message in messages %}### {{ message.role }}:\n{{ message.content }}\n{% endfor %}"

KINDS = {
    "chatml": ("bytes", CHATML, "<|im_end|>"),
    "thinking": ("bytes", THINKING, "<|im_end|>"),
    "llama-2": ("sentencepiece", LLAMA_2, "</s>"),
    "llama-2 in bytes": ("bytes", LLAMA_2, "</s>"),
    "chatml in pieces": ("metaspace", CHATML, "<|im_end|>"),
    "roles": ("bytes", ROLES, "</s>"),
}
"""Per kind of chat model its tokenizer, its template, and what ends a turn."""


def chat_tokenizer(kind: str, template: str) -> Any:
    """With a begin of sequence that the tokenizer sets in front by itself, as Llama's do."""
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(make_tokenizer(kind))
    names = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    tokenizer.bos_token = "<s>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.convert_tokens_to_ids("<s>"))]
    )
    tokenizer.chat_template = template
    return tokenizer


ASKED = "Say.\n\nQuestion: {}?\n\n[1] T: {}.\n\nAnswer:"
DEMOS = [("A", "One [1].", "a a a a"), ("B", " Two [1].", "b b b b")]
MESSAGES = [
    message
    for name, answer, text in [*DEMOS, ("Who", "", "It was Zoë")]
    for message in (
        {"role": "user", "content": ASKED.format(name, text)},
        {"role": "assistant", "content": answer.strip()},
    )
][:-1]


@pytest.fixture
def turns(tmp_path: Path) -> PromptOptions:
    demos = [
        {"question": f"{name}?", "answer": answer, "docs": [{"title": "T", "text": f"{text}."}]}
        for name, answer, text in DEMOS
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
def test_prompt_and_answer_are_the_tokens_of_the_whole_conversation(
    kind: str, turns: PromptOptions
) -> None:
    name, template, end = KINDS[kind]
    tokenizer = chat_tokenizer(name, template)
    settings = {"tokenize": False, "enable_thinking": False}
    # A question alone, and one behind demonstrations that have turns of their own.
    alone = [{"role": "user", "content": render(EXAMPLE, LONG)}]
    for options, messages in ((LONG, alone), (turns, MESSAGES)):
        prompt = encode_prompt(EXAMPLE, options, tokenizer)
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **settings)
        assert prompt.text == text + ("### assistant:\n" if kind == "roles" else "")
        encoded = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        assert list(prompt.token_ids) == encoded
        assert prompt.token_ids.count(tokenizer.bos_token_id) == text.count("<s>")
        answer = encode_answer(prompt, "Zoë [1]. He.", tokenizer, 200)
        answered = [*messages, {"role": "assistant", "content": "Zoë [1]. He."}]
        whole = tokenizer.apply_chat_template(answered, **settings)
        if kind == "roles":
            whole = whole.rstrip("\n") + end
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
        both = [*prompt.token_ids, *answer]
        # A template may go on behind the end of the turn, by a line break.
        assert both == ids[: len(both)]
        assert tokenizer.decode(ids[len(both) :]) in ("", "\n")
        assert answer[-1] == tokenizer.convert_tokens_to_ids(end) == end_token(tokenizer, options)
        assert answer.count(answer[-1]) == 1
        space = " " if template == LLAMA_2 else ""
        assert tokenizer.decode(both[:-1]).endswith(f"{prompt.text[-3:]}{space}Zoë [1]. He.{space}")


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_shortened_so_that_the_whole_message_fits(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = chat_tokenizer(*KINDS[kind][:2])
    [whole] = encode_prompts([QUESTION], LONG, tokenizer, "sft")
    assert capsys.readouterr().err == ""
    budget = len(whole.token_ids) - 1
    short = LONG.model_copy(update={"max_input_tokens": budget})
    [prompt, _] = encode_prompts([QUESTION, EXAMPLE], short, tokenizer, "sft")
    said = f"sft: 1 of 2 prompts lose text of their documents to max_input_tokens = {budget}; "
    assert said in capsys.readouterr().err
    assert (whole.shortened, prompt.shortened) == (False, True)
    assert len(prompt.token_ids) <= budget
    # All but the last word of the document is left.
    assert prompt.text.count("Zoë.") == whole.text.count("Zoë.") - 1
    assert prompt.text.count("was") == whole.text.count("was")


def test_an_answer_that_the_tokenizer_joins_with_its_prompt_is_encoded_by_itself() -> None:
    template = (
        "{% for message in messages %}{{ message.content }}"
        "{% if message.role == 'user' %} = t{% else %}</s>{% endif %}{% endfor %}"
    )
    tokenizer = chat_tokenizer("bytes", template)
    prompt = encode_prompt(EXAMPLE, SHORT, tokenizer)
    joined = tokenizer(" = the", add_special_tokens=False)["input_ids"]
    assert joined[: len(joined) - 2] != list(prompt.token_ids[-len(joined) + 2 :])
    assert encode_answer(prompt, "he", tokenizer, 9) == [
        *tokenizer("he", add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]


def test_plain_prompts_can_be_asked_for_and_are_the_rule_without_a_template() -> None:
    chat = chat_tokenizer("bytes", CHATML)
    bare = chat_tokenizer("bytes", "")
    bare.chat_template = None
    plain = SHORT.model_copy(update={"chat": "plain"})
    prompt = encode_prompt(EXAMPLE, plain, chat)
    assert prompt.text == render(EXAMPLE, SHORT)
    assert prompt == encode_prompt(EXAMPLE, SHORT, bare)
    assert prompt.token_ids[0] == chat.bos_token_id
    assert end_token(chat, plain) == end_token(bare, SHORT) == chat.eos_token_id
    with pytest.raises(InputError, match=r"prompt\.chat: template, but the tokenizer of .*none"):
        encode_prompt(EXAMPLE, SHORT.model_copy(update={"chat": "template"}), bare)


def test_a_template_that_tells_the_date_always_tells_the_same() -> None:
    tokenizer = chat_tokenizer("bytes", "{{ strftime_now('%d %b %Y') }}. " + CHATML)
    text = encode_prompt(EXAMPLE, SHORT, tokenizer).text
    assert text.startswith("26 Jul 2024. <|im_start|>user")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ raise_exception('Say please.\nNow.') }}", r"Say please\. Now\. \(prompt\.chat: plain"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("Hello.", "it leaves out the question or the answer"),
        ("{{ messages[0].content }}", "it leaves out the question or the answer"),
    ],
)
def test_a_template_that_fails_is_one_clear_line(template: str, complaint: str) -> None:
    tokenizer = chat_tokenizer("bytes", template)
    for use in (
        lambda: encode_prompt(EXAMPLE, SHORT, tokenizer),
        lambda: end_token(tokenizer, SHORT),
    ):
        with pytest.raises(InputError, match=f"^chat template of .*: {complaint}") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_demonstrations_in_turns_are_left_out_whole(
    turns: PromptOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = chat_tokenizer(*KINDS["chatml"][:2])
    whole = encode_prompt(EXAMPLE, turns, tokenizer)
    short = turns.model_copy(update={"max_input_tokens": len(whole.token_ids) - 1})
    [prompt] = encode_prompts([EXAMPLE], short, tokenizer, "sft")
    assert prompt.messages == (*whole.messages[:2], whole.messages[-1])
    said = "sft: 1 of 1 prompts have room for fewer demonstrations\n"
    assert capsys.readouterr().err == said
    least = turns.model_copy(update={"max_input_tokens": 20})
    with pytest.raises(InputError, match="tokens without any document text"):
        encode_prompt(EXAMPLE, least, tokenizer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_chat", [False, True])
def test_special_tokens_that_are_only_spelt_are_text(kind: str, is_chat: bool) -> None:
    tokenizer = chat_tokenizer(*KINDS[kind][:2])
    said = "The <s>price</s> of <|im_end|> is [1]."
    options = SHORT.model_copy(update={"chat": "auto" if is_chat else "plain"})
    marks = {"<s>", "</s>", "<|im_end|>"}

    def marks_of(ids: Any) -> list[str]:
        return [token for token in tokenizer.convert_ids_to_tokens(ids) if token in marks]

    plain = encode_prompt(EXAMPLE, options, tokenizer)
    spelt = Example("0", "asqa", f"Who? {said}", (Document(f"T {said}", said),))
    prompt = encode_prompt(spelt, options, tokenizer)
    assert marks_of(prompt.token_ids) == marks_of(plain.token_ids)
    assert tokenizer.decode(prompt.token_ids, skip_special_tokens=False).count(said) == 3
    for own in (plain, prompt):
        answer = encode_answer(own, said, tokenizer, 200)
        assert tokenizer.decode(answer[:-1]).strip() == said
        assert marks_of(answer[:-1]) == []
        assert answer[-1] == end_token(tokenizer, options)


def test_answers_end_at_a_newline_behind_plain_prompts_only() -> None:
    tokenizer = chat_tokenizer("bytes", CHATML)
    for options, expected in (
        (SHORT, ()),
        (SHORT.model_copy(update={"chat": "plain"}), ("\n",)),
        (SHORT.model_copy(update={"stop": ["###", "\n\n"]}), ("###", "\n\n")),
    ):
        assert stops(tokenizer, options) == expected


def test_a_system_message_stands_in_front_of_a_chat() -> None:
    tokenizer = chat_tokenizer("bytes", CHATML)
    options = SHORT.model_copy(update={"system": "You cite."})
    text = encode_prompt(EXAMPLE, options, tokenizer).text
    assert text.startswith("<|im_start|>system\nYou cite.<|im_end|>\n<|im_start|>user\nSay.")
    assert text.endswith("<|im_start|>assistant\n")
    with pytest.raises(InputError, match=r"prompt\.system: expected a chat template"):
        encode_prompt(EXAMPLE, options.model_copy(update={"chat": "plain"}), tokenizer)


def test_thoughts_that_a_template_opens_are_closed() -> None:
    """As DeepSeek-R1's: it leaves an answer's thoughts out."""
    tokenizer = chat_tokenizer("bytes", CHATML.replace("assistant\n", "assistant\n<think>\n"))
    prompt = encode_prompt(EXAMPLE, SHORT, tokenizer)
    assert prompt.text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    answer = encode_answer(prompt, "It was Zoë [1].", tokenizer, 200)
    assert tokenizer.decode(answer[:-1]) == "It was Zoë [1]."
    assert answer[-1] == end_token(tokenizer, SHORT)
