"""Answers as the programs of EXPERTQA (Malaviya et al. 2024) read a system's answers.

Its repository (chaitanyamalaviya/ExpertQA) scores JSON lines of questions with answers by the names
of systems, in claims with evidence (`data_utils/example_utils.py`): `auto_attribution/autoais.py`
and all in `fact_score` take this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import write_jsonl
from citepipe.errors import InputError
from citepipe.text.normalize import normalize_answer
from citepipe.text.statements import Answer

# Filled in later by its programs, or by annotators.
_CLAIM_LABELS = (
    *("support", "reason_missing_support", "informativeness", "worthiness", "correctness"),
    *("reliability", "revised_claim", "revised_evidence", "atomic_claims", "atomic_evidences"),
    *("fact_score", "autoais_label"),
)
_ANSWER_LABELS = ("revised_answer_string", "usefulness", "annotation_time", "annotator_id")
_METADATA = ("question_type", "field", "specific_field")

# `convert_for_autoais.py` takes the evidence of these two for addresses, and fetches them.
_FETCHED = ("bing_chat", "gpt4")


def write_expertqa(
    path: Path, examples: Sequence[Example], answers: Sequence[Answer], name: str
) -> None:
    """Write answers, one per example, as those of one system, a question per line.

    A claim is a statement of the answer as it stands there; its evidence is `[number] title`, an
    empty line and the passage for every document that it cites, once each. Statements without a
    word besides their citations are passed over. What annotators and EXPERTQA's programs say of an
    answer is null; `compute_autoais_score.py` averages over claims with `support` "Complete" and
    `worthiness` "Yes" by an annotator: over none of a new system.

    Raises:
        InputError: a question of another dataset, or a name that EXPERTQA's programs treat in a
            way of its own.
    """
    if not name.strip() or name in _FETCHED:
        raise InputError(
            f"system name {name!r}: expected a name, and none of {', '.join(_FETCHED)}, whose "
            "evidence EXPERTQA's programs take for web addresses"
        )
    rows = []
    for example, answer in zip(examples, answers, strict=True):
        if example.dataset != "expertqa":
            raise InputError(
                f"example {example.id}, field dataset: expected expertqa, got {example.dataset}"
            )
        nested = example.extra.get("metadata")
        metadata = nested if isinstance(nested, Mapping) else example.extra
        rows.append(
            {
                "question": example.question,
                "annotator_id": str(example.extra.get("annotator_id") or ""),
                "answers": {name: _answer(example, answer)},
                "metadata": {key: str(metadata.get(key) or "") for key in _METADATA},
            }
        )
    write_jsonl(path, rows)


def _answer(example: Example, answer: Answer) -> dict[str, Any]:
    titles = [f"[{number}] {doc.title}" for number, doc in enumerate(example.docs, start=1)]
    claims = []
    for statement in answer.statements:
        cited = dict.fromkeys(citation.number for citation in statement.citations)
        docs = [(titles[n - 1], example.docs[n - 1]) for n in cited if 1 <= n <= len(titles)]
        if normalize_answer(statement.claim):
            # `autoais.py` reads an address or a title up to the empty line.
            passages = [f"{t}\n\n{doc.text if doc.sent is None else doc.sent}" for t, doc in docs]
            claim = {"claim_string": statement.text, "evidence": passages}
            claims.append({**claim, **dict.fromkeys(_CLAIM_LABELS)})
    labels = dict.fromkeys(_ANSWER_LABELS)
    return {"answer_string": answer.text, "attribution": titles, "claims": claims, **labels}
