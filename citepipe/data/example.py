"""An example: a question, its documents, its gold answers, and perhaps somebody's cited answer.

The fields are those of ALCE's files and of the authors' training files (`combined_train.json`); for
rows of a user's own, documents may go by other names and be plain strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, TypeAdapter

from citepipe.data.validate import kind_of, present, shown, validated
from citepipe.text.statements import find_citations, renumber_citations

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

WRITTEN = ("id", "title", "text", "sent", "summary", "extraction")
"""The fields of a document, in the order in which they are written."""


def _document(value: Any) -> Any:
    """A document may be its text alone, and one that QA has extracted may have `sent` alone."""
    if isinstance(value, str):
        return {"title": "", "text": value}
    if not isinstance(value, dict):
        raise ValueError(f"expected an object or a string, got {kind_of(value)}")
    value = {"title": "", **present(value)}
    named = next((name for name in TEXTS if name in value), TEXTS[0])
    if "sent" in value and value.get(named, "") == "":
        value[named] = value["sent"]
    return value


def _reading(value: Any) -> Any:
    return {"question": "", **present(value)} if isinstance(value, dict) else value


def _aliases(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _long_answer(value: Any) -> Any:
    if not isinstance(value, dict) or "long_answer" not in value:
        raise ValueError("expected an object with long_answer")
    return value["long_answer"]


def _output(value: Any) -> Any:
    """The authors' files hold a list whose first element is the answer, ALCE's a string."""
    if isinstance(value, list):
        value = value[0] if value else None
    if value is not None and not isinstance(value, str):
        raise ValueError(f"expected a string or a list of them, got {kind_of(value)}")
    return value


def _dataset(value: str) -> str:
    names = ", ".join(DATASETS)
    if not value:
        raise ValueError(
            f"missing, expected one of {names} there, alone in the file's name, or given with the "
            "file (--dataset)"
        )
    if value not in DATASETS:
        raise ValueError(f"expected one of {names}, got '{shown(value)}'")
    return value


@dataclass(frozen=True, slots=True)
class Document:
    """One retrieved passage.

    Attributes:
        sent: an extract that ALCE uses in place of `text` wherever it is present.
        summary: ALCE's shorter text of the passage, by a model, for the question.
        extraction: the sentences of the passage that a model found to bear on the question.
    """

    title: str
    text: Annotated[str, Field(validation_alias=AliasChoices(*TEXTS))]
    sent: str | None = None
    id: Annotated[str | None, BeforeValidator(str)] = None
    summary: str | None = None
    extraction: str | None = None

    @property
    def passage(self) -> str:
        """The passage as a premise, in ALCE's form: `Title: {title}\\n{sent or text}`."""
        return f"Title: {self.title}\n{self.text if self.sent is None else self.sent}"


DocumentRow = Annotated[Document, BeforeValidator(_document)]
"""A document as files have it, for pydantic."""


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
        docs: the documents in the order in which they are numbered, from `[1]`.
        output: a cited answer (the teacher's, or a system's), or None.
        answer: a human long answer, or None.
        long_answers: ASQA's reference paragraphs (`annotations[].long_answer`).
        qa_pairs: ASQA's readings with their short answers.
        answers: QAMPARI's answers, each a tuple of aliases.
        claims: ELI5's claims (EXPERTQA: sub-claims of the revised answer).
        extra: the row's other fields, written back unchanged.
    """

    id: Annotated[str, BeforeValidator(str)]
    dataset: Annotated[str, AfterValidator(_dataset)]
    question: str
    docs: Annotated[tuple[DocumentRow, ...], Field(validation_alias=AliasChoices(*DOCUMENTS))]
    output: Annotated[str | None, BeforeValidator(_output)] = None
    answer: str | None = None
    long_answers: Annotated[
        tuple[Annotated[str, BeforeValidator(_long_answer)], ...],
        Field(validation_alias="annotations"),
    ] = ()
    qa_pairs: tuple[Annotated[QAPair, BeforeValidator(_reading)], ...] = ()
    answers: tuple[Annotated[tuple[str, ...], BeforeValidator(_aliases)], ...] = ()
    claims: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def from_row(
        cls,
        row: Any,
        where: str,
        dataset: str | None = None,
        number: int = 0,
        needs_documents: bool = True,
        own_as: str | None = None,
    ) -> Example:
        """Read one row of a data file: the authors', ALCE's, EXPERTQA's own, or a user's.

        A user's row may have its documents as `documents`, `passages` or `contexts`, as plain
        strings or without titles, and its `answers` as strings. Answers of an ASQA-like row
        without readings (`qa_pairs`) are one reading each. A null field counts as absent.

        Args:
            row: the decoded JSON object, or the error that it cannot be decoded, which is raised.
            where: how to name the row in errors, for instance `train.json, row 3`.
            dataset: the dataset of rows that do not name theirs (ALCE's own files).
            number: the row's place in its file, the id of rows that have none.
            needs_documents: a row must have a list of documents, be it empty.
            own_as: the dataset as which a row counts that nothing assigns to one; one with readings
                is like ASQA's all the same. None refuses it.

        Raises:
            RowError: fields are missing or of the wrong type, all of them named in its lines.
        """
        if isinstance(row, Exception):
            raise row
        if isinstance(row, dict):
            if isinstance(row.get("answers"), dict):
                row = _plain(row, where)
            listed = documents_field(row)
            read = {*READ, listed}
            fields = {name: row[name] for name in read if row.get(name) is not None}
            if own_as is not None and row.get("qa_pairs"):
                own_as = "asqa"
            fields["dataset"] = fields.get("dataset") or dataset or own_as or ""
            identity = row.get("id", row.get("sample_id"))
            fields["id"] = number if identity is None else identity
            fields["extra"] = {name: value for name, value in row.items() if name not in read}
            row = fields if needs_documents else {listed: [], **fields}
        example = validated(_EXAMPLE, row, where)
        if example.dataset == "asqa" and not example.qa_pairs:
            readings = tuple(QAPair(example.question, aliases) for aliases in example.answers)
            example = replace(example, qa_pairs=readings)
        return example

    def to_row(self) -> dict[str, Any]:
        """The row as the authors' files have it (`output` a list of at most one answer)."""
        readings = [
            {"question": pair.question, "short_answers": list(pair.short_answers)}
            for pair in self.qa_pairs
        ]
        return {
            **self.extra,
            "id": self.id,
            "dataset": self.dataset,
            "question": self.question,
            "docs": [
                {name: value for name in WRITTEN if (value := getattr(doc, name)) is not None}
                for doc in self.docs
            ],
            "output": [] if self.output is None else [self.output],
            "answer": self.answer,
            "annotations": [{"long_answer": answer} for answer in self.long_answers] or None,
            "qa_pairs": readings or None,
            "answers": [list(aliases) for aliases in self.answers] or None,
            "claims": list(self.claims) or None,
        }


_EXAMPLE = TypeAdapter(Example)


@dataclass(frozen=True, slots=True)
class _Claim:
    revised_claim: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    answer_string: str | None = None
    revised_answer_string: str | None = None
    claims: tuple[Annotated[_Claim, BeforeValidator(present)], ...] = ()


@dataclass(frozen=True, slots=True)
class _ExpertQARow:
    answers: dict[str, Annotated[_Answer, BeforeValidator(present)]]


_EXPERTQA_ROW = TypeAdapter(_ExpertQARow)
_EVIDENCE = re.compile(r"\s*\[(\d{1,6})\][ \t]*([^\n]*)(?:\n(.*))?", re.DOTALL)
"""Of EXPERTQA: `[number] address`, and perhaps an empty line and the passage."""


def _plain(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row of EXPERTQA's own files (Malaviya et al. 2024, `r2_compiled_anon.jsonl` and its splits)
    with the fields that all other rows have.

    There a row has answers by the names of systems, cut into claims that annotators have judged and
    revised. The first answer that one has revised counts, or else the first. It becomes `output`;
    the passages of its evidence become the documents, in the order of their numbers, titled by
    their addresses. Numbers without a passage that nothing cites are passed over, and the citations
    follow; one that is cited is a document without text. The revised answer, without citations, is
    the human answer, and its claims are the gold ones. Where all evidence is addresses, there are
    no documents. A row's own documents stay, which its answer does not cite.
    """
    has_own = any(row.get(name) for name in DOCUMENTS)
    fields = {**row, "dataset": row.get("dataset", "expertqa"), "answers": None}
    fields |= {} if has_own else {DOCUMENTS[0]: []}
    read = list(validated(_EXPERTQA_ROW, {"answers": row["answers"]}, where).answers.values())
    chosen = next((a for a in read if a.revised_answer_string is not None), (*read, None)[0])
    if chosen is None:
        return fields
    if chosen.revised_answer_string is not None:
        claims = [_without_citations(claim.revised_claim) for claim in chosen.claims]
        fields["answer"] = _without_citations(chosen.revised_answer_string)
        fields["claims"] = list(filter(None, claims))
    return fields if has_own else fields | _cited(chosen)


def _without_citations(text: str) -> str:
    return " ".join(renumber_citations(text, lambda _: None).split())


def _cited(answer: _Answer) -> dict[str, Any]:
    """The documents, and the answer that cites them by their places."""
    titles: dict[int, str] = {}
    passages: dict[int, list[str]] = {}
    for text in (text for claim in answer.claims for text in claim.evidence):
        if found := _EVIDENCE.fullmatch(text):
            number, passage = int(found[1]), (found[3] or "").strip()
            titles.setdefault(number, found[2].strip())
            if passage and passage not in passages.setdefault(number, []):
                passages[number].append(passage)
    output = answer.answer_string
    cited = {c.number for c in find_citations(output or "") if (output or "")[c.end - 1] == "]"}
    known = {number for number, texts in passages.items() if texts}
    if not known:
        return {"output": output}
    numbers = sorted(known | (cited & titles.keys()))
    places = {number: place for place, number in enumerate(numbers, start=1)}

    def moved(number: int) -> int:
        # What cites no document still cites none.
        return places.get(number, len(numbers) + 1 + number)

    docs = [{"title": titles[n], "text": "\n".join(passages.get(n, []))} for n in numbers]
    return {"docs": docs, "output": output and renumber_citations(output, moved)}


def relevant_documents(
    docs: tuple[Document, ...], shorter: str
) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """Documents whose shorter text (`summary`, `extraction`) does not call them irrelevant.

    Returns:
        Those up to the first document without such a text, which ends the choice; and that one,
        if there is one (`get_shorter_text` in ALCE's `utils.py`).
    """
    texts = [getattr(doc, shorter) for doc in docs]
    end = texts.index(None) if None in texts else len(docs)
    relevant = (i for i in range(end) if not re.search("[iI]rrelevant", texts[i]))
    return tuple(docs[i] for i in relevant), docs[end : end + 1]


def documents_field(row: Mapping[str, Any]) -> str:
    """The name of a row's documents: the first one that holds any, or that is there at all."""
    named = [name for name in DOCUMENTS if row.get(name) is not None]
    return next((name for name in named if row[name]), (*named, DOCUMENTS[0])[0])
