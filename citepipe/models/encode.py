"""Questions and answers as token ids: as plain text, or as a chat model's template has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from citepipe.data.example import Example
from citepipe.data.prompts import Prompt, Turn, fit
from citepipe.errors import InputError
from citepipe.options import PromptOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DATE = "{%- macro strftime_now(form) -%}26 Jul 2024{%- endmacro -%}"
"""In front of templates that write the date: prompts are then the same from one day to the next. It
is the date that Llama 3's template writes where there is no clock."""


def encode_prompt(
    example: Example, options: PromptOptions, tokenizer: PreTrainedTokenizerBase
) -> Prompt:
    """The prompt of a question, within `options.max_input_tokens`.

    With a chat template it is one message of the user (and one with its answer for each
    demonstration, if they have turns of their own) and what begins the answer, encoded with the
    special tokens that the template writes and no others.
    """
    if not _is_chat(tokenizer, options):
        return fit(example, options, lambda text: _begin(tokenizer, tokenizer(text)["input_ids"]))
    opening, turn = _layout(tokenizer)
    return fit(
        example,
        options,
        encode=lambda text: _rendered_ids(tokenizer, text),
        wrap=lambda messages: _render(tokenizer, *messages) + opening,
        turn=turn,
    )


def encode_answer(
    prompt: Prompt, answer: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[int]:
    """The tokens of an answer as it follows its prompt, its end last.

    Behind a plain prompt that is a space, the text and the end of sequence; in a chat template
    what the template writes, up to the token that ends the turn. An answer of more than
    `max_tokens` tokens is cut there and then has no end.
    """
    turn = prompt.turn
    if turn is None:
        text = f" {answer}"
        whole = _begin(tokenizer, tokenizer(prompt.text + text)["input_ids"])
    else:
        text = f"{turn.before}{answer}{turn.after}"
        whole = _rendered_ids(tokenizer, prompt.text + text)
    length = len(prompt.token_ids)
    if tuple(whole[:length]) == prompt.token_ids:
        ids = whole[length:]
    else:
        # The tokenizer joined the end of the prompt with the answer; a generated answer never is.
        ids = _rendered_ids(tokenizer, text)
    if turn is None:
        assert isinstance(tokenizer.eos_token_id, int)
        ids = [token for token in ids if token != tokenizer.eos_token_id]
        return [*ids, tokenizer.eos_token_id][:max_tokens]
    ids = ids[: ids.index(turn.end_id)] if turn.end_id in ids else ids
    return [*ids, turn.end_id][:max_tokens]


def end_token(tokenizer: PreTrainedTokenizerBase, options: PromptOptions) -> int:
    """The token that ends an answer: that of the template's turns, if the prompts are in one."""
    if _is_chat(tokenizer, options):
        return _layout(tokenizer)[1].end_id
    return int(tokenizer.eos_token_id)


def _begin(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Without the end of sequence that some tokenizers append."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _is_chat(tokenizer: PreTrainedTokenizerBase, options: PromptOptions) -> bool:
    if options.chat == "template" and not tokenizer.chat_template:
        raise InputError(
            f"prompt.chat: template, but the tokenizer of {tokenizer.name_or_path} has none; "
            "expected auto or plain"
        )
    return options.chat != "plain" and bool(tokenizer.chat_template)


def _layout(tokenizer: PreTrainedTokenizerBase) -> tuple[str, Turn]:
    """What is to be added to a rendered question, and how the answer follows then.

    Both are the difference between a question rendered alone and with its answer. That is more
    than the answer where the template knows no generation prompt (what is in front of the answer
    then belongs to the prompt), and where it sets a space in front of every answer, as Llama 2's
    does (that space belongs to the answer).
    """
    question, answer = "Quokka", "Zyzzyva"
    alone = _render(tokenizer, question)
    both = _render(tokenizer, question, answer)
    place = both.rfind(answer)
    if question not in alone or place < 0:
        raise _failed(tokenizer, "it leaves out the question or the answer")
    before, after = both[:place].removeprefix(alone), both[place + len(answer) :]
    before = before if both.startswith(alone) else ""
    opening = before.rstrip(" ")
    marks = tokenizer.added_tokens_decoder
    ends = [token for token in _rendered_ids(tokenizer, after) if token in marks]
    assert isinstance(tokenizer.eos_token_id, int)
    turn = (after, ends[0]) if ends else ("", tokenizer.eos_token_id)
    return opening, Turn(before[len(opening) :], *turn)


def _rendered_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of text that has all its special tokens written out."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert isinstance(ids, list)
    return ids


def _render(tokenizer: PreTrainedTokenizerBase, *messages: str) -> str:
    """A conversation, of questions and answers in turn, as the template writes it; ready for an
    answer if a question is the last."""
    conversation = [
        {"role": "assistant" if place % 2 else "user", "content": message}
        for place, message in enumerate(messages)
    ]
    template = str(tokenizer.get_chat_template())
    try:
        text = tokenizer.apply_chat_template(
            conversation,
            chat_template=(_DATE if "strftime_now" in template else "") + template,
            tokenize=False,
            add_generation_prompt=len(messages) % 2 == 1,
            enable_thinking=False,
        )
    # A template is a program that came with the model: it may raise anything.
    except Exception as error:
        raise _failed(tokenizer, str(error) or type(error).__name__) from None
    return str(text)


def _failed(tokenizer: PreTrainedTokenizerBase, why: str) -> InputError:
    line = " ".join(why.split())[:200]
    return InputError(
        f"chat template of {tokenizer.name_or_path}: expected one that renders a question and "
        f"its answer: {line} (prompt.chat: plain does without it)"
    )
