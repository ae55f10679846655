"""Questions answered on the spot from a folder of documents: by a model here, by one behind a
server, or, without any, by sentences of the documents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from citepipe.data.example import Document, Example
from citepipe.data.files import read_answers, read_examples, write_examples
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.options import (
    EndpointOptions,
    ModelOptions,
    PredictOptions,
    PromptOptions,
    RetrievalOptions,
    SourcesOptions,
    TeacherPromptOptions,
)
from citepipe.progress import say
from citepipe.retrieve import Retriever, read_passages
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import remove_citations, with_citations

_SENTENCES = 3
"""Of an extract."""


class By(NamedTuple):
    """What answers: a model, by its name or its place; one behind a server, perhaps with the name
    of the environment variable that holds the key; or sentences of the documents."""

    model: str | None = None
    server: str | None = None
    key: str | None = None

    def __str__(self) -> str:
        names = " at ".join(filter(None, [self.model, self.server]))
        return names or "extract (sentences that BM25 finds, no model)"


def questions(asked: Sequence[str], file: Path | None) -> list[Example]:
    """Questions of the command line, and those of a file, whose rows may have any form.

    Raises:
        InputError: there are none, or the file is bad.
    """
    rows = [
        Example.from_row({"question": question}, "question", "own", number, needs_documents=False)
        for number, question in enumerate(asked, start=1)
    ]
    rows += read_examples(file, None, False, "own") if file else []
    if not rows:
        raise InputError("expected a question, or --questions FILE")
    return rows


def with_passages(
    examples: Sequence[Example], docs: Sequence[Path], options: RetrievalOptions, top: int
) -> list[Example]:
    """The examples; those without documents get the best passages of the files and folders."""
    bare = sum(not example.docs for example in examples)
    if bare and not docs:
        raise InputError(f"{bare} questions have no documents: expected --docs FOLDER")
    if not bare:
        return list(examples)
    options = options.model_copy(update={"passages": list(map(str, docs))})
    return Retriever(read_passages(options), options).find_documents(examples, top)


def answered(examples: Sequence[Example], by: By, retrieval: RetrievalOptions) -> list[Example]:
    """The examples with an answer each in `output`; an empty one where there are no documents."""
    asked = [example for example in examples if example.docs]
    outputs: Iterator[str] = iter(())
    with TemporaryDirectory() as folder:
        if asked and by.server:
            outputs = iter(_by_server(asked, by, by.server))
        elif asked and by.model:
            outputs = iter(_by_model(asked, by.model, Path(folder)))
        elif asked:
            say(
                "no model: the answers are sentences of the passages; --model (such as "
                "results/models/fg_rl/seed0) or --server names one that answers"
            )
            outputs = iter(_by_extract(asked, retrieval))
    return [replace(e, output=next(outputs) if e.docs else "") for e in examples]


def _by_extract(examples: Sequence[Example], options: RetrievalOptions) -> list[str]:
    """For each question the sentences of its passages that BM25 finds best, each cited."""
    splitter, found = load_splitter(), []
    for example in examples:
        sentences = [
            Document(doc.title, said, id=str(number))
            for number, doc in enumerate(example.docs)
            for start, end in splitter(doc.text)
            if (said := remove_citations(doc.text[start:end]).strip())
        ]
        if not sentences:
            found.append("")
            continue
        best = Retriever(sentences, options).find([example.question], _SENTENCES)[0]
        found.append(" ".join(with_citations(own.text, [int(own.id or 0)]) for own in best))
    return found


def _by_model(examples: Sequence[Example], model: str, folder: Path) -> list[str]:
    """The likeliest answers of a trained system (its directory, of an adapter or a whole model), or
    of a model at the hub or in a GGUF file (a path, or package:NAME/FILE)."""
    from citepipe.models.gguf import PACKAGE, prepare_base
    from citepipe.models.load import is_whole, trained_with
    from citepipe.sample import predict
    from citepipe.sample.job import Job

    prompt, adapter, base = PromptOptions(), None, model
    if model.startswith(PACKAGE) or model.endswith(".gguf"):
        base = str(folder / "base")
        say(prepare_base(model, folder / "base", "float32", SourcesOptions()))
    options = ModelOptions(base=base, dtype="auto")
    if (trained := Path(model)).is_dir():
        adapter = None if is_whole(trained) else trained
        options, known = trained_with(trained)
        prompt = known or prompt
    if prompt == PromptOptions():
        say(
            f"{model}: not trained here; asked with ALCE's instruction, and perhaps never taught it"
        )
    # A prompt file is that of a dataset.
    kind = next(iter(prompt.files), "own")
    asked, out = folder / "asked.json", folder / "answered.json"
    write_examples(asked, [replace(e, dataset=kind, id=str(n)) for n, e in enumerate(examples)])
    threads = len(os.sched_getaffinity(0))
    job = Job(options, adapter, prompt, None, folder / "state", "", 0, threads)
    say(predict.run(job, PredictOptions(), {kind: asked}, {kind: out}))
    return read_answers(out, kind).outputs


def _by_server(examples: Sequence[Example], by: By, url: str) -> list[str]:
    """The answers of a server's model, the first it names if none is named."""
    from citepipe.teach.endpoint import Endpoint

    given = {"url": url, "api_key_variable": by.key, "temperature": 0, "retries": 2}
    options = validated(TypeAdapter(EndpointOptions), given, "--server")
    options = options.model_copy(update={"model": by.model or _first_model(options)})
    endpoint = Endpoint(options, TeacherPromptOptions(), None, "ask")
    try:
        return [example.output or "" for example in endpoint.answer(examples)]
    finally:
        endpoint.close()


def _first_model(options: EndpointOptions) -> str:
    """The name of the first model that a server says it serves."""
    from citepipe.generate.client import Client

    client = Client(options)

    async def named() -> str:
        answer: Any = await client.api.get("/models", cast_to=object)
        return str(answer["data"][0]["id"])

    try:
        return client.run(client.attempt(named))
    except (KeyError, IndexError, TypeError):
        raise InputError(
            f"{options.url}: does not say which models it serves; say --model"
        ) from None
    finally:
        client.close()
