"""An example: a question, its documents, its gold answers, and perhaps somebody's cited answer.

The fields are those of ALCE's files and of the authors' training files (`combined_train.json`); for
rows of a user's own, documents may go by other names and be plain strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from citepipe.data.expertqa import is_expertqa_row, plain_row
from citepipe.data.fields import Fields, kind_of, shown

DATASETS = ("asqa", "qampari", "eli5", "expertqa")

DOCUMENTS = ("docs", "documents", "passages", "contexts")
"""The names of a row's list of documents; the first is ALCE's."""

TEXTS = ("text", "passage", "content", "contents")
"""The names of a document's text; the first is ALCE's."""

READ = frozenset(
    {"id", "dataset", "question", "output", "answer"}
    | {"annotations", "qa_pairs", "answers", "claims"}
)
"""The fields of a row that are read, besides its documents and `sample_id`."""

_DEEPEST = 100
"""Levels of lists and objects in a field that is only written back."""


@dataclass(frozen=True, slots=True)
class Document:
    """One retrieved passage.

    Attributes:
        title: of the page it is from.
        text: the passage.
        sent: an extract that ALCE uses in place of `text` wherever it is present.
        id: as its file has it.
        summary: ALCE's shorter text of the passage, by a model, for the question.
        extraction: the sentences of the passage that a model found to bear on the question.
    """

    title: str
    text: str
    sent: str | None = None
    id: str | None = None
    summary: str | None = None
    extraction: str | None = None

    @property
    def passage(self) -> str:
        """The passage as a premise, in ALCE's form: `Title: {title}\\n{sent or text}`."""
        return f"Title: {self.title}\n{self.text if self.sent is None else self.sent}"


@dataclass(frozen=True, slots=True)
class QAPair:
    """One reading of an ambiguous ASQA question, with the aliases of its short answer."""

    question: str
    short_answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A question with documents and gold answers; fields that do not apply are empty.

    Attributes:
        id: unique within its file.
        dataset: one of `DATASETS`; decides how statements are split and what counts as correct.
        question: the question as shown to the model.
        docs: the documents in the order in which they are numbered, from `[1]`.
        output: a cited answer (the teacher's, or a system's), or None.
        answer: a human long answer, or None.
        long_answers: ASQA's reference paragraphs (`annotations[].long_answer`).
        qa_pairs: ASQA's readings with their short answers.
        answers: QAMPARI's answers, each a tuple of aliases.
        claims: ELI5's claims (EXPERTQA: sub-claims of the revised answer).
        extra: the row's other fields, written back unchanged.
    """

    id: str
    dataset: str
    question: str
    docs: tuple[Document, ...]
    output: str | None = None
    answer: str | None = None
    long_answers: tuple[str, ...] = ()
    qa_pairs: tuple[QAPair, ...] = ()
    answers: tuple[tuple[str, ...], ...] = ()
    claims: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def from_row(
        cls,
        row: Any,
        where: str,
        dataset: str | None = None,
        number: int = 0,
        needs_documents: bool = True,
        own_as: str | None = None,
        complaints: list[str] | None = None,
    ) -> Example:
        """Read one row of a data file: the authors', ALCE's, EXPERTQA's own, or a user's.

        A user's row may have its documents as `documents`, `passages` or `contexts`, as plain
        strings or without titles, and its `answers` as strings. Answers of an ASQA-like row
        without readings (`qa_pairs`) are one reading each.

        Args:
            row: the decoded JSON object.
            where: how to name the row in errors, for instance `train.json, row 3`.
            dataset: the dataset of rows that do not say (ALCE's own files).
            number: the row's place in its file, the id of rows that have none.
            needs_documents: a row must have a list of documents, be it empty.
            own_as: the dataset as which a row counts that nothing assigns to one; one with readings
                is like ASQA's all the same. None refuses it.
            complaints: takes all that is wrong with the row, which then is read as far as it can
                be; None raises the first.

        Raises:
            InputError: a field is missing or of the wrong type.
        """
        if not isinstance(row, dict):
            Fields({}, where, complaints).complain(f": expected an object, got {kind_of(row)}")
            return cls(str(number), "", "", ())
        if is_expertqa_row(row):
            fields = Fields(row, where, complaints)
            row = plain_row(fields, any(row.get(name) for name in DOCUMENTS))
        fields = Fields(row, where, complaints)
        named = _dataset(fields, dataset, own_as)
        listed = documents_field(row)
        docs = (fields.required if needs_documents else fields.optional)(listed, list) or []
        qa_pairs = tuple(
            _qa_pair(fields, f"qa_pairs[{i}]", q) for i, q in fields.each("qa_pairs", dict)
        )
        answers = tuple(
            (a,) if isinstance(a, str) else fields.strings(f"answers[{i}]", a)
            for i, a in enumerate(fields.optional("answers", list) or [])
        )
        question = fields.required("question", str)
        if named == "asqa" and not qa_pairs:
            qa_pairs = tuple(QAPair(question, aliases) for aliases in answers)
        identity = row.get("id", row.get("sample_id"))
        return cls(
            id=str(number if identity is None else identity),
            dataset=named,
            question=question,
            docs=tuple(_document(fields, f"{listed}[{i}]", d) for i, d in enumerate(docs)),
            output=_output(fields),
            answer=fields.optional("answer", str),
            long_answers=tuple(
                fields.inside(f"annotations[{i}]", a).required("long_answer", str)
                for i, a in fields.each("annotations", dict)
            ),
            qa_pairs=qa_pairs,
            answers=answers,
            claims=fields.strings("claims", fields.optional("claims", list) or []),
            extra={
                key: _shallow(fields, key, value)
                for key, value in row.items()
                if key not in {*READ, listed}
            },
        )

    def to_row(self) -> dict[str, Any]:
        """The row as the authors' files have it (`output` a list of at most one answer)."""
        return {
            **self.extra,
            "id": self.id,
            "dataset": self.dataset,
            "question": self.question,
            "docs": [
                {
                    key: value
                    for key, value in (
                        ("id", d.id),
                        ("title", d.title),
                        ("text", d.text),
                        ("sent", d.sent),
                        ("summary", d.summary),
                        ("extraction", d.extraction),
                    )
                    if value is not None
                }
                for d in self.docs
            ],
            "output": [] if self.output is None else [self.output],
            "answer": self.answer,
            "annotations": [{"long_answer": a} for a in self.long_answers] or None,
            "qa_pairs": [
                {"question": q.question, "short_answers": list(q.short_answers)}
                for q in self.qa_pairs
            ]
            or None,
            "answers": [list(a) for a in self.answers] or None,
            "claims": list(self.claims) or None,
        }


def documents_field(row: Mapping[str, Any]) -> str:
    """The name of a row's documents: the first one that holds any, or that is there at all."""
    for holds in (bool, lambda value: value is not None):
        for name in DOCUMENTS:
            if holds(row.get(name)):
                return name
    return DOCUMENTS[0]


def _shallow(fields: Fields, name: str, value: Any) -> Any:
    """A value that nothing reads, but that has to be written back."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, list | dict)]:
        depth += 1
        if depth > _DEEPEST:
            fields.complain(f", field {shown(name)}: expected JSON of ordinary depth")
            return None
        level = [
            v for inner in level for v in (inner.values() if isinstance(inner, dict) else inner)
        ]
    return value


def _dataset(fields: Fields, dataset: str | None, own_as: str | None) -> str:
    named = fields.optional("dataset", str) or dataset
    if named is None and own_as is not None:
        return "asqa" if fields.row.get("qa_pairs") else own_as
    if named is None:
        fields.complain(
            f", field dataset: missing, expected one of {', '.join(DATASETS)} there, in "
            "the file's name, or given with the file (--dataset)"
        )
    elif named not in DATASETS:
        fields.complain(
            f", field dataset: expected one of {', '.join(DATASETS)}, got '{shown(named)}'"
        )
    return named or ""


def _document(fields: Fields, name: str, row: Any) -> Document:
    if isinstance(row, str):
        return Document(title="", text=row)
    if not isinstance(row, dict):
        fields.complain(f", field {name}: expected an object or a string, got {kind_of(row)}")
        return Document(title="", text="")
    inside = fields.inside(name, row)
    sent = inside.optional("sent", str)
    named = next((text for text in TEXTS if row.get(text) is not None), TEXTS[0])
    identity = row.get("id")
    return Document(
        title=inside.optional("title", str) or "",
        # QA-extracted documents may come with `sent` alone.
        text=inside.required(named, str) if sent is None else inside.optional(named, str) or sent,
        sent=sent,
        id=None if identity is None else str(identity),
        summary=inside.optional("summary", str),
        extraction=inside.optional("extraction", str),
    )


def _qa_pair(fields: Fields, name: str, row: Mapping[str, Any]) -> QAPair:
    inside = fields.inside(name, row)
    answers: list[Any] = inside.required("short_answers", list)
    return QAPair(
        question=inside.optional("question", str) or "",
        short_answers=fields.strings(f"{name}.short_answers", answers),
    )


def _output(fields: Fields) -> str | None:
    """The authors' files hold a list whose first element is the answer, ALCE's a string."""
    value = fields.row.get("output")
    if isinstance(value, list):
        if not value:
            return None
        value = value[0]
    if value is None or isinstance(value, str):
        return value
    fields.complain(f", field output: expected a string or a list of them, got {kind_of(value)}")
    return None
