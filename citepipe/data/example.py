"""An example: a question, its documents, its gold answers, and perhaps somebody's cited answer.

The fields are those of ALCE's files and of the authors' training files (`combined_train.json`);
rows of a user's own may have other names for them (`NAMES`), and documents that are plain strings.
"""

from __future__ import annotations

import ast
import json
import re
import tokenize
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import accumulate, pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, TypeAdapter

from citepipe.data.validate import RowError, kind_of, present, shown, validated
from citepipe.text.citations import as_number, find
from citepipe.text.sentences import Span, Splitter
from citepipe.text.statements import Answer, Rules, read_answer, renumber_citations

DATASETS = ("asqa", "qampari", "eli5", "expertqa", "own")
"""`own`: answers in sentences to anybody's questions, with whatever references there are."""

NAMES = {
    "question": ("question", "query", "user_input", "input", "topic", "narrative"),
    "docs": (
        *("docs", "documents", "passages", "contexts", "retrieved_contexts", "retrieval_context"),
        *("context", "ctxs", "sources", "chunks"),
    ),
    "output": ("output", "response", "actual_output", "generated_answer", "prediction"),
    "answer": ("answer", "reference", "ground_truth", "ground_truths", "expected_output"),
}
"""The names of fields that have several; the first is ALCE's."""

IDS = ("id", "sample_id", "qid", "query_id", "question_id", "topic_id")

TEXTS = ("text", "passage", "content", "contents", "page_content", "segment", "snippet", "chunk")
"""The names of a document's text; the first is ALCE's."""

_LISTS = ("annotations", "qa_pairs", "answers", "claims")
READ = frozenset({"id", "dataset", *NAMES, *_LISTS})
"""The fields of a row that are read, by ALCE's names."""

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
    id: Annotated[
        str | None, BeforeValidator(str), Field(validation_alias=AliasChoices("id", "docid"))
    ] = None
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
        id: unique within its file; the row's place there if `is_numbered`, as it has none.
        dataset: one of `DATASETS`; decides how statements are split and what counts as correct.
        docs: the documents in the order in which they are numbered, from `[1]`.
        output: a cited answer (the teacher's, or a system's), or None.
        parts: the statements of an `output` that came as a list of them.
        answer: a human long answer, or None.
        long_answers: ASQA's reference paragraphs (`annotations[].long_answer`).
        qa_pairs: ASQA's readings with their short answers.
        answers: QAMPARI's answers, each a tuple of aliases.
        claims: ELI5's claims (EXPERTQA: sub-claims of the revised answer).
        is_first: `output` is the first of several in the row.
        extra: the row's other fields, written back unchanged.
    """

    id: Annotated[str, BeforeValidator(str)]
    dataset: Annotated[str, AfterValidator(_dataset)]
    question: Annotated[str, Field(validation_alias=AliasChoices(*NAMES["question"]))]
    docs: Annotated[tuple[DocumentRow, ...], Field(validation_alias=AliasChoices(*NAMES["docs"]))]
    output: Annotated[
        str | None,
        BeforeValidator(_output),
        Field(validation_alias=AliasChoices(*NAMES["output"])),
    ] = None
    answer: Annotated[str | None, Field(validation_alias=AliasChoices(*NAMES["answer"]))] = None
    long_answers: Annotated[
        tuple[Annotated[str, BeforeValidator(_long_answer)], ...],
        Field(validation_alias="annotations"),
    ] = ()
    qa_pairs: tuple[Annotated[QAPair, BeforeValidator(_reading)], ...] = ()
    answers: tuple[Annotated[tuple[str, ...], BeforeValidator(_aliases)], ...] = ()
    claims: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict, compare=False)
    parts: tuple[str, ...] = field(default=(), compare=False)
    is_numbered: bool = field(default=False, compare=False)
    is_first: bool = field(default=False, compare=False)

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

        A user's row may have other `NAMES`, documents that are plain strings or without titles,
        and `answers` that are strings. Answers of an ASQA-like row without readings (`qa_pairs`)
        are one reading each. `answer` is a human answer, but what a system said if nothing else is
        and the row is `own` or has a reference by another name (RAGAS). A null field counts as
        absent.

        Args:
            row: the decoded JSON object, or the error that it cannot be decoded, which is raised.
            where: how to name the row in errors, for instance `train.json, row 3`.
            dataset: the dataset of rows that do not name theirs (ALCE's own files).
            number: the row's place in its file, the id of rows that have none.
            needs_documents: a row must have a list of documents, be it empty.
            own_as: the dataset as which a row counts that nothing assigns to one; one with readings
                (`qa_pairs`) is like ASQA's all the same. None refuses it.

        Raises:
            RowError: fields are missing or of the wrong type, all of them named in its lines.
        """
        if isinstance(row, Exception):
            raise row
        if isinstance(row, dict):
            if isinstance(row.get("answers"), dict):
                row = _plain(row, where)
            row, parts = _joined(row, where)
            named = {name: field_of(row, name) for name in NAMES}
            own_as = "asqa" if own_as is not None and row.get("qa_pairs") else own_as
            assigned = row.get("dataset") or dataset or own_as or ""
            reference = field_of(row, "answer", 1)
            if (
                row.get(named["output"]) is None
                and row.get("answer") is not None
                and (assigned == "own" or row.get(reference) is not None)
            ):
                row = {k: v for k, v in row.items() if k != "answer"} | {"output": row["answer"]}
                named |= {"output": "output", "answer": reference}
            read = {*(READ - NAMES.keys()), *named.values()}
            fields = {name: row[name] for name in read if row.get(name) is not None}
            several = fields.get(named["answer"])
            if isinstance(several, list) and named["answer"] != "answer":
                del fields[named["answer"]]
                fields["annotations"] = [{"long_answer": text} for text in several]
            if named["docs"] != "docs" and isinstance(fields.get(named["docs"]), str):
                fields[named["docs"]] = [fields[named["docs"]]]
            fields["dataset"] = assigned
            identity = next((row[name] for name in IDS if row.get(name) is not None), None)
            fields |= {"id": number if identity is None else identity, "parts": parts}
            written = fields.get(named["output"])
            fields["is_first"] = isinstance(written, list) and len(written) > 1
            fields["is_numbered"] = identity is None
            fields["extra"] = {name: value for name, value in row.items() if name not in read}
            row = fields if needs_documents else {named["docs"]: [], **fields}
        try:
            example = validated(_EXAMPLE, row, where)
        except RowError as error:
            raise RowError([_with_names(line) for line in error.lines]) from None
        if example.dataset in ("asqa", "own") and not (example.qa_pairs or example.claims):
            readings = tuple(QAPair(example.question, aliases) for aliases in example.answers)
            example = replace(example, qa_pairs=readings)
        return example

    @property
    def judged_as(self) -> str:
        """The dataset whose rules find its gold answers: `own` has ASQA's for short answers, else
        ELI5's."""
        return ("asqa" if self.qa_pairs else "eli5") if self.dataset == "own" else self.dataset

    def read(
        self, raw: str, splitter: Splitter, rules: Rules = "sane", noting: bool = False
    ) -> Answer:
        """An answer to the question, read with the documents' titles (`read_answer`), and split
        into its `parts` if it is the one that came in them."""
        titles = [doc.title for doc in self.docs]
        parts: tuple[Span, ...] = ()
        if self.parts and raw == " ".join(self.parts):
            ends = accumulate(len(part) + 1 for part in self.parts)
            parts = tuple((e - 1 - len(p), e - 1) for p, e in zip(self.parts, ends, strict=True))
        answer = read_answer(raw, self.dataset, splitter, rules, titles, noting, parts)
        if self.is_first and raw == self.output:
            answer = answer._replace(notes=answer.notes | {"several"})
        return answer

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
    has_own = any(row.get(name) for name in NAMES["docs"])
    fields = {**row, "dataset": row.get("dataset", "expertqa"), "answers": None}
    fields |= {} if has_own else {"docs": []}
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
    notations = find(output or "", 0, len(output or "")).notations
    cited = {citation.number for notation in notations for citation in notation.citations}
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


def field_of(row: Mapping[str, Any], field: str, begin: int = 0) -> str:
    """The name that a row has for a field, of `NAMES[field][begin:]`: the first one that holds
    anything, or that is there at all."""
    names = NAMES[field][begin:]
    named = [name for name in names if row.get(name) is not None]
    return next((name for name in named if row[name]), (*named, names[0])[0])


def _with_names(line: str) -> str:
    """A complaint that a field is missing, with the other names that it may have."""
    for name, (_, *others) in NAMES.items():
        if line.endswith(f", field {name}: missing"):
            return f"{line} (also read as {', '.join(others)})"
    return line


@dataclass(frozen=True, slots=True)
class _Part:
    text: str
    citations: tuple[int | str, ...] = ()


_PARTS = TypeAdapter(dict[str, tuple[Annotated[_Part, BeforeValidator(present)], ...]])


def _joined(row: dict[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A row whose answer is a list of `{text, citations}`, as in TREC RAG, with the answer as one
    text, and its parts.

    There citations are places, from 0, in `references`, which lists ids of documents; without
    `references`, places in the row's documents, or their ids.
    """
    name = next((n for n in (*NAMES["output"], "answer") if _is_split(row.get(n))), None)
    if name is None:
        return row, ()
    if isinstance(row.get("metadata"), dict):
        row = row["metadata"] | row
    listed = field_of(row, "docs")
    docs, references = (_as_list(row.get(name)) for name in (listed, "references"))
    ids = [str(d.get("id", d.get("docid", ""))) if isinstance(d, dict) else "" for d in docs]
    if not docs and not all(isinstance(r, str) and " " not in r.strip() for r in references):
        docs = list(references)
    elif references and any(ids):
        # What is listed comes first, in the order of the list; without a passage, it has no text.
        places = [ids.index(str(r)) if str(r) in ids else None for r in references]
        others = [doc for place, doc in enumerate(docs) if place not in places]
        docs = [
            {"id": r, "text": ""} if p is None else docs[p]
            for r, p in zip(references, places, strict=True)
        ] + others
        ids = list(map(str, references))

    def number(cited: int | str) -> int:
        place = as_number(str(cited)) if str(cited).isdecimal() else len(docs)
        if str(cited) in ids and not place < len(references):
            place = ids.index(str(cited))
        return min(place, len(docs)) + 1

    parts = []
    for part in validated(_PARTS, {name: row[name]}, where)[name]:
        cited = "".join(f"[{number(c)}]" for c in part.citations)
        parts.append(" ".join([*part.text.split(), *([cited] if cited else [])]))
    joined = {k: v for k, v in row.items() if k not in (name, listed, "references")}
    return joined | {"docs": docs, "output": " ".join(parts)}, tuple(parts)


def _is_split(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return bool(value) and all(isinstance(part, dict) and "text" in part for part in value)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


_NUMBERED = re.compile(r"(?:doc|document|passage|context|source|chunk)s?_?(\d+)")


def from_cells(names: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """A row of a table as a row of JSON: lists are JSON, or as Python prints them, or else one
    thing; `doc_1`, `doc_2`, … are documents; an empty cell is absent, but an answer that is empty.
    """
    row: dict[str, Any] = {}
    numbered: dict[int, str] = {}
    for name, cell in zip(names, cells, strict=True):
        if not name or (not cell and name not in (*NAMES["output"], "answer")):
            continue
        if found := _NUMBERED.fullmatch(name):
            numbered[as_number(found[1])] = cell
        elif name in (*NAMES["docs"], *_LISTS, "references", "ground_truths"):
            row[name] = _as_list(_decoded(cell))
        else:
            row[name] = _decoded(cell) if cell.startswith("[{") else cell
    if numbered:
        row.setdefault("docs", [numbered[n] for n in sorted(numbered)])
    return row


def _printed(cell: str) -> Any:
    """What Python, or numpy, which puts no commas between the strings of a list, has printed."""
    tokens = list(tokenize.generate_tokens(StringIO(cell).readline))
    tokens = [token for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE)]
    pairs = pairwise(token.type == tokenize.STRING for token in tokens)
    if any(one and other for one, other in pairs):
        return [ast.literal_eval(t.string) for t in tokens if t.type == tokenize.STRING]
    return json.loads(json.dumps(ast.literal_eval(cell), default=list))


def _decoded(cell: str) -> Any:
    for read in (json.loads, _printed):
        if cell.lstrip()[:1] in ("[", "{"):
            with suppress(ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError):
                return read(cell)
    return cell
