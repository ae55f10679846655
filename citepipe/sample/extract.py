"""A system that copies: the first sentence of each document with its number, without any model.

What is copied is nearly always supported. ALCE's authors warn of this shortcut; scored beside other
systems it shows how much of their citation F1 it could account for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_result
from citepipe.progress import summary
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.text.statements import is_list, remove_citations, with_citations


def run(tests: Mapping[str, Path], outs: Mapping[str, Path], splitter: str) -> str:
    """Write a result file per test file, both by dataset; returns a line that says what was done.

    Raises:
        InputError: a file is not what it should be.
    """
    split, answers = load_splitter(splitter), 0
    for dataset, path in tests.items():
        examples = read_examples(path, dataset)
        answered = [replace(example, output=extract(example, split)) for example in examples]
        write_result(outs[dataset], {"extract": "first_sentence", "dataset": dataset}, answered)
        answers += len(answered)
    return summary("extract", {"answers": answers})


def extract(example: Example, splitter: Splitter) -> str:
    """The first sentence of each document with its number, `… [1]. … [2].`; for datasets of lists
    the titles, `… [1], … [2].`, as items are names. Documents without any are passed over."""
    listed = is_list(example.dataset)
    cited = []
    for number, doc in enumerate(example.docs):
        # A comma would begin another item.
        text = doc.title.replace(",", "") if listed else _first_sentence(doc, splitter)
        if text := remove_citations(text).strip():
            cited.append(f"{text} [{number + 1}]" if listed else with_citations(text, [number]))
    return ", ".join(cited) + "." if listed and cited else " ".join(cited)


def _first_sentence(doc: Document, splitter: Splitter) -> str:
    text = " ".join((doc.text if doc.sent is None else doc.sent).split())
    return next((text[start:end] for start, end in splitter(text)), "")
