"""What is wrong with a data file, all of it, and what the pipeline would do with its rows."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from citepipe.data.example import (
    DATASETS,
    IDS,
    NAMES,
    READ,
    TEXTS,
    WRITTEN,
    Example,
    field_of,
)
from citepipe.data.files import dataset_of, named_in, read_rows
from citepipe.data.mixture import normalized_question
from citepipe.data.validate import RowError, shown
from citepipe.errors import InputError
from citepipe.text.sentences import load_splitter
from citepipe.text.statements import NOTES, rules_of

LONG_ANSWER = 200
"""Words of an answer; longer ones do not fit into what the paper generates (200 tokens)."""

Level = Literal["error", "warning"]
_GOLD = {"asqa": "qa_pairs", "qampari": "answers", "eli5": "claims", "expertqa": "claims"}
_PLACE = re.compile(r"\[\d+\]")
# Controls but tab and ends of lines, marks of direction, separators of lines, and what stands for a
# character that could not be decoded.
_UNUSUAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffd\ufffe\uffff]"
)
_USES = {
    "bad": "refused, and the whole file with them",
    "without_documents": "without documents, refused unless `retrieval` finds them some or "
    "`data.without_documents: leave_out` leaves them out",
    "repeated": "left out, as an earlier row has the question and the documents",
    "cut": "with more documents than are kept",
    "taught": "distilled, with a cited answer in `output`",
    "attributed": "distilled if human answers get citations (`teacher.citations: attribute`)",
    "asked": "sampled from, trained on by RL, tested",
    "tested": "tested with gold answers",
    "scored": "scored as they stand (`citepipe score`)",
    "own": "scored as own, as no dataset is named",
}
"""What the pipeline does with rows; a row may be in several."""


@dataclass(slots=True)
class Finding:
    """What was found in one row or more: an error, for which the pipeline refuses the file, or a
    warning; how often, and a line for each of the first, with its row and field."""

    level: Level
    kind: str
    count: int = 0
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class CheckReport:
    """All that was found in a file: its rows, the good ones by dataset and by what the pipeline
    would do with them (`_USES`), the errors, then the warnings, in the order of the file."""

    file: str
    rows: int
    datasets: dict[str, int]
    uses: dict[str, int]
    findings: list[Finding]

    @property
    def is_usable(self) -> bool:
        """Whether the pipeline would take the file (perhaps only with a retriever)."""
        return not any(found.level == "error" for found in self.findings)

    def lines(self) -> list[str]:
        """The report for a terminal."""
        datasets = ", ".join(f"{name} {count}" for name, count in self.datasets.items())
        lines = [f"{self.file}: rows {self.rows}" + (f" ({datasets})" if datasets else "")]
        for found in self.findings:
            lines += [f"{found.level}: {line}" for line in found.lines]
            if more := found.count - len(found.lines):
                lines.append(f"{found.level}: … and {more} more: {found.kind}")
        return lines + [f"{_USES[name]}: {count}" for name, count in self.uses.items()]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {**asdict(self), "is_usable": self.is_usable}


def check(
    path: Path | str,
    dataset: str | None = None,
    documents: int = 5,
    own_as: str = "eli5",
    lines: int = 5,
) -> CheckReport:
    """Read every row of a file, and collect what is wrong or odd.

    Args:
        path: the file, in any form that `read_rows` takes.
        dataset: the dataset of rows that do not name theirs; by default that of the file.
        documents, own_as: as in `DataOptions`.
        lines: how many findings of a kind get a line; all are counted.

    Raises:
        InputError: `dataset` or `own_as` is none. What is wrong with the file is in the report.
    """
    for name in (dataset, own_as):
        if name is not None and name not in DATASETS:
            raise InputError(f"dataset {shown(name)}: expected one of {', '.join(DATASETS)}")
    kinds: dict[tuple[Level, str], Finding] = {}

    def add(level: Level, kind: str, line: str) -> None:
        found = kinds.setdefault((level, kind), Finding(level, kind))
        found.count += 1
        if len(found.lines) < lines:
            found.lines.append(line)

    try:
        rows = read_rows(path)
    except InputError as error:
        broken = Finding("error", str(error), 1, [str(error)])
        return CheckReport(str(path), 0, {}, {}, [broken])
    dataset = dataset or dataset_of(path, rows)
    questions: dict[str, str] = {}
    seen: set[Any] = set()
    datasets: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    for number, (where, row) in enumerate(rows.each):
        place = where.removeprefix(f"{path}, ")
        try:
            example = Example.from_row(row, where, dataset, number, False, own_as)
        except InputError as error:
            for line in error.lines if isinstance(error, RowError) else [str(error)]:
                kind = _PLACE.sub("[]", line.removeprefix(where).lstrip(",: "))
                add("error", kind.partition(", got ")[0], line)
            uses["bad"] += 1
            continue
        # As `read_answers` has it: a name with two datasets is asked about.
        is_own = not (row.get("dataset") or dataset)
        scored = example
        if is_own and len(named_in(path)) < 2:
            scored = Example.from_row(row, where, None, number, False, "own")
            uses["own"] += scored.output is not None
        uses["scored"] += scored.output is not None and not (is_own and scored is example)
        remarks = list(_remarks(example, scored, row, documents))
        question = normalized_question(example.question)
        key = (question, example.dataset, example.docs[:documents])
        if (first := questions.setdefault(question, place)) != place:
            has_docs = "with the same documents, and left out" if key in seen else "other documents"
            remarks.append(("question", "as in an earlier row", f", {first}, {has_docs}"))
        for name, kind, detail in remarks:
            line = f"{where}, field {name}: {kind}{detail}"
            add("warning", f"field {_PLACE.sub('[]', name)}: {kind}", line)
        datasets[example.dataset] += 1
        uses.update(_uses(example, key in seen, documents))
        seen.add(key)
        unread.update(_unread(example, row))
    for name, count in sorted(unread.items()):
        kind = f"field {shown(name)}: nothing reads it"
        add("warning", kind, f"{path}, {kind} (in {count} places){_hint(name)}")
    findings = sorted(kinds.values(), key=lambda found: found.level)
    used = {name: uses[name] for name in _USES if uses[name]}
    return CheckReport(str(path), number + 1, dict(sorted(datasets.items())), used, findings)


def _uses(example: Example, repeated: bool, kept: int) -> list[str]:
    """What the pipeline does with a row, as keys of `_USES`."""
    cited = bool((example.output or "").strip())
    asked = bool(example.docs) and not repeated
    uses = {
        "without_documents": not example.docs,
        "repeated": repeated,
        "cut": len(example.docs) > kept,
        "taught": asked and cited,
        "attributed": asked and not cited and bool((example.answer or "").strip()),
        "asked": asked,
        "tested": asked and bool(_gold(example)),
    }
    return [name for name, applies in uses.items() if applies]


def _gold(example: Example) -> Sequence[Any]:
    """The gold answers that the correctness of the example's dataset needs."""
    gold: Sequence[Any] = getattr(example, _GOLD[example.judged_as])
    return gold


def _remarks(
    example: Example, scored: Example, row: dict[str, Any], kept: int
) -> Iterator[tuple[str, str, str]]:
    """What is odd about a row that can be read: a field, what about it, and the particulars; about
    its answer as it is `scored`."""
    listed = field_of(row, "docs")
    if not example.question.strip():
        yield "question", "empty", ""
    if not example.docs:
        yield listed, "no documents", ""
    seen: dict[str, int] = {}
    for place, doc in enumerate(example.docs):
        if not (doc.text if doc.sent is None else doc.sent).strip():
            yield f"{listed}[{place}]", "a document without text", ""
        elif (first := seen.setdefault(doc.passage, place)) != place:
            yield f"{listed}[{place}]", "the same document", f" as {listed}[{first}]"
    name = _GOLD[example.judged_as]
    if not _gold(example):
        yield name, "no gold answers", f", so no correctness of {example.dataset} is computed"
    for place, gold in enumerate(_gold(example)):
        forms = getattr(gold, "short_answers", (gold,) if isinstance(gold, str) else gold)
        if not forms or not all(any(map(str.isalnum, text)) for text in forms):
            yield f"{name}[{place}]", "a gold answer without letters and digits", ""
    if scored.output is not None:
        for kind, detail in _about_output(scored, kept):
            yield "output", kind, detail
    texts = {"question": example.question, "output": scored.output, "answer": example.answer}
    texts |= {f"{listed}[{i}]": f"{doc.title} {doc.text}" for i, doc in enumerate(example.docs)}
    for name, text in texts.items():
        if unusual := _UNUSUAL.search(text or ""):
            yield name, "an unusual character", f", U+{ord(unusual[0]):04X}"


def _about_output(example: Example, kept: int) -> Iterator[tuple[str, str]]:
    rules, documents = rules_of(example.dataset), len(example.docs)
    answer = example.read(example.output or "", load_splitter(), rules, noting=True)
    if not answer.text.strip():
        yield "an empty answer", ""
        return
    words = len(answer.text.split())
    if words > LONG_ANSWER:
        yield f"an answer of more than {LONG_ANSWER} words", f", {words}"
    for note, line in NOTES[rules].items():
        if note in answer.notes:
            yield line, ""
    cited = sorted({c.number for statement in answer.statements for c in statement.citations})
    missing = [number for number in cited if not 1 <= number <= documents]
    if missing and documents:
        yield "cites what is no document", f", [{missing[0]}] of {documents}"
    if beyond := [number for number in cited if kept < number <= documents]:
        yield f"cites documents behind the first {kept}, which are kept", f": [{beyond[0]}]"


def _unread(example: Example, row: dict[str, Any]) -> Iterator[str]:
    """The fields of a row and of its documents that nothing reads."""
    yield from (name for name in example.extra if name not in IDS or "id" in row)
    listed = field_of(row, "docs")
    for doc in row.get(listed) or []:
        if isinstance(doc, dict):
            yield from (f"{listed}[].{name}" for name in doc.keys() - {*WRITTEN, *TEXTS})


def _hint(name: str) -> str:
    """The field that somebody may have meant who wrote `name`."""
    known = [*WRITTEN, *TEXTS] if "[]." in name else sorted(READ.union(*NAMES.values()))
    near = difflib.get_close_matches(name.rpartition(".")[2].lower(), known, n=1, cutoff=0.8)
    return f"; {near[0]} is read" if near else ""
