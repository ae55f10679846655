"""ALCE's prompt files (`prompts/*_default.json`): instruction, templates, demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from citepipe.data.example import Document
from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.options import PromptOptions

_TEXTS = ("instruction", "demo_sep", "demo_prompt", "doc_prompt")
DOCUMENTS = 5
"""Documents of a demonstration, at most, if nothing else is said: those of ALCE's files."""

_PLACES = {"demo_prompt": ("{Q}", "{A}"), "doc_prompt": ("{P}",)}


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A question with documents and its cited answer."""

    question: str
    answer: str
    docs: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class PromptFile:
    """What a prompt file holds.

    Attributes:
        instruction: takes the place of {INST}.
        separator: between a demonstration and what follows.
        demo_prompt: the template of a question with its documents and answer.
        doc_prompt: the template of a document.
        demonstrations: all of them.
    """

    instruction: str
    separator: str
    demo_prompt: str
    doc_prompt: str
    demonstrations: tuple[Demonstration, ...]


@cache
def read_prompt_file(path: str) -> PromptFile:
    """Read a prompt file; a path is read once.

    Raises:
        InputError: it is no such file; with the field and what was expected there.
    """
    value = read_json(Path(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object with instruction, templates and demos")
    for name in _TEXTS:
        if not isinstance(value.get(name), str):
            raise InputError(f"{path}, field {name}: expected a string")
        for place in _PLACES.get(name, ()):
            if place not in value[name]:
                raise InputError(f"{path}, field {name}: expected {place} in it")
    demos = value.get("demos", [])
    if not isinstance(demos, list):
        raise InputError(f"{path}, field demos: expected a list")
    return PromptFile(
        instruction=value["instruction"],
        separator=value["demo_sep"],
        demo_prompt=value["demo_prompt"],
        doc_prompt=value["doc_prompt"],
        demonstrations=tuple(
            _demonstration(demo, f"{path}, field demos[{i}]") for i, demo in enumerate(demos)
        ),
    )


def chosen(file: PromptFile, options: PromptOptions, path: str) -> Sequence[Demonstration]:
    """The demonstrations that `options` ask for.

    With `demo_seed` they are those that ALCE's program draws with the same seed (`run.py`).

    Raises:
        InputError: the file has fewer.
    """
    there = len(file.demonstrations)
    if options.shots > there:
        raise InputError(f"{path}, field demos: expected at least {options.shots}, got {there}")
    if options.demo_seed is None:
        return file.demonstrations[: options.shots]
    import numpy

    order = numpy.random.RandomState(options.demo_seed)
    places = order.choice(there, options.shots, replace=False)
    return [file.demonstrations[place] for place in places]


def shown_documents(demonstration: Demonstration, options: PromptOptions) -> Sequence[Document]:
    """The documents that a demonstration shows.

    Where the shorter texts of documents are shown, those with the word irrelevant (or Irrelevant)
    in theirs are passed over, and the first document without one ends the choice; it is shown,
    with its full text, only if there is none yet (`get_shorter_text` in ALCE's `utils.py`).
    """
    at_most = DOCUMENTS if options.demo_documents is None else options.demo_documents
    if options.documents == "text" or at_most == 0:
        return demonstration.docs[:at_most]
    shown: list[Document] = []
    for doc in demonstration.docs:
        shorter = getattr(doc, options.documents)
        if shorter is None:
            return shown or [doc]
        if "irrelevant" not in shorter and "Irrelevant" not in shorter:
            shown.append(doc)
        if len(shown) == at_most:
            break
    return shown


def _demonstration(value: Any, where: str) -> Demonstration:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object")
    question, answer, docs = (value.get(name) for name in ("question", "answer", "docs"))
    if not isinstance(question, str):
        raise InputError(f"{where}, field question: expected a string")
    if isinstance(answer, list) and all(isinstance(line, str) for line in answer):
        answer = "\n" + "\n".join(answer)
    if not isinstance(answer, str):
        raise InputError(f"{where}, field answer: expected a string, or a list of lines")
    if not isinstance(docs, list):
        raise InputError(f"{where}, field docs: expected a list")
    return Demonstration(
        question,
        answer,
        tuple(_document(d, f"{where}, field docs[{i}]") for i, d in enumerate(docs)),
    )


def _document(value: Any, where: str) -> Document:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object")
    for name in ("title", "text"):
        if not isinstance(value.get(name), str):
            raise InputError(f"{where}, field {name}: expected a string")
    shorter = {name: value.get(name) for name in ("summary", "extraction")}
    for name, text in shorter.items():
        if text is not None and not isinstance(text, str):
            raise InputError(f"{where}, field {name}: expected a string")
    return Document(value["title"], value["text"], **shorter)
