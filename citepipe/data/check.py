"""What is wrong with a data file, all of it, and what the pipeline would do with it."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from citepipe.data.example import (
    DATASETS,
    DOCUMENTS,
    READ,
    TEXTS,
    Document,
    Example,
    documents_field,
)
from citepipe.data.expertqa import is_expertqa_row
from citepipe.data.fields import shown
from citepipe.data.files import dataset_in_name, read_rows
from citepipe.data.questions import normalized_question
from citepipe.errors import InputError

Level = Literal["error", "warning", "note"]

LONG_ANSWER = 200
"""Words of an answer; longer ones do not fit into what the paper generates (200 tokens)."""

_GOLD = {"asqa": "qa_pairs", "qampari": "answers", "eli5": "claims", "expertqa": "claims"}
_DOCUMENT = frozenset({"id", "title", "sent", "summary", "extraction", *TEXTS})
_OTHER_NAMES = {
    "query": "question",
    "ctxs": "docs",
    "context": "contexts",
    "prediction": "output",
    "generated_text": "output",
    "response": "output",
}
"""What other programs call the fields that are read."""

_CITATION = re.compile(r"\[(\d{1,18})")
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

    level: Level
    kind: str
    count: int = 0
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Uses:
    """Rows by what the pipeline would do with them. A row may be in several of these.

    Attributes:
        bad: refused, and with them the whole file.
        repeated: left out of a split that has the same question and documents already.
        without_documents: refused or left out unless a retriever finds them some.
        taught: distilled from their cited answer (`output`).
        attributed: distilled if their human answer gets citations (`teacher.citations`).
        asked: sampled from, and trained on by reinforcement learning.
        tested: asked, with gold answers for the dataset's correctness.
        scored: have an answer (`output`) to score.
        cut: have more documents than are kept.
    """

    bad: int = 0
    repeated: int = 0
    without_documents: int = 0
    taught: int = 0
    attributed: int = 0
    asked: int = 0
    tested: int = 0
    scored: int = 0
    cut: int = 0


@dataclass(slots=True)
class CheckReport:
    """All that was found in a file.

    Attributes:
        path: the file.
        form: `list`, `result` or `lines`; None if the file cannot be read at all.
        rows: how many it has, good or bad.
        datasets: good rows per dataset.
        origins: good rows by what their dataset comes from: `named`, `given`, `expertqa`, `own`.
        documents: the least and the most documents of a good row.
        shorter: documents that have `sent`, `summary` and `extraction`, of all documents.
        findings: errors, then warnings, then notes; each in the order of the file.
        uses: what the pipeline would do.
        kept: documents per question that the pipeline keeps.
        own_as: the dataset as which own rows count.
    """

    path: Path
    kept: int
    own_as: str
    form: str | None = None
    rows: int = 0
    datasets: dict[str, int] = field(default_factory=dict)
    origins: dict[str, int] = field(default_factory=dict)
    documents: tuple[int, int] = (0, 0)
    shorter: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    uses: Uses = field(default_factory=Uses)

    @property
    def is_usable(self) -> bool:
        """Whether the pipeline would take the file as it is (rows without documents perhaps only
        with a retriever)."""
        return self.rows > 0 and not any(found.level == "error" for found in self.findings)

    def lines(self) -> list[str]:
        """The report for a terminal."""
        said = [] if self.form is None else [self._head(), *self._about()]
        for found in self.findings:
            said += [f"{found.level}: {line}" for line in found.lines]
            more = found.count - len(found.lines)
            if more:
                said.append(f"{found.level}: … and {more} more: {found.kind}")
        counts = Counter(dict.fromkeys(("error", "warning", "note"), 0))
        for found in self.findings:
            counts[found.level] += found.count
        said.append(", ".join(_number(count, level) for level, count in counts.items()))
        return said if self.form is None else [*said, *self._uses()]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "file": str(self.path),
            "is_usable": self.is_usable,
            "form": self.form,
            "rows": self.rows,
            "datasets": self.datasets,
            "origins": self.origins,
            "documents": {"least": self.documents[0], "most": self.documents[1], **self.shorter},
            "findings": [
                {"level": f.level, "kind": f.kind, "count": f.count, "lines": f.lines}
                for f in self.findings
            ],
            "uses": {name: getattr(self.uses, name) for name in Uses.__slots__},
        }

    def _head(self) -> str:
        datasets = ", ".join(f"{name} {count}" for name, count in self.datasets.items())
        head = f"{self.path}: {_FORMS[self.form or 'list']} of {_rows(self.rows)}"
        return f"{head} ({datasets})" if datasets else head

    def _about(self) -> Iterator[str]:
        for origin, count in self.origins.items():
            as_what = f" ({self.own_as}-like)" if origin == "own" else ""
            yield f"{_ORIGINS[origin]}{as_what}: {count}"
        least, most = self.documents
        if most:
            shorter = [
                f"{n} have {name}" for name, n in self.shorter.items() if n and name != "all"
            ]
            of_all = f"; of all {self.shorter['all']}, {', '.join(shorter)}" if shorter else ""
            yield f"documents of a row: {least if least == most else f'{least} to {most}'}{of_all}"

    def _uses(self) -> Iterator[str]:
        uses = self.uses
        if uses.bad:
            yield f"refused: the file, because of {_rows(uses.bad)}; without them:"
        if uses.without_documents:
            yield (
                f"without documents: {_rows(uses.without_documents)}, refused unless `retrieval` "
                "finds them some or `data.without_documents: leave_out` leaves them out; of the "
                "others:"
            )
        if uses.repeated:
            yield f"left out as repeated: {_rows(uses.repeated)}"
        if uses.cut:
            yield f"cut to the first {self.kept} documents: {_rows(uses.cut)}"
        yield f"distilled: {_rows(uses.taught)} with a cited answer in `output`" + (
            f"; {uses.attributed} more if human answers get citations "
            "(`teacher.citations: attribute`)"
            if uses.attributed
            else ""
        )
        yield f"sampled from, trained on by RL: {_rows(uses.asked)}"
        yield f"tested: {_rows(uses.asked)}, {uses.tested} of them with gold answers"
        yield f"scored as they stand (`citepipe score`): {_rows(uses.scored)} with `output`"


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
    report = CheckReport(path, kept=documents, own_as=own_as)
    checker = _Checker(report, dataset or dataset_in_name(path), lines)
    try:
        rows = read_rows(path)
    except InputError as error:
        checker.add("error", str(error), str(error))
    else:
        report.form, report.rows = rows.form, rows.total
        for row in rows.each:
            checker.look(row.value, row.where, row.number)
    checker.finish()
    return report


class _Checker:
    """Looks at rows one by one and fills in a report."""

    def __init__(self, report: CheckReport, dataset: str | None, lines: int) -> None:
        self.report, self.dataset, self.lines = report, dataset, lines
        self.findings: dict[tuple[Level, str], Finding] = {}
        self.datasets: Counter[str] = Counter()
        self.origins: Counter[str] = Counter()
        self.shorter: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.ids: dict[tuple[str, str], str] = {}
        self.questions: dict[str, str] = {}
        self.asked: set[Any] = set()
        self.documents: list[int] = []

    def add(self, level: Level, kind: str, line: str) -> None:
        """Count a finding, and keep its line if there are not many of its kind yet."""
        found = self.findings.setdefault((level, kind), Finding(level, kind))
        found.count += 1
        if len(found.lines) < self.lines:
            found.lines.append(line)

    def look(self, value: Any, where: str, number: int) -> None:
        """Look at a decoded row, or at the complaint that it cannot be decoded."""
        complaints: list[str] = []
        if isinstance(value, InputError):
            complaints.append(str(value))
        else:
            example = Example.from_row(
                value,
                where,
                self.dataset,
                number,
                needs_documents=False,
                own_as=self.report.own_as,
                complaints=complaints,
            )
        for complaint in complaints:
            self.add("error", _kind(complaint, where), complaint)
        if complaints:
            self.report.uses.bad += 1
            return
        self._count(example, value)
        for name, said in _remarks(example, value, self.report.kept):
            self.add("warning", _kind_of(name, said), f"{where}, field {name}: {said}")
        self._compare(example, where, explicit=value.get("id", value.get("sample_id")) is not None)

    def _count(self, example: Example, row: dict[str, Any]) -> None:
        self.datasets[example.dataset] += 1
        if is_expertqa_row(row):
            origin = "expertqa"
        elif row.get("dataset") is not None:
            origin = "named"
        else:
            origin = "own" if self.dataset is None else "given"
        self.origins[origin] += 1
        self.documents.append(len(example.docs))
        for doc in example.docs:
            self.shorter["all"] += 1
            for name in ("sent", "summary", "extraction"):
                self.shorter[name] += getattr(doc, name) is not None
        listed = documents_field(row)
        self.ignored.update(key for key in example.extra if key != "sample_id" or "id" in row)
        if not is_expertqa_row(row) or row.get(listed):
            for doc_row in row.get(listed) or []:
                if isinstance(doc_row, dict):
                    self.ignored.update(f"{listed}[].{k}" for k in doc_row if k not in _DOCUMENT)

    def _compare(self, example: Example, where: str, explicit: bool) -> None:
        """Compare a row with those before it, and count what becomes of it."""
        uses = self.report.uses
        first = self.ids.setdefault((example.dataset, example.id), where)
        if first != where and explicit:
            self.add(
                "warning",
                "field id: as in an earlier row",
                f"{where}, field id: {shown(example.id)} as in {_behind(first, self.report.path)}; "
                "the mixture renames it",
            )
        question = normalized_question(example.question)
        before = self.questions.setdefault(question, where)
        asked = (question, example.dataset, example.docs[: self.report.kept])
        repeated = asked in self.asked
        self.asked.add(asked)
        if before != where:
            with_docs = "with the same documents, and left out" if repeated else "other documents"
            self.add(
                "warning",
                "field question: as in an earlier row",
                f"{where}, field question: as in {_behind(before, self.report.path)}, {with_docs}",
            )
        uses.scored += example.output is not None
        uses.repeated += repeated
        uses.without_documents += not example.docs
        uses.cut += len(example.docs) > self.report.kept
        if repeated or not example.docs:
            return
        has_output = bool((example.output or "").strip())
        uses.asked += 1
        uses.taught += has_output
        uses.attributed += not has_output and bool((example.answer or "").strip())
        uses.tested += bool(_gold(example))

    def finish(self) -> None:
        """Fill in what is known only behind the last row."""
        for name, count in sorted(self.ignored.items()):
            near = _meant(name)
            hint = f"; {near} is read" if near else ""
            self.add(
                "note",
                f"field {shown(name)}: nothing reads it",
                f"{self.report.path}, field {shown(name)}: nothing reads it "
                f"({_times(count)}){hint}",
            )
        report = self.report
        self._join_what_all_lack()
        order = {"error": 0, "warning": 1, "note": 2}
        report.findings = sorted(self.findings.values(), key=lambda found: order[found.level])
        report.datasets = {name: self.datasets[name] for name in DATASETS if self.datasets[name]}
        report.origins = {name: self.origins[name] for name in _ORIGINS if self.origins[name]}
        report.shorter = {
            name: self.shorter[name] for name in ("all", "sent", "summary", "extraction")
        }
        if self.documents:
            report.documents = (min(self.documents), max(self.documents))

    def _join_what_all_lack(self) -> None:
        """One note in place of a warning per row, where a whole file is without something."""
        good = self.report.rows - self.report.uses.bad
        for level, kind in list(self.findings):
            found = self.findings[level, kind]
            name, _, said = kind.partition(": ")
            if level == "warning" and said.startswith("no ") and found.count == good > 1:
                del self.findings[level, kind]
                self.add("note", kind, f"{self.report.path}, {name}: {said}, in any of {good} rows")


def _remarks(example: Example, row: dict[str, Any], kept: int) -> Iterator[tuple[str, str]]:
    """What is odd about a row that can be read: fields, and what about them."""
    listed = documents_field(row)
    if not example.question.strip():
        yield "question", "empty"
    yield from _about_documents(example.docs, listed)
    if not _gold(example):
        yield (
            _GOLD[example.dataset],
            f"no gold answers, so no correctness of {example.dataset} is found",
        )
    yield from _about_gold(example)
    if example.output is not None:
        yield from _about_output(example.output, row.get("output"), len(example.docs), kept)
    texts = [("question", example.question), ("output", example.output or "")]
    texts += [("answer", example.answer or "")]
    texts += [(f"{listed}[{i}]", f"{d.title} {d.text}") for i, d in enumerate(example.docs)]
    for name, text in texts:
        unusual = _UNUSUAL.search(text)
        if unusual:
            yield name, f"an unusual character, U+{ord(unusual[0]):04X}"


def _gold(example: Example) -> Sequence[Any]:
    """The gold answers that the correctness of the example's dataset asks for."""
    gold: Sequence[Any] = getattr(example, _GOLD[example.dataset])
    return gold


def _about_documents(docs: Sequence[Document], listed: str) -> Iterator[tuple[str, str]]:
    if not docs:
        yield listed, "no documents"
    seen: dict[str, int] = {}
    for place, doc in enumerate(docs):
        text = doc.text if doc.sent is None else doc.sent
        if not text.strip():
            yield f"{listed}[{place}]", "a document without text"
            continue
        first = seen.setdefault(f"{doc.title}\n{text}", place)
        if first != place:
            yield f"{listed}[{place}]", f"the same document as {listed}[{first}]"


def _about_gold(example: Example) -> Iterator[tuple[str, str]]:
    if example.dataset == "asqa":
        named = [(f"qa_pairs[{i}]", pair.short_answers) for i, pair in enumerate(example.qa_pairs)]
    elif example.dataset == "qampari":
        named = [(f"answers[{i}]", aliases) for i, aliases in enumerate(example.answers)]
    else:
        named = [(f"claims[{i}]", (claim,)) for i, claim in enumerate(example.claims)]
    for name, texts in named:
        if not texts:
            yield name, "a gold answer without any form"
        elif not all(any(map(str.isalnum, text)) for text in texts):
            yield name, "a gold answer without letters and digits"


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
    cited = sorted({int(number) for number in _CITATION.findall(text)})
    if not cited:
        yield "output", "an answer without citations"
    missing = [number for number in cited if not 1 <= number <= documents]
    beyond = [number for number in cited if kept < number <= documents]
    if missing and documents:
        yield "output", f"cites what is no document, [{missing[0]}] of {documents}"
    if beyond:
        yield "output", f"cites documents behind the first {kept}, which are kept: [{beyond[0]}]"


def _kind(complaint: str, where: str) -> str:
    """A complaint without its row, its places in lists, and what was found there."""
    said = complaint.removeprefix(where).lstrip(",: ")
    return _PLACE.sub("[]", said).partition(", got ")[0]


def _kind_of(name: str, said: str) -> str:
    return f"field {_PLACE.sub('[]', name)}: {re.split(r', | as ', said)[0]}"


def _behind(where: str, path: Path) -> str:
    """`row 3` of `train.json, row 3`."""
    return where.removeprefix(f"{path}, ")


def _meant(name: str) -> str | None:
    """The field that somebody may have meant who wrote `name`."""
    plain = name.rpartition(".")[2].lower()
    known = sorted(_DOCUMENT) if "[]." in name else sorted(READ | set(DOCUMENTS))
    if "[]." not in name and plain in _OTHER_NAMES:
        return _OTHER_NAMES[plain]
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.8)
    return near[0] if near else None


def _rows(count: int) -> str:
    return _number(count, "row")


def _number(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
