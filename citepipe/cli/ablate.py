"""The command `ablate`: whether citations matter to the model that makes them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from citepipe.cli import shared

_SHOWN = 10
"""Citations that do not matter, of which there is a line each."""


def add_ablate(commands: Any) -> None:
    """The command `ablate`."""
    option = shared.command(
        commands,
        "ablate",
        _ablate,
        "whether a model's citations matter to its answers",
        "Has questions answered, and again without each document that an answer cites: a sentence "
        "that is said all the same does not rest on its citation. Beside it stands how many "
        "sentences change without a document that nothing cites. With --alter it is also asked "
        "whether sentences follow when names and numbers of what they cite are changed.",
        "ablate questions.jsonl --model results/models/fg_rl/seed0",
        "ablate questions.jsonl --server http://127.0.0.1:8000/v1 --alter --shuffle 3",
    ).add_argument
    option("questions", type=Path, metavar="FILE", help="questions with documents, as of `score`")
    shared.add_answering(option)
    altered = "answer again with other names and numbers in what each sentence cites"
    option("--alter", action="store_true", help=altered)
    orders = "answer again with the documents in N other orders, and say how stable citations are"
    option("--shuffle", type=shared.natural, default=0, metavar="N", help=orders)
    seed = "of the orders" + shared.DEFAULT
    option("--seed", type=shared.natural, default=42, metavar="N", help=seed)
    shared.add_json(option)


def _ablate(arguments: argparse.Namespace) -> None:
    """Answer questions again without documents, and print how often that matters."""
    from citepipe import ablate, ask
    from citepipe.data.files import read_examples
    from citepipe.options import RetrievalOptions

    shared.check_writable(arguments.json)
    examples = read_examples(arguments.questions, own_as="own")
    by = ask.By(arguments.model, arguments.server, arguments.key)
    answering = partial(ask.answered, by=by, retrieval=RetrievalOptions())
    first = answering(examples)
    found = ablate.ablate(first, answering) | {"answered_by": str(by)}
    if arguments.alter:
        found["altered"] = ablate.alter(first, answering)
    if arguments.shuffle:
        orders = ablate.shuffle(first, answering, arguments.shuffle, arguments.seed)
        found["orders"] = {"n": arguments.shuffle, **orders}
    found["answers"] = [{"id": own.id, "output": own.output} for own in first]
    shared.publish(arguments.json, found, _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    citations: Sequence[dict[str, Any]] = found["citations"]
    idle = [own for own in citations if not own["matters"]]
    yield f"answered by: {found['answered_by']}; {len(found['answers'])} answers"
    control, matter = found["control"], _of(len(citations) - len(idle), len(citations))
    yield f"{matter} citations matter: without their document the sentence goes"
    changed = _of(control["changed"], control["of"])
    yield f"{changed} sentences go without a document that nothing cites: the control"
    for own in idle[:_SHOWN]:
        yield f"  {own['id']}: [{own['document']}] does not matter to: {own['text']}"
    if len(idle) > _SHOWN:
        yield f"  … and {len(idle) - _SHOWN} more (--json has all)"
    if altered := found.get("altered"):
        said = Counter(own["answer"] for own in altered["sentences"])
        yield (
            f"{_of(said['changed'], said.total())} sentences follow when names and numbers in "
            f"what they cite are changed, {said['same']} are said as before, {said['neither']} not "
            f"at all; {altered['unaltered']} more have nothing to change"
        )
    if orders := found.get("orders"):
        shown = {k: "-" if x is None else f"{x:.1f} %" for k, x in orders.items() if k != "n"}
        yield (
            f"with the documents in {orders['n']} other orders {shown['said_again']} of the cited "
            f"sentences are said again, {shown['same_documents']} of these with the same "
            f"documents; answers share {shown['overlap']} of the documents that they cite"
        )


def _of(count: int, total: int) -> str:
    share = f" ({100 * count / total:.1f} %)" if total else ""
    return f"{count} of {total}{share}"
