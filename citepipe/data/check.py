"""What is wrong with a data file, all of it, and what the pipeline would do with it."""

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
    DOCUMENTS,
    READ,
    TEXTS,
    WRITTEN,
    Example,
    documents_field,
)
from citepipe.data.expertqa import is_expertqa_row
from citepipe.data.files import dataset_in_name, read_rows
from citepipe.data.mixture import normalized_question
from citepipe.data.validate import RowError, shown
from citepipe.errors import InputError
from citepipe.text.statements import find_citations

LONG_ANSWER = 200
"""Words of an answer; longer ones do not fit into what the paper generates (200 tokens)."""

_LEVELS = ("error", "warning", "note")
_GOLD = {"asqa": "qa_pairs", "qampari": "answers", "eli5": "claims", "expertqa": "claims"}
_SHORTER = ("sent", "summary", "extraction")
_OTHER_NAMES = {
    "query": "question",
    "ctxs": "docs",
    "context": "contexts",
    "prediction": "output",
    "generated_text": "output",
    "response": "output",
}
"""What other programs call the fields that are read."""

_PLACE = re.compile(r"\[\d+\]")
# Controls but tab and ends of lines, marks of direction, separators of lines, and what stands for a
# character that could not be decoded.
_UNUSUAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffd\ufffe\uffff]"
)
_FORMS = {"list": "a JSON list", "result": "an ALCE result file", "lines": "JSON lines"}
_ORIGINS = {
    "named": "rows that name their dataset, as the authors'",
    "given": "rows whose dataset the file's name or the command says, as ALCE's",
    "expertqa": "rows of EXPERTQA's own files",
    "own": "rows of no dataset, which count as your own",
}
_USES: tuple[str, ...] = ("bad", "repeated", "without_documents", "taught", "attributed", "asked")
_USES += ("tested", "scored", "cut")


@dataclass(slots=True)
class Finding:
    """Something that was found in one row or more.

    Attributes:
        level: `error`: the pipeline refuses the file; `warning`: something is lost or means
            something else than it seems; `note`: to be known.
        kind: what it is, without the places.
        count: how often it was found.
        lines: a line for each of the first, with its row and field.
    """

    level: Literal["error", "warning", "note"]
    kind: str
    count: int = 0
    lines: list[str] = field(default_factory=list)


class CheckReport:
    """All that was found in a file; made by `check`.

    Attributes:
        form: `list`, `result` or `lines`; None if the file cannot be read at all.
        rows: how many it has, good or bad.
        datasets: good rows per dataset.
        origins: good rows by what their dataset comes from: `named`, `given`, `expertqa`, `own`.
        documents: good rows per number of documents.
        shorter: documents that have `sent`, `summary` and `extraction`, of `all` documents.
        findings: errors, then warnings, then notes; each in the order of the file.
        uses: rows by what the pipeline would do with them; a row may be in several. bad: refused,
            and with them the whole file. repeated: left out of a split that has the same question
            and documents already. without_documents: refused or left out unless a retriever finds
            them some. taught: distilled from their cited answer. attributed: distilled if their
            human answer gets citations. asked: sampled from, and trained on by reinforcement
            learning. tested: asked, with gold answers. scored: have an answer to score. cut: have
            more documents than are kept.
    """

    def __init__(self, path: Path, dataset: str | None, kept: int, own_as: str, lines: int) -> None:
        self.path, self.dataset, self.kept, self.own_as = path, dataset, kept, own_as
        self.form: str | None = None
        self.rows, self._lines = 0, lines
        self.datasets: Counter[str] = Counter()
        self.origins: Counter[str] = Counter()
        self.documents: Counter[int] = Counter()
        self.shorter: Counter[str] = Counter()
        self.uses: Counter[str] = Counter()
        self._findings: dict[tuple[str, str], Finding] = {}
        self._ignored: Counter[str] = Counter()
        self._ids: dict[tuple[str, str], str] = {}
        self._questions: dict[str, str] = {}
        self._asked: set[Any] = set()

    @property
    def findings(self) -> list[Finding]:
        return sorted(self._findings.values(), key=lambda found: _LEVELS.index(found.level))

    @property
    def is_usable(self) -> bool:
        """Whether the pipeline would take the file as it is (rows without documents perhaps only
        with a retriever)."""
        return self.rows > 0 and not any(found.level == "error" for found in self.findings)

    def add(self, level: Literal["error", "warning", "note"], kind: str, line: str) -> None:
        """Count a finding, and keep its line if there are not many of its kind yet."""
        found = self._findings.setdefault((level, kind), Finding(level, kind))
        found.count += 1
        if len(found.lines) < self._lines:
            found.lines.append(line)

    def look(self, row: Any, where: str, number: int) -> None:
        """Look at a row as `read_rows` yields it."""
        try:
            example = Example.from_row(row, where, self.dataset, number, False, self.own_as)
        except InputError as error:
            for line in error.lines if isinstance(error, RowError) else [str(error)]:
                said = _PLACE.sub("[]", line.removeprefix(where).lstrip(",: "))
                self.add("error", said.partition(", got ")[0], line)
            self.uses["bad"] += 1
            return
        self._count(example, row)
        for name, said in [
            *_remarks(example, row, self.kept),
            *self._compared(example, row, where),
        ]:
            kind = re.sub(r".*\bas in (row|line) .*", "as in an earlier row", said)
            kind = f"field {_PLACE.sub('[]', name)}: {re.split(r', | as ', kind)[0]}"
            self.add("warning", kind, f"{where}, field {name}: {said}")

    def _count(self, example: Example, row: dict[str, Any]) -> None:
        origin = "given" if self.dataset else "own"
        if row.get("dataset") is not None:
            origin = "named"
        if is_expertqa_row(row):
            origin = "expertqa"
        self.datasets[example.dataset] += 1
        self.origins[origin] += 1
        self.documents[len(example.docs)] += 1
        self.shorter["all"] += len(example.docs)
        for name in _SHORTER:
            self.shorter[name] += sum(getattr(doc, name) is not None for doc in example.docs)
        self._ignored.update(name for name in example.extra if name != "sample_id" or "id" in row)
        listed = documents_field(row)
        for doc in row.get(listed) or []:
            if isinstance(doc, dict):
                unread = doc.keys() - {*WRITTEN, *TEXTS}
                self._ignored.update(f"{listed}[].{name}" for name in unread)

    def _compared(self, example: Example, row: Any, where: str) -> Iterator[tuple[str, str]]:
        """How a row is like one before it; counts what becomes of it."""
        first = self._ids.setdefault((example.dataset, example.id), where)
        if first != where and row.get("id", row.get("sample_id")) is not None:
            place = first.removeprefix(f"{self.path}, ")
            yield "id", f"{shown(example.id)} as in {place}; the mixture renames it"
        question = normalized_question(example.question)
        before = self._questions.setdefault(question, where)
        asked = (question, example.dataset, example.docs[: self.kept])
        repeated = asked in self._asked
        self._asked.add(asked)
        if before != where:
            with_docs = "with the same documents, and left out" if repeated else "other documents"
            yield "question", f"as in {before.removeprefix(f'{self.path}, ')}, {with_docs}"
        has_output = bool((example.output or "").strip())
        usable = bool(example.docs) and not repeated
        uses = {
            "scored": example.output is not None,
            "repeated": repeated,
            "without_documents": not example.docs,
            "cut": len(example.docs) > self.kept,
            "asked": usable,
            "taught": usable and has_output,
            "attributed": usable and not has_output and bool((example.answer or "").strip()),
            "tested": usable and bool(_gold(example)),
        }
        for name, applies in uses.items():
            self.uses[name] += applies

    def finish(self) -> None:
        """Add what is known only behind the last row."""
        for name, count in sorted(self._ignored.items()):
            kind = f"field {shown(name)}: nothing reads it"
            times = "once" if count == 1 else f"{count} times"
            self.add("note", kind, f"{self.path}, {kind} ({times}){_hint(name)}")
        good = self.rows - self.uses["bad"]
        for (level, kind), found in list(self._findings.items()):
            # One note in place of a warning per row, where a whole file is without something.
            if level == "warning" and ": no " in kind and found.count == good > 1:
                del self._findings[level, kind]
                self.add("note", kind, f"{self.path}, {kind}, in any of {good} rows")

    def lines(self) -> list[str]:
        """The report for a terminal."""
        said = [] if self.form is None else list(self._about(self.form))
        counts = dict.fromkeys(_LEVELS, 0)
        for found in self.findings:
            counts[found.level] += found.count
            said += [f"{found.level}: {line}" for line in found.lines]
            if more := found.count - len(found.lines):
                said.append(f"{found.level}: … and {more} more: {found.kind}")
        said.append(", ".join(_number(count, level) for level, count in counts.items()))
        return said if self.form is None else [*said, *self._becomes()]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "file": str(self.path),
            "is_usable": self.is_usable,
            "form": self.form,
            "rows": self.rows,
            "datasets": {name: self.datasets[name] for name in DATASETS if self.datasets[name]},
            "origins": {name: self.origins[name] for name in _ORIGINS if self.origins[name]},
            "documents": {
                "least": min(self.documents, default=0),
                "most": max(self.documents, default=0),
                **{name: self.shorter[name] for name in ("all", *_SHORTER)},
            },
            "findings": [asdict(found) for found in self.findings],
            "uses": {name: self.uses[name] for name in _USES},
        }

    def _about(self, form: str) -> Iterator[str]:
        known = self.as_json()
        datasets = ", ".join(f"{name} {count}" for name, count in known["datasets"].items())
        head = f"{self.path}: {_FORMS[form]} of {_number(self.rows, 'row')}"
        yield f"{head} ({datasets})" if datasets else head
        for origin, count in known["origins"].items():
            like = f" ({self.own_as}-like)" if origin == "own" else ""
            yield f"{_ORIGINS[origin]}{like}: {count}"
        least, most = known["documents"]["least"], known["documents"]["most"]
        if most:
            shorter = [f"{self.shorter[n]} have {n}" for n in _SHORTER if self.shorter[n]]
            of_all = f"; of all {self.shorter['all']}, {', '.join(shorter)}" if shorter else ""
            yield f"documents of a row: {least if least == most else f'{least} to {most}'}{of_all}"

    def _becomes(self) -> Iterator[str]:
        rows = {name: _number(self.uses[name], "row") for name in _USES}
        if self.uses["bad"]:
            yield f"refused: the file, because of {rows['bad']}; without them:"
        if self.uses["without_documents"]:
            yield (
                f"without documents: {rows['without_documents']}, refused unless `retrieval` "
                "finds them some or `data.without_documents: leave_out` leaves them out; of the "
                "others:"
            )
        if self.uses["repeated"]:
            yield f"left out as repeated: {rows['repeated']}"
        if self.uses["cut"]:
            yield f"cut to the first {self.kept} documents: {rows['cut']}"
        attributed = self.uses["attributed"]
        more = (
            f"; {attributed} more if human answers get citations (`teacher.citations: attribute`)"
            if attributed
            else ""
        )
        yield f"distilled: {rows['taught']} with a cited answer in `output`{more}"
        yield f"sampled from, trained on by RL: {rows['asked']}"
        yield f"tested: {rows['asked']}, {self.uses['tested']} of them with gold answers"
        yield f"scored as they stand (`citepipe score`): {rows['scored']} with `output`"


def check(
    path: Path | str,
    dataset: str | None = None,
    documents: int = 5,
    own_as: str = "eli5",
    lines: int = 5,
) -> CheckReport:
    """Look at every row of a file.

    Args:
        path: the file, in any form that `read_rows` takes.
        dataset: the dataset of rows that do not name theirs; by default the one in the file's name.
        documents: per question that the pipeline keeps (`data.documents`).
        own_as: the dataset as which rows count that nothing assigns to one (`data.own_as`).
        lines: how many findings of a kind get a line; all are counted.

    Raises:
        InputError: `dataset` or `own_as` is none. What is wrong with the file is in the report.
    """
    for name in (dataset, own_as):
        if name is not None and name not in DATASETS:
            raise InputError(f"dataset {shown(name)}: expected one of {', '.join(DATASETS)}")
    path = Path(path)
    report = CheckReport(path, dataset or dataset_in_name(path), documents, own_as, lines)
    try:
        report.form, report.rows, rows = read_rows(path)
    except InputError as error:
        report.add("error", str(error), str(error))
        return report
    for number, (where, row) in enumerate(rows):
        report.look(row, where, number)
    report.finish()
    return report


def _remarks(example: Example, row: dict[str, Any], kept: int) -> Iterator[tuple[str, str]]:
    """What is odd about a row that can be read: fields, and what about them."""
    listed = documents_field(row)
    if not example.question.strip():
        yield "question", "empty"
    if not example.docs:
        yield listed, "no documents"
    seen: dict[str, int] = {}
    for place, doc in enumerate(example.docs):
        if not doc.passage.removeprefix(f"Title: {doc.title}\n").strip():
            yield f"{listed}[{place}]", "a document without text"
        elif (first := seen.setdefault(doc.passage, place)) != place:
            yield f"{listed}[{place}]", f"the same document as {listed}[{first}]"
    name = _GOLD[example.dataset]
    if not _gold(example):
        yield name, f"no gold answers, so no correctness of {example.dataset} is found"
    for place, gold in enumerate(_gold(example)):
        forms = getattr(gold, "short_answers", (gold,) if isinstance(gold, str) else gold)
        if not forms:
            yield f"{name}[{place}]", "a gold answer without any form"
        elif not all(any(map(str.isalnum, text)) for text in forms):
            yield f"{name}[{place}]", "a gold answer without letters and digits"
    if example.output is not None:
        yield from _about_output(example.output, row.get("output"), len(example.docs), kept)
    texts = {"question": example.question, "output": example.output, "answer": example.answer}
    texts |= {f"{listed}[{i}]": f"{doc.title} {doc.text}" for i, doc in enumerate(example.docs)}
    for name, text in texts.items():
        if unusual := _UNUSUAL.search(text or ""):
            yield name, f"an unusual character, U+{ord(unusual[0]):04X}"


def _gold(example: Example) -> Sequence[Any]:
    """The gold answers that the correctness of the example's dataset needs."""
    gold: Sequence[Any] = getattr(example, _GOLD[example.dataset])
    return gold


def _about_output(output: str, raw: Any, documents: int, kept: int) -> Iterator[tuple[str, str]]:
    if isinstance(raw, list) and len(raw) > 1:
        yield "output", f"{len(raw)} answers, of which the first is read"
    text = output.strip()
    if not text:
        yield "output", "an empty answer"
        return
    if "\n" in text:
        yield "output", "several lines, of which scores read the first"
    words = len(text.split())
    if words > LONG_ANSWER:
        yield "output", f"an answer of more than {LONG_ANSWER} words, {words}"
    cited = sorted({citation.number for citation in find_citations(text)})
    if not cited:
        yield "output", "an answer without citations"
    missing = [number for number in cited if not 1 <= number <= documents]
    beyond = [number for number in cited if kept < number <= documents]
    if missing and documents:
        yield "output", f"cites what is no document, [{missing[0]}] of {documents}"
    if beyond:
        yield "output", f"cites documents behind the first {kept}, which are kept: [{beyond[0]}]"


def _hint(name: str) -> str:
    """The field that somebody may have meant who wrote `name`."""
    plain = name.rpartition(".")[2].lower()
    if "[]." in name:
        known = sorted({*WRITTEN, *TEXTS})
    elif plain in _OTHER_NAMES:
        return f"; {_OTHER_NAMES[plain]} is read"
    else:
        known = sorted({*READ, *DOCUMENTS})
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.8)
    return f"; {near[0]} is read" if near else ""


def _number(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
