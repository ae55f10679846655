"""The one place that lays out prompts (ALCE `utils.py`, `make_demo`), and keeps them in budget.

Templates are those of the options, or of a prompt file in ALCE's layout (`prompts/*_default.json`),
which has demonstrations too.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from citepipe.data.example import Document, DocumentRow, Example, relevant_documents
from citepipe.data.files import read_json
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.options import TemplateOptions, has_places

Encode = Callable[[str], Sequence[int]]

DOCUMENTS = 5
"""Documents of a demonstration, at most, unless the options say more: those of ALCE's files."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How an answer stands between its prompt and the next message of a conversation: the space (or
    nothing) before it, the text that closes it, and the token that ends it."""

    before: str
    after: str
    end_id: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as text and tokens; `shortened`: documents were cut to fit, and `left_out`: so many
    demonstrations did not.

    In the text, what questions and documents say is as `escape` of `fit` makes it. `turn` is how a
    chat model's answer follows; None where the answer just goes on from the text. `messages` are
    the user's, with answers between them if there are several.
    """

    text: str
    token_ids: tuple[int, ...]
    shortened: bool
    turn: Turn | None = None
    messages: tuple[str, ...] = ()
    left_out: int = 0


def _lines(answer: Any) -> Any:
    is_lines = isinstance(answer, list) and all(isinstance(line, str) for line in answer)
    return "\n" + "\n".join(answer) if is_lines else answer


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A question with documents and its cited answer; ALCE has answers in lines as lists."""

    question: str
    answer: Annotated[str, BeforeValidator(_lines)]
    docs: tuple[DocumentRow, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a prompt file holds: what stands for {INST}, between demonstrations, and templates."""

    instruction: str
    demo_sep: str
    demo_prompt: Annotated[str, has_places("{Q}", "{D}", "{A}")]
    doc_prompt: Annotated[str, has_places("{P}")]
    demos: tuple[Demonstration, ...] = ()


_LAYOUT = TypeAdapter(Layout)


@cache
def read_prompt_file(path: str) -> Layout:
    """Read a prompt file, each path once; InputError with the field if it is none."""
    return validated(_LAYOUT, read_json(path), path)


def check_prompt(options: TemplateOptions, datasets: Sequence[str]) -> None:
    """Read the prompt files, before any model is loaded; InputError if one is bad or missing."""
    for dataset in datasets:
        _layout(options, dataset)


def _layout(options: TemplateOptions, dataset: str) -> Layout:
    """The templates for a dataset, with the demonstrations that are shown."""
    path = options.files.get(dataset)  # type: ignore[call-overload]
    if path is not None:
        file = read_prompt_file(path)
        return replace(file, demos=chosen(file, options, path))
    if options.shots:
        raise InputError(
            f"prompt.files.{dataset}: missing, and the demonstrations that prompt.shots wants "
            f"({options.shots}) are in such a file"
        )
    instruction = options.instruction
    if dataset == "qampari" and options.list_instruction is not None:
        instruction = options.list_instruction
    return Layout(instruction, "", options.demo_prompt, options.doc_prompt)


def chosen(file: Layout, options: TemplateOptions, path: str) -> tuple[Demonstration, ...]:
    """The first demonstrations, or with `demo_seed` those that ALCE draws with it (`run.py`)."""
    there = len(file.demos)
    if options.shots > there:
        raise InputError(f"{path}, field demos: expected at least {options.shots}, got {there}")
    if options.demo_seed is None:
        return file.demos[: options.shots]
    import numpy

    order = numpy.random.RandomState(options.demo_seed)
    return tuple(file.demos[i] for i in order.choice(there, options.shots, replace=False))


def shown_documents(demonstration: Demonstration, options: TemplateOptions) -> tuple[Document, ...]:
    """The documents that a demonstration shows.

    Where the shorter texts of documents are shown, those with the word irrelevant (or Irrelevant)
    in theirs are passed over, and the first document without one ends the choice; it is shown,
    with its full text, only if there is none yet (`get_shorter_text` in ALCE's `utils.py`).
    """
    at_most = DOCUMENTS if options.demo_documents is None else options.demo_documents
    if options.documents == "text":
        return demonstration.docs[:at_most]
    relevant, without = relevant_documents(demonstration.docs, options.documents)
    return (relevant or without)[:at_most]


def render(example: Example, options: TemplateOptions) -> str:
    """The prompt's text, which ends where the answer begins (after `Answer:`, before a space).

    With a prompt file it is, byte for byte, what ALCE's program makes of it (`make_demo` in
    `utils.py`), the answers of demonstrations without a space in front included.

    Raises:
        InputError: a prompt file is bad.
    """
    return _joined(_parts(example, options), _layout(options, example.dataset))


def _joined(parts: Sequence[tuple[str, str]], layout: Layout) -> str:
    *demos, (question, _) = parts
    text = "".join(f"{asked}{answer}{layout.demo_sep}" for asked, answer in demos)
    return (text + question).strip()


def _parts(
    example: Example,
    options: TemplateOptions,
    words: int | None = None,
    escape: Callable[[str], str] = str,
) -> list[tuple[str, str]]:
    """Demonstrations as questions in the template and answers; last the question, and "".

    The question's documents have at most `words` words; None for all.
    """
    layout = _layout(options, example.dataset)

    def asked(question: str, docs: Sequence[Document], limit: int | None = None) -> str:
        documents = ""
        for number, doc in enumerate(docs, start=1):
            text = escape(_shown_text(doc, options))
            text = text if limit is None else " ".join(text.split()[:limit])
            documents += _fill(layout.doc_prompt, ID=str(number), T=escape(doc.title), P=text)
        # Without documents there is no empty line for them either.
        template = layout.demo_prompt if docs else layout.demo_prompt.replace("{D}\n", "")
        return _fill(template, INST=layout.instruction, Q=escape(question), D=documents, A="")

    demos = [
        (asked(d.question, shown_documents(d, options)).rstrip(), escape(d.answer))
        for d in layout.demos
    ]
    return [*demos, (asked(example.question, example.docs, words), "")]


def _shown_text(doc: Document, options: TemplateOptions) -> str:
    shorter: str | None = getattr(doc, options.documents)
    return doc.text if shorter is None else shorter


def _fill(template: str, **values: str) -> str:
    """Fill `{NAME}` places in one pass, so that braces inside a document's text stay text."""
    return re.sub(r"\{(\w+)\}", lambda place: values.get(place[1], place[0]), template)


def fit(
    example: Example,
    options: TemplateOptions,
    encode: Encode,
    wrap: Callable[[Sequence[str]], str] | None = None,
    turn: Turn | None = None,
    escape: Callable[[str], str] = str,
) -> Prompt:
    """Render a prompt of at most `options.max_input_tokens` tokens.

    A prompt that is too long loses demonstrations, the last first, and then words from the ends of
    its longest documents; the question, the instruction and the final `Answer:` always stay.

    Args:
        example: the question.
        options: templates and the budget in tokens.
        encode: the tokenizer, with the special tokens that the model expects in front.
        wrap: makes the text that is encoded from the messages of a chat, the user's first and last
            (a chat template). They are one, what `render` returns, or with `options.demo_turns` a
            message and its answer for each demonstration in front of the question's.
        turn: how the answer follows, for the prompt to remember.
        escape: applied to questions, titles, documents and answers before they fill templates.

    Raises:
        InputError: the prompt is too long even with empty documents, or a prompt file is bad.
    """

    layout = _layout(options, example.dataset)
    shots = len(layout.demos)

    def attempt(words: int | None, shown: int) -> Prompt:
        parts = _parts(example, options, words, escape)
        parts = [*parts[:shown], parts[-1]]
        text, messages = _joined(parts, layout), tuple[str, ...]()
        if wrap is not None:
            several = [message.strip() for part in parts for message in part][:-1]
            messages = tuple(several) if options.demo_turns else (text,)
            text = wrap(messages)
        return Prompt(
            text, tuple(encode(text)), words is not None, turn, messages, left_out=shots - shown
        )

    def too_long(prompt: Prompt) -> bool:
        return len(prompt.token_ids) > options.max_input_tokens

    for shown in range(shots, -1, -1):
        if not too_long(whole := attempt(None, shown)):
            return whole
    # The longest common limit of words per document that fits.
    most = max((len(_shown_text(doc, options).split()) for doc in example.docs), default=0)
    fitting = bisect(range(most + 1), False, key=lambda words: too_long(attempt(words, 0)))
    if not fitting:
        raise InputError(
            f"question {example.id}: {len(attempt(0, 0).token_ids)} tokens without any document "
            f"text, more than max_input_tokens = {options.max_input_tokens}"
        )
    return attempt(fitting - 1, 0)
