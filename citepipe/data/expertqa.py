"""Rows of EXPERTQA's own files (Malaviya et al. 2024): `r2_compiled_anon.jsonl` and its splits.

There a row has a question and the answers of systems by their names. An answer is cut into claims,
which annotators have judged and revised; a claim's evidence is `[number] address` or, where the
passage is known, `[number] address`, an empty line and the passage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from citepipe.data.validate import present, validated
from citepipe.text.statements import find_citations, renumber_citations

_EVIDENCE = re.compile(r"\s*\[(\d{1,6})\][ \t]*([^\n]*)(?:\n(.*))?", re.DOTALL)


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
class _Row:
    answers: dict[str, Annotated[_Answer, BeforeValidator(present)]]


_ROW = TypeAdapter(_Row)


def gold_and_documents(answers: Any, where: str, with_documents: bool) -> dict[str, Any]:
    """What the answers of a row are in the fields that all other rows have.

    Of several systems' answers the first counts that an annotator has revised, or else the first.
    It becomes `output`; the passages of its evidence become the documents, in the order of their
    numbers, titled by their addresses. Numbers without a passage that nothing cites are passed
    over, and the citations follow; one that is cited is a document without text. The revised
    answer, without citations, is the human answer, and its claims are the gold ones. Where all
    evidence is addresses, as of two of the six systems, there are no documents.

    Args:
        answers: by the names of systems.
        where: how the row is named in errors.
        with_documents: whether `output` and `docs` are wanted; not if the row has documents of
            its own, which its answer does not cite.

    Raises:
        RowError: the answers are not laid out so.
    """
    read = list(validated(_ROW, {"answers": answers}, where).answers.values())
    if not read:
        return {}
    chosen = next((a for a in read if a.revised_answer_string is not None), read[0])
    fields: dict[str, Any] = {}
    if chosen.revised_answer_string is not None:
        claims = [_without_citations(claim.revised_claim) for claim in chosen.claims]
        fields["answer"] = _without_citations(chosen.revised_answer_string)
        fields["claims"] = list(filter(None, claims))
    return fields | (_cited(chosen) if with_documents else {})


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
