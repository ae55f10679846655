"""The one place that lays out prompts (ALCE `utils.py`, `make_demo`), and keeps them in budget.

Templates are those of the options, or of a prompt file in ALCE's layout (`prompts/*_default.json`),
which has demonstrations too.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from citepipe.data.example import Document, DocumentRow, Example, relevant_documents
from citepipe.data.files import read_json
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.options import PromptOptions, has_places

Encode = Callable[[str], Sequence[int]]

DOCUMENTS = 5
"""Documents of a demonstration, at most, unless the options say more: those of ALCE's files."""


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
    `messages` are what is said in it: the user's, with answers between them if there are several.
    """

    text: str
    token_ids: tuple[int, ...]
    shortened: bool
    turn: Turn | None = None
    messages: tuple[str, ...] = ()


def _joined(answer: Any) -> Any:
    is_lines = isinstance(answer, list) and all(isinstance(line, str) for line in answer)
    return "\n" + "\n".join(answer) if is_lines else answer


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A question with documents and its cited answer; ALCE has answers in lines as lists."""

    question: str
    answer: Annotated[str, BeforeValidator(_joined)]
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
    """Read a prompt file; a path is read once.

    Raises:
        InputError: it is no such file; with the field and what was expected there.
    """
    return validated(_LAYOUT, read_json(path), path)


def check_prompt(options: PromptOptions, datasets: Sequence[str]) -> None:
    """Read the prompt files, before any model is loaded.

    Raises:
        InputError: one of them is bad, or there is none for a dataset that wants demonstrations.
    """
    for dataset in datasets:
        _layout(options, dataset)


def _layout(options: PromptOptions, dataset: str) -> Layout:
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


def chosen(file: Layout, options: PromptOptions, path: str) -> tuple[Demonstration, ...]:
    """The first demonstrations, or with `demo_seed` those that ALCE draws with it (`run.py`).

    Raises:
        InputError: the file has fewer than `options.shots`.
    """
    there = len(file.demos)
    if options.shots > there:
        raise InputError(f"{path}, field demos: expected at least {options.shots}, got {there}")
    if options.demo_seed is None:
        return file.demos[: options.shots]
    import numpy

    order = numpy.random.RandomState(options.demo_seed)
    return tuple(file.demos[i] for i in order.choice(there, options.shots, replace=False))


def shown_documents(demonstration: Demonstration, options: PromptOptions) -> tuple[Document, ...]:
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


def render(example: Example, options: PromptOptions, demo_words: int | None = None) -> str:
    """The prompt's text, which ends where the answer begins (after `Answer:`, before a space).

    With a prompt file it is, byte for byte, what ALCE's program makes of it (`make_demo` in
    `utils.py`), the answers of demonstrations without a space in front included.

    Args:
        example: the question, with the documents to show.
        options: templates.
        demo_words: of each document of a demonstration, at most; None for all.

    Raises:
        InputError: a prompt file is bad.
    """
    layout, demos, question = _parts(example, options, demo_words)
    text = "".join(f"{asked}{answer}{layout.demo_sep}" for asked, answer in demos)
    return (text + question).strip()


def conversation(
    example: Example, options: PromptOptions, demo_words: int | None = None
) -> tuple[str, ...]:
    """The prompt as messages of a chat, the user's first and last.

    It is one message, what `render` returns, or with `options.demo_turns` a message and its answer
    for each demonstration in front of the question. Arguments and errors are those of `render`.
    """
    if not options.demo_turns:
        return (render(example, options, demo_words),)
    _, demos, question = _parts(example, options, demo_words)
    return *(message.strip() for pair in demos for message in pair), question.strip()


def _parts(
    example: Example, options: PromptOptions, demo_words: int | None
) -> tuple[Layout, list[tuple[str, str]], str]:
    """The layout, its demonstrations as questions in the template and answers, the question."""
    layout = _layout(options, example.dataset)
    demos = []
    for demo in layout.demos:
        docs = _cut(shown_documents(demo, options), demo_words)
        demos.append((_asked(layout, demo.question, docs, options).rstrip(), demo.answer))
    return layout, demos, _asked(layout, example.question, example.docs, options)


def _asked(layout: Layout, question: str, docs: Sequence[Document], options: PromptOptions) -> str:
    documents = ""
    for number, doc in enumerate(docs, start=1):
        shorter = None if options.documents == "text" else getattr(doc, options.documents)
        text = doc.text if shorter is None else shorter
        documents += _fill(layout.doc_prompt, ID=str(number), T=doc.title, P=text)
    # Without documents there is no empty line for them either.
    template = layout.demo_prompt if docs else layout.demo_prompt.replace("{D}\n", "")
    return _fill(template, INST=layout.instruction, Q=question, D=documents, A="")


def _fill(template: str, **values: str) -> str:
    """Fill `{NAME}` places in one pass, so that braces inside a document's text stay text."""
    return re.sub(r"\{(\w+)\}", lambda place: values.get(place[1], place[0]), template)


def fit(
    example: Example,
    options: PromptOptions,
    encode: Encode,
    wrap: Callable[[Sequence[str]], str] | None = None,
    turn: Turn | None = None,
) -> Prompt:
    """Render a prompt of at most `options.max_input_tokens` tokens.

    A prompt that is too long loses words from the ends of its longest documents, those of
    demonstrations first; the questions, the instruction and the final `Answer:` always stay.

    Args:
        example: the question.
        options: templates and the budget in tokens.
        encode: the tokenizer, with whatever special tokens the model expects in front.
        wrap: makes the text that is encoded from what `conversation` returns (a chat template); by
            default it is what `render` returns.
        turn: how the answer follows, for the prompt to remember.

    Raises:
        InputError: the prompt is too long even with empty documents, or a prompt file is bad.
    """

    def attempt(words: int | None, demo_words: int | None) -> Prompt:
        cut = replace(example, docs=_cut(example.docs, words))
        messages = () if wrap is None else conversation(cut, options, demo_words)
        text = render(cut, options, demo_words) if wrap is None else wrap(messages)
        shortened = words is not None or demo_words is not None
        return Prompt(text, tuple(encode(text)), shortened, turn, messages)

    def too_long(prompt: Prompt) -> bool:
        return len(prompt.token_ids) > options.max_input_tokens

    def longest(cut: Callable[[int], Prompt], docs: Iterable[Document]) -> Prompt | None:
        """The prompt with the longest common limit of words per document that fits."""
        limits = range(_most_words(docs) + 1)
        fitting = bisect(limits, False, key=lambda words: too_long(cut(words)))
        return cut(fitting - 1) if fitting else None

    whole = attempt(None, None)
    if not too_long(whole):
        return whole
    demos = _layout(options, example.dataset).demos
    found = None
    if demos:
        found = longest(
            lambda words: attempt(None, words), (d for demo in demos for d in demo.docs)
        )
    none_of_demos = 0 if demos else None
    found = found or longest(lambda words: attempt(words, none_of_demos), example.docs)
    if found is None:
        raise InputError(
            f"question {example.id}: {len(attempt(0, none_of_demos).token_ids)} tokens without any "
            f"document text, more than max_input_tokens = {options.max_input_tokens}"
        )
    return found


def _texts(doc: Document) -> dict[str, str]:
    texts = {"text": doc.text, "summary": doc.summary, "extraction": doc.extraction}
    return {name: text for name, text in texts.items() if text is not None}


def _cut(docs: tuple[Document, ...], words: int | None) -> tuple[Document, ...]:
    """Documents of which every text is cut to its first words; None cuts nothing."""
    if words is None:
        return docs
    return tuple(
        replace(doc, **{name: " ".join(text.split()[:words]) for name, text in _texts(doc).items()})
        for doc in docs
    )


def _most_words(docs: Iterable[Document]) -> int:
    """Words of the longest text of some documents."""
    texts = (text for doc in docs for text in _texts(doc).values())
    return max((len(text.split()) for text in texts), default=0)
