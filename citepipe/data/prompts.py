"""The one place that lays out prompts (ALCE `utils.py`, `make_demo`), and keeps them in budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from citepipe.data.demonstrations import Demonstration, chosen, read_prompt_file, shown_documents
from citepipe.data.example import Document, Example
from citepipe.errors import InputError
from citepipe.options import PromptOptions

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
    `messages` are what is said in it: the user's, with answers between them if there are several.
    """

    text: str
    token_ids: tuple[int, ...]
    shortened: bool
    turn: Turn | None = None
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Layout:
    """Templates, and the demonstrations in front."""

    instruction: str
    demo_prompt: str
    doc_prompt: str
    separator: str = ""
    demonstrations: Sequence[Demonstration] = ()


def check_prompt(options: PromptOptions, datasets: Sequence[str]) -> None:
    """Read the prompt files, before anything is asked.

    Raises:
        InputError: one of them is bad, or there is none for a dataset that wants demonstrations.
    """
    for dataset in datasets:
        _layout_of(options, dataset)


def render(
    example: Example,
    options: PromptOptions,
    docs: Sequence[Document] | None = None,
    demo_words: int | None = None,
) -> str:
    """The prompt's text, which ends where the answer begins (after `Answer:`, before a space).

    With a prompt file it is, byte for byte, what ALCE's program makes of it (`make_demo` in
    `utils.py`), the answers of demonstrations without a space in front included.

    Args:
        example: what to ask.
        options: templates.
        docs: the documents to show, by default the example's.
        demo_words: of each document of a demonstration, at most; None for all.

    Raises:
        InputError: a prompt file is bad.
    """
    layout = _layout_of(options, example.dataset)
    parts = [
        f"{asked}{demo.answer}{layout.separator}"
        for asked, demo in _demonstrated(layout, options, demo_words)
    ]
    docs = example.docs if docs is None else docs
    text = "".join(parts) + _asked(layout, example.question, docs, options)
    return text.strip()


def conversation(
    example: Example,
    options: PromptOptions,
    docs: Sequence[Document] | None = None,
    demo_words: int | None = None,
) -> tuple[str, ...]:
    """The prompt as messages of a chat, the user's first and last.

    It is one message, what `render` returns, or with `options.demo_turns` a message and its answer
    for each demonstration in front of the question. Arguments and errors are those of `render`.
    """
    if not options.demo_turns:
        return (render(example, options, docs, demo_words),)
    layout = _layout_of(options, example.dataset)
    messages: list[str] = []
    for asked, demo in _demonstrated(layout, options, demo_words):
        messages += [asked.strip(), demo.answer.strip()]
    docs = example.docs if docs is None else docs
    return (*messages, _asked(layout, example.question, docs, options).strip())


def _demonstrated(
    layout: _Layout, options: PromptOptions, words: int | None
) -> Iterator[tuple[str, Demonstration]]:
    """What is asked in each demonstration, with so many words of a document at most."""
    for demo in layout.demonstrations:
        docs = shown_documents(demo, options)
        if words is not None:
            docs = [_first_words(doc, words) for doc in docs]
        yield _asked(layout, demo.question, docs, options).rstrip(), demo


def _layout_of(options: PromptOptions, dataset: str) -> _Layout:
    path = options.files.get(dataset)  # type: ignore[call-overload]
    if path is not None:
        file = read_prompt_file(path)
        demonstrations = chosen(file, options, path)
        return _Layout(
            file.instruction, file.demo_prompt, file.doc_prompt, file.separator, demonstrations
        )
    if options.shots:
        raise InputError(
            f"prompt.files.{dataset}: missing, and the demonstrations that prompt.shots wants "
            f"({options.shots}) are in such a file"
        )
    instruction = options.instruction
    if dataset == "qampari" and options.list_instruction is not None:
        instruction = options.list_instruction
    return _Layout(instruction, options.demo_prompt, options.doc_prompt)


def _asked(layout: _Layout, question: str, docs: Sequence[Document], options: PromptOptions) -> str:
    documents = "".join(
        _fill(layout.doc_prompt, ID=str(number), T=doc.title, P=_shown(doc, options.documents))
        for number, doc in enumerate(docs, start=1)
    )
    template = layout.demo_prompt
    if not docs:
        # Without documents there is no empty line for them either.
        template = template.replace("{D}\n", "")
    return _fill(template, INST=layout.instruction, Q=question, D=documents, A="")


def _shown(doc: Document, variant: str) -> str:
    shorter = {"summary": doc.summary, "extraction": doc.extraction}.get(variant)
    return doc.text if shorter is None else shorter


def _first_words(doc: Document, count: int) -> Document:
    """A document of which every text is cut to its first words."""

    def cut(text: str | None) -> str | None:
        return None if text is None else " ".join(text.split()[:count])

    text = " ".join(doc.text.split()[:count])
    return Document(doc.title, text, summary=cut(doc.summary), extraction=cut(doc.extraction))


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
        example: what to ask.
        options: templates and the budget in tokens.
        encode: the tokenizer, with whatever special tokens the model expects in front.
        wrap: makes the text that is encoded from what `conversation` returns (a chat template); by
            default it is what `render` returns.
        turn: how the answer follows, for the prompt to remember.

    Raises:
        InputError: the prompt is too long even with empty documents, or a prompt file is bad.
    """

    def attempt(words: int | None, demo_words: int | None) -> Prompt:
        docs = None if words is None else [_first_words(doc, words) for doc in example.docs]
        if wrap is None:
            messages: tuple[str, ...] = ()
            text = render(example, options, docs, demo_words)
        else:
            messages = conversation(example, options, docs, demo_words)
            text = wrap(messages)
        shortened = words is not None or demo_words is not None
        return Prompt(text, tuple(encode(text)), shortened, turn, messages)

    def fits(prompt: Prompt) -> bool:
        return len(prompt.token_ids) <= options.max_input_tokens

    whole = attempt(None, None)
    if fits(whole):
        return whole
    demonstrations = _layout_of(options, example.dataset).demonstrations
    if demonstrations:
        longest = _longest(doc for demo in demonstrations for doc in demo.docs)
        found = _most(lambda words: attempt(None, words), fits, longest)
        if found is not None:
            return found
    none_of_demos = 0 if demonstrations else None
    found = _most(lambda words: attempt(words, none_of_demos), fits, _longest(example.docs))
    if found is None:
        raise InputError(
            f"question {example.id}: {len(attempt(0, none_of_demos).token_ids)} tokens without any "
            f"document text, more than max_input_tokens = {options.max_input_tokens}"
        )
    return found


def _longest(docs: Iterable[Document]) -> int:
    """Words of the longest text of some documents."""
    texts = (text for doc in docs for text in (doc.text, doc.summary, doc.extraction) if text)
    return max((len(text.split()) for text in texts), default=0)


def _most(
    attempt: Callable[[int], Prompt], fits: Callable[[Prompt], bool], longest: int
) -> Prompt | None:
    """The prompt with the longest common limit of words per document that fits, by bisection."""
    best = attempt(0)
    if not fits(best):
        return None
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        candidate = attempt(middle)
        if fits(candidate):
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
