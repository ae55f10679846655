"""Rows of EXPERTQA's own files (Malaviya et al. 2024): `r2_compiled_anon.jsonl` and its splits.

There a row has a question and the answers of systems by their names. An answer is cut into claims,
which annotators have judged and revised; a claim's evidence is `[number] address` or, where the
passage is known, `[number] address`, an empty line and the passage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from citepipe.data.fields import Fields, kind_of, shown

_EVIDENCE = re.compile(r"\s*\[(\d{1,6})\][ \t]*([^\n]*)(?:\n(.*))?", re.DOTALL)
_CITATION = re.compile(r" ?\[(\d{1,6})\]")


def is_expertqa_row(row: Mapping[str, Any]) -> bool:
    """Whether a row is laid out as in EXPERTQA's own files."""
    return isinstance(row.get("answers"), dict)


def plain_row(fields: Fields, documents: bool) -> dict[str, Any]:
    """The row with the fields that all others have.

    Of several systems' answers the first counts that an annotator has revised, or else the first.
    It becomes `output`; the passages of its evidence become the documents, in the order of their
    numbers, titled by their addresses. Numbers without a passage that nothing cites are passed
    over, and the citations follow; one that is cited is a document without text. The revised
    answer, without citations, is the human answer, and its claims are the gold ones. Where all
    evidence is addresses, as of two of the six systems, there are no documents.

    Args:
        fields: of the row.
        documents: whether the row has documents of its own, which its answer does not cite.
    """
    answers = {
        name: fields.inside(f"answers.{shown(name)}", answer)
        for name, answer in fields.row["answers"].items()
        if _is_object(fields, f"answers.{shown(name)}", answer)
    }
    others = {key: value for key, value in fields.row.items() if key != "answers"}
    plain: dict[str, Any] = {"dataset": "expertqa", **others}
    if not documents:
        plain["docs"] = []
    if not answers:
        return plain
    revised = [a for a in answers.values() if a.row.get("revised_answer_string") is not None]
    chosen = (revised or list(answers.values()))[0]
    answer = chosen.optional("revised_answer_string", str)
    claims = [
        chosen.inside(f"claims[{number}]", claim) for number, claim in chosen.each("claims", dict)
    ]
    if answer is not None:
        kept = [_without_citations(c.optional("revised_claim", str) or "") for c in claims]
        plain |= {
            "answer": _without_citations(answer),
            "claims": [claim for claim in kept if claim],
        }
    written = chosen.optional("answer_string", str)
    if not documents:
        evidence = [
            text
            for claim in claims
            for text in claim.strings("evidence", claim.row.get("evidence") or [])
        ]
        plain |= _with_documents(written, evidence)
    return plain


def _is_object(fields: Fields, name: str, value: Any) -> bool:
    if not isinstance(value, dict):
        fields.complain(f", field {name}: expected an object, got {kind_of(value)}")
    return isinstance(value, dict)


def _without_citations(text: str) -> str:
    return " ".join(_CITATION.sub("", text).split())


def _with_documents(written: str | None, evidence: list[str]) -> dict[str, Any]:
    """The documents and the answer that cites them by their places."""
    titles: dict[int, str] = {}
    passages: dict[int, list[str]] = {}
    for text in evidence:
        found = _EVIDENCE.fullmatch(text)
        if found is None:
            continue
        number, passage = int(found[1]), (found[3] or "").strip()
        titles.setdefault(number, found[2].strip())
        if passage and passage not in passages.setdefault(number, []):
            passages[number].append(passage)
    cited = {int(number) for number in _CITATION.findall(written or "")}
    known = {number for number, texts in passages.items() if texts}
    if not known:
        return {"docs": [], "output": written}
    shown = sorted(known | (cited & titles.keys()))
    places = {number: place for place, number in enumerate(shown, start=1)}

    def moved(citation: re.Match[str]) -> str:
        number = int(citation[1])
        # What cites no document still cites none.
        return citation[0].replace(citation[1], str(places.get(number, len(shown) + 1 + number)))

    return {
        "docs": [
            {"title": titles[number], "text": "\n".join(passages.get(number, []))}
            for number in shown
        ],
        "output": None if written is None else _CITATION.sub(moved, written),
    }
