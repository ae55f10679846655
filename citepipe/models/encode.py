"""Questions and answers as token ids: as plain text, or as a chat model's template has them.

What they say is text: a special token that a document spells (`<s>` for struck-out words) becomes
the tokens of its characters. Until a text is encoded, such places are single characters that no
text has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from citepipe.data.example import Example
from citepipe.data.prompts import Prompt, Turn, fit
from citepipe.errors import InputError
from citepipe.options import PromptOptions
from citepipe.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DATE = "{%- macro strftime_now(form) -%}26 Jul 2024{%- endmacro -%}"
"""In front of templates that write the date: prompts are then the same from one day to the next. It
is the date that Llama 3's template writes where there is no clock."""


_FIRST_ESCAPE = 0xF0000
"""The first of the characters (of a private use area) that stand for spelt special tokens."""


def encode_prompt(
    example: Example, options: PromptOptions, tokenizer: PreTrainedTokenizerBase
) -> Prompt:
    """The prompt of a question, within `options.max_input_tokens`.

    With a chat template it is one message of the user (and one with its answer for each
    demonstration, if they have turns of their own) and what begins the answer, encoded with the
    special tokens that the template writes and no others.
    """
    spelling = spell(tokenizer)
    if not _is_chat(tokenizer, options):
        return fit(
            example,
            options,
            encode=lambda text: spelling.encode(text, framed=True),
            escape=spelling.escape,
        )
    opening, turn = _layout(tokenizer, options.system)
    return fit(
        example,
        options,
        encode=spelling.encode,
        wrap=lambda messages: _render(tokenizer, options.system, *messages) + opening,
        turn=turn,
        escape=spelling.escape,
    )


def encode_prompts(
    examples: Sequence[Example],
    options: PromptOptions,
    tokenizer: PreTrainedTokenizerBase,
    label: str,
) -> list[Prompt]:
    """The prompts of questions; lines say how many lose text of documents, or demonstrations."""
    prompts = [encode_prompt(example, options, tokenizer) for example in examples]
    if shortened := sum(prompt.shortened for prompt in prompts):
        say(
            f"{label}: {shortened} of {len(prompts)} prompts lose text of their documents to "
            f"max_input_tokens = {options.max_input_tokens}; verifiers read all of it"
        )
    if short := sum(prompt.left_out > 0 for prompt in prompts):
        say(f"{label}: {short} of {len(prompts)} prompts have room for fewer demonstrations")
    return prompts


def encode_answer(
    prompt: Prompt, answer: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[int]:
    """The tokens of an answer as it follows its prompt, its end last.

    Behind a plain prompt that is a space, the text and the end of sequence; in a chat template
    what the template writes, up to the token that ends the turn. An answer of more than
    `max_tokens` tokens is cut there and then has no end.
    """
    spelling, turn = spell(tokenizer), prompt.turn
    if turn is None:
        text = f" {spelling.escape(answer)}"
        whole = spelling.encode(prompt.text + text, framed=True)
    else:
        text = f"{turn.before}{spelling.escape(answer)}{turn.after}"
        whole = spelling.encode(prompt.text + text)
    ids = whole[len(prompt.token_ids) :]
    if tuple(whole[: len(prompt.token_ids)]) != prompt.token_ids:
        # The tokenizer joined the end of the prompt with the answer; a generated answer never is.
        ids = spelling.encode(text)
    if turn is None:
        assert isinstance(tokenizer.eos_token_id, int)
        ids = [token for token in ids if token != tokenizer.eos_token_id]
        return [*ids, tokenizer.eos_token_id][:max_tokens]
    ids = ids[: ids.index(turn.end_id)] if turn.end_id in ids else ids
    return [*ids, turn.end_id][:max_tokens]


def end_token(tokenizer: PreTrainedTokenizerBase, options: PromptOptions) -> int:
    """The token that ends an answer: that of the template's turns, if the prompts are in one."""
    if _is_chat(tokenizer, options):
        return _layout(tokenizer, options.system)[1].end_id
    return int(tokenizer.eos_token_id)


def stops(tokenizer: PreTrainedTokenizerBase, options: PromptOptions) -> tuple[str, ...]:
    """The strings before which an answer ends, whether it is learnt or generated."""
    if options.stop is not None:
        return tuple(options.stop)
    return () if _is_chat(tokenizer, options) else ("\n",)


class Spelling:
    """Encodes texts in which some special tokens are only spelt (see the head of this module)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # Some templates' marks were added as if they were words.
        names = {
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if (token.special or token.content.startswith("<|")) and len(token.content) > 1
        }
        self._escapes = {name: chr(_FIRST_ESCAPE + i) for i, name in enumerate(sorted(names))}
        self._names = {escape: name for name, escape in self._escapes.items()}
        longest_first = sorted(map(re.escape, names), key=len, reverse=True)
        self._special = re.compile("|".join(longest_first) or r"(?!)")
        self._escaped = re.compile(f"([{''.join(self._names)}])" if names else r"(?!)")

    def escape(self, text: str) -> str:
        """A text whose special tokens are only spelt."""
        return self._special.sub(lambda match: self._escapes[match[0]], text)

    def encode(self, text: str, framed: bool = False) -> list[int]:
        """The tokens of a text; `framed` puts in front what the tokenizer puts before every text.

        A spelt token is parted behind its first character, so that the tokenizer does not see it.
        """
        parts = [""]
        for piece in self._escaped.split(text):
            name = self._names.get(piece)
            parts[-1] += name[0] if name else piece
            if name:
                parts.append(name[1:])
        ids = self._of(parts[0], framed)
        if framed and ids and ids[-1] == self._tokenizer.eos_token_id:
            # Some tokenizers append an end of sequence.
            ids = ids[:-1]
        for part in parts[1:]:
            # What is behind something else has no space in front of it.
            line, both = self._of("\n"), self._of(f"\n{part}")
            ids += both[len(line) :] if both[: len(line)] == line else self._of(part)
        return ids

    def _of(self, text: str, framed: bool = False) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=framed)["input_ids"]
        assert isinstance(ids, list)
        return ids


def spell(tokenizer: PreTrainedTokenizerBase) -> Spelling:
    """The encoder of texts in which special tokens are only spelt."""
    return _spelling_of(tokenizer, len(tokenizer))


@lru_cache(maxsize=4)
def _spelling_of(tokenizer: PreTrainedTokenizerBase, _: int) -> Spelling:
    """Kept as long as the tokenizer has as many tokens."""
    return Spelling(tokenizer)


def _is_chat(tokenizer: PreTrainedTokenizerBase, options: PromptOptions) -> bool:
    if options.chat == "template" and not tokenizer.chat_template:
        raise InputError(
            f"prompt.chat: template, but the tokenizer of {tokenizer.name_or_path} has none; "
            "expected auto or plain"
        )
    is_chat = options.chat != "plain" and bool(tokenizer.chat_template)
    if options.system is not None and not is_chat:
        raise InputError(
            f"prompt.system: expected a chat template, {tokenizer.name_or_path} has or uses none; "
            "instruction says what a plain prompt begins with"
        )
    return is_chat


def _layout(tokenizer: PreTrainedTokenizerBase, system: str | None) -> tuple[str, Turn]:
    """What is to be added to a rendered question, and how the answer follows then.

    Both are the difference between a question rendered alone and with its answer. That is more
    than the answer where the template knows no generation prompt (what is in front of the answer
    then belongs to the prompt), and where it sets a space in front of every answer, as Llama 2's
    does (that space belongs to the answer). Thoughts that a template opens are closed: answers are
    learnt and generated without any.
    """
    question, answer = "Quokka", "Zyzzyva"
    alone = _render(tokenizer, system, question)
    both = _render(tokenizer, system, question, answer)
    place = both.rfind(answer)
    if question not in alone or place < 0:
        raise _failed(tokenizer, "it leaves out the question or the answer")
    before, after = both[:place].removeprefix(alone), both[place + len(answer) :]
    before = before if both.startswith(alone) else ""
    opening = before.rstrip(" ")
    if f"{alone}{opening}".rstrip().endswith("<think>"):
        opening += "\n</think>\n\n"
    marks = tokenizer.added_tokens_decoder
    ends = [token for token in spell(tokenizer).encode(after) if token in marks]
    assert isinstance(tokenizer.eos_token_id, int)
    turn = (after, ends[0]) if ends else ("", tokenizer.eos_token_id)
    return opening, Turn(before[len(opening) :], *turn)


def _render(tokenizer: PreTrainedTokenizerBase, system: str | None, *messages: str) -> str:
    """A conversation, of questions and answers in turn, as the template writes it; ready for an
    answer if a question is the last."""
    conversation = [
        {"role": "assistant" if place % 2 else "user", "content": message}
        for place, message in enumerate(messages)
    ]
    if system is not None:
        conversation.insert(0, {"role": "system", "content": system})
    return render(tokenizer, conversation)


def render(
    tokenizer: PreTrainedTokenizerBase, conversation: Sequence[dict[str, str]], **given: Any
) -> str:
    """A conversation as the chat template writes it, ready for an answer if a user's message is the
    last; `given` is what the template may need besides, such as documents."""
    template = str(tokenizer.get_chat_template())
    try:
        text = tokenizer.apply_chat_template(
            list(conversation),
            chat_template=(_DATE if "strftime_now" in template else "") + template,
            tokenize=False,
            add_generation_prompt=conversation[-1]["role"] == "user",
            enable_thinking=False,
            **given,
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
