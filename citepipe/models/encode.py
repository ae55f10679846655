"""Questions and answers as token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from citepipe.data.example import Example
from citepipe.data.prompts import Prompt, fit
from citepipe.options.prompt import PromptOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompt(
    example: Example, options: PromptOptions, tokenizer: PreTrainedTokenizerBase
) -> Prompt:
    """The prompt of a question, within `options.max_input_tokens`."""
    return fit(example, options, lambda text: _begin(tokenizer, tokenizer(text)["input_ids"]))


def encode_answer(
    prompt: Prompt, answer: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[int]:
    """The tokens of an answer as it follows its prompt: a space, the text, the end of sequence.

    An answer of more than `max_tokens` tokens is cut there and then has no end of sequence.
    """
    whole = _begin(tokenizer, tokenizer(f"{prompt.text} {answer}")["input_ids"])
    length = len(prompt.token_ids)
    if tuple(whole[:length]) == prompt.token_ids:
        ids = whole[length:]
    else:
        # The tokenizer joined the end of the prompt with the answer; a generated answer never is.
        ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    ids = [i for i in ids if i != tokenizer.eos_token_id]
    assert isinstance(tokenizer.eos_token_id, int)
    return [*ids, tokenizer.eos_token_id][:max_tokens]


def _begin(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Without the end of sequence that some tokenizers append."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
