"""The one place that lays out prompts (ALCE `utils.py`, `make_demo`), and keeps them in budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from citepipe.data.example import Document, Example
from citepipe.errors import InputError
from citepipe.options.prompt import PromptOptions

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Turn:
    """How an answer stands between the end of its prompt and the next message of a conversation."""

    before: str
    """What separates it from the prompt: a space, or nothing."""
    after: str
    """What closes it."""
    end_id: int
    """The token that ends it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as text and tokens; `shortened` says that documents were cut to fit.

    `turn` is how a chat model's answer follows; None where the answer just goes on from the text.
    """

    text: str
    token_ids: tuple[int, ...]
    shortened: bool
    turn: Turn | None = None


def render(example: Example, options: PromptOptions, docs: Sequence[Document] | None = None) -> str:
    """The prompt's text, which ends where the answer begins (after `Answer:`, before a space)."""
    shown = example.docs if docs is None else docs
    instruction = options.instruction
    if example.dataset == "qampari" and options.list_instruction is not None:
        instruction = options.list_instruction
    documents = "".join(
        _fill(options.doc_prompt, ID=str(number), T=doc.title, P=doc.text)
        for number, doc in enumerate(shown, start=1)
    )
    filled = _fill(options.demo_prompt, INST=instruction, Q=example.question, D=documents, A="")
    return filled.strip()


def fit(
    example: Example,
    options: PromptOptions,
    encode: Encode,
    wrap: Callable[[str], str] = str,
    turn: Turn | None = None,
) -> Prompt:
    """Render a prompt of at most `options.max_input_tokens` tokens.

    A prompt that is too long loses words from the ends of its longest documents; the question,
    the instruction and the final `Answer:` always stay.

    Args:
        example: what to ask.
        options: templates and the budget in tokens.
        encode: the tokenizer, with whatever special tokens the model expects in front.
        wrap: makes the text that is encoded from what `render` returns (a chat template).
        turn: how the answer follows, for the prompt to remember.

    Raises:
        InputError: the prompt is too long even with empty documents.
    """
    text = wrap(render(example, options))
    token_ids = encode(text)
    if len(token_ids) <= options.max_input_tokens:
        return Prompt(text, tuple(token_ids), shortened=False, turn=turn)
    docs = example.docs
    words = [doc.text.split() for doc in docs]
    longest = max((len(w) for w in words), default=0)

    def attempt(limit: int) -> Prompt:
        cut = [Document(d.title, " ".join(w[:limit])) for d, w in zip(docs, words, strict=True)]
        text = wrap(render(example, options, cut))
        return Prompt(text, tuple(encode(text)), shortened=True, turn=turn)

    best = attempt(0)
    if len(best.token_ids) > options.max_input_tokens:
        raise InputError(
            f"question {example.id}: {len(best.token_ids)} tokens without any document text, "
            f"more than max_input_tokens = {options.max_input_tokens}"
        )
    # The longest common limit of words per document that fits, by bisection.
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        candidate = attempt(middle)
        if len(candidate.token_ids) <= options.max_input_tokens:
            low, best = middle, candidate
        else:
            high = middle - 1
    return best


def _fill(template: str, **values: str) -> str:
    """Fill `{NAME}` places in one pass, so that braces inside a document's text stay text."""
    parts = template.split("{")
    filled = [parts[0]]
    for part in parts[1:]:
        name, brace, rest = part.partition("}")
        filled.append(values[name] + rest if brace and name in values else "{" + part)
    return "".join(filled)
