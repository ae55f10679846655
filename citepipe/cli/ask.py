"""The command `ask`: questions answered from a folder of documents, every sentence with its
verdict."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.cli import answers, shared, show
from citepipe.errors import InputError

if TYPE_CHECKING:
    from citepipe.data.example import Example


def add_ask(commands: Any) -> None:
    """The command `ask`."""
    option = shared.command(
        commands,
        "ask",
        _ask,
        "answers from your documents, each sentence with its verdict",
        "Finds passages for questions in a folder of texts, has them answered with citations, and "
        "prints each sentence of the answers with verdict, reason and passage. Ends with 1 if "
        "one is not supported by what it cites. Without a model the answers are sentences of the "
        "passages.",
        'ask "When was the mill built?" --docs notes',
        'ask "When was the mill built?" --docs notes --model results/models/fg_rl/seed0',
        "ask --questions asked.csv --docs notes --server http://127.0.0.1:8000/v1 --out a.json",
        "ask --questions asked.csv --docs notes --json verdicts.json; citepipe show verdicts.json",
    ).add_argument
    option("ask", nargs="*", metavar="QUESTION", help="a question")
    form = "more of them: JSON, JSON lines, CSV, TSV, Parquet; rows may bring documents"
    option("--questions", type=Path, metavar="FILE", help=form)
    add_asking(option)
    show.add_colour(option)
    out = "write questions, passages and answers, as score and report read them"
    option("--out", type=Path, metavar="FILE", help=out)
    shared.add_json(option)


def add_asking(option: Any) -> None:
    """From which documents, by what, and how judged questions are answered."""
    folder = "folders and files (.md, .txt, .jsonl, .tsv) in which passages are looked for"
    option("--docs", type=Path, nargs="+", default=[], metavar="FOLDER", help=folder)
    passages = "passages for a question" + shared.DEFAULT
    option("--top", type=shared.positive, default=5, metavar="K", help=passages)
    words = "words of a passage, at most" + shared.DEFAULT
    least = shared.number(int, "a whole number from 10", lambda value: value >= 10)
    option("--words", type=least, default=100, metavar="N", help=words)
    shared.add_answering(option)
    shared.add_verifier(option)
    shared.add_models(option)


def _ask(arguments: argparse.Namespace) -> None:
    """Answer questions and print the answers with verdicts."""
    from tempfile import TemporaryDirectory

    from citepipe.ask import questions
    from citepipe.judgement import REFUSAL
    from citepipe.verify.load import check_spec

    check_spec(arguments.verifier)
    shared.check_writable(arguments.out, arguments.json)
    asked = questions(arguments.ask, arguments.questions)
    with TemporaryDirectory() as folder:
        result = judged(arguments, asked, arguments.out or Path(folder, "answers.json"))
    rows = result["per_example"]
    # Who says that the documents do not say it is not wrong.
    stated = [own for row in rows for own in row["statements"] if own["reason"] != REFUSAL]
    wrong = sum(not own["supported"] for own in stated)
    bare = sum(not row["statements"] for row in rows)

    def lines() -> Iterator[str]:
        verifier = result["provenance"]["verifier"]
        yield f"answered by: {result['answered_by']}; verdicts by: {verifier}\n"
        yield from show.lines_of([{"file": "", **row} for row in rows], arguments.colour)
        supported = f"{len(stated) - wrong} of {len(stated)} sentences supported"
        yield f"\n{len(rows)} answers: {supported} by what they cite"

    shared.publish(arguments.json, result, lines())
    if wrong or bare:
        raise InputError(f"{wrong} sentences not supported, {bare} questions without an answer")


def judged(arguments: argparse.Namespace, examples: Sequence[Example], out: Path) -> dict[str, Any]:
    """Have questions answered, write the answers to a file, and judge every sentence: the result of
    `score` with what answered, the answers and their passages."""
    from dataclasses import replace

    from citepipe import ask
    from citepipe.data.files import read_answers, write_result
    from citepipe.options import RetrievalOptions, ScoreOptions

    retrieval = RetrievalOptions(words=arguments.words)
    examples = ask.with_passages(examples, arguments.docs, retrieval, arguments.top)
    by = ask.By(arguments.model, arguments.server, arguments.key)
    examples = ask.answered(examples, by, retrieval)
    # Whatever a row's dataset is, answers are read as a person reads them.
    arguments.most, arguments.elsewhere = 0, True
    options = ScoreOptions(metrics=("citation_f1",), resamples=1, rules="sane")
    write_result(out, {"answered_by": str(by)}, examples)
    # What is said of it is said of the answers, wherever they lie.
    file = replace(read_answers(out, None), path=Path(out.name))
    [result] = answers.scored(arguments, {"": file}, options).values()
    for row, example in zip(result["per_example"], examples, strict=True):
        docs = [{"title": doc.title, "text": doc.text, "id": doc.id} for doc in example.docs]
        row |= {"output": example.output, "docs": docs}
    return {"answered_by": str(by), **result}
