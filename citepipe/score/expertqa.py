"""Answers as the programs of EXPERTQA (Malaviya et al. 2024) read a system's answers.

Its repository (chaitanyamalaviya/ExpertQA) labels and scores JSON lines of questions with answers
by the names of systems, each answer in claims with their evidence (`data_utils/example_utils.py`):
`modeling/auto_attribution/autoais.py` and all in `modeling/fact_score` take this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.data.files import write_jsonl
from citepipe.errors import InputError
from citepipe.text.normalize import normalize_answer
from citepipe.text.sentences import Splitter
from citepipe.text.statements import Statement, split_answer

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
    path: Path, examples: Sequence[Example], texts: Sequence[str], splitter: Splitter, name: str
) -> None:
    """Write cleaned answers, one per example, as those of one system, a question per line.

    A claim is a statement of the answer as it stands there, citations included; its evidence is
    `[number] title`, an empty line and the passage for every document that it cites, once each,
    in the order of the text. Numbers of no document are passed over, and so are statements that
    have no word besides their citations.

    `annotator_id` and the metadata (under `metadata` or beside it) are those of the row, empty if
    it has none. What annotators and EXPERTQA's programs say of an answer and its claims is null.
    `autoais.py` labels every claim, but `compute_autoais_score.py` averages only over claims that
    an annotator has labelled with `support` "Complete" and `worthiness` "Yes": over none of a new
    system.

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
    for example, text in zip(examples, texts, strict=True):
        if example.dataset != "expertqa":
            raise InputError(
                f"example {example.id}, field dataset: expected expertqa, got {example.dataset}"
            )
        metadata = example.extra.get("metadata")
        if not isinstance(metadata, Mapping):
            metadata = example.extra
        rows.append(
            {
                "question": example.question,
                "annotator_id": str(example.extra.get("annotator_id") or ""),
                "answers": {name: _answer(example, text, splitter)},
                "metadata": {key: str(metadata.get(key) or "") for key in _METADATA},
            }
        )
    write_jsonl(path, rows)


def _answer(example: Example, text: str, splitter: Splitter) -> dict[str, Any]:
    titles = [f"[{number}] {doc.title}" for number, doc in enumerate(example.docs, start=1)]
    # What `autoais.py` reads: behind the number, up to an empty line, an address or a title.
    passages = [
        f"{title}\n\n{doc.text if doc.sent is None else doc.sent}"
        for title, doc in zip(titles, example.docs, strict=True)
    ]

    def evidence(statement: Statement) -> list[str]:
        cited = dict.fromkeys(citation.number for citation in statement.citations)
        return [passages[number - 1] for number in cited if 1 <= number <= len(passages)]

    return {
        "answer_string": text,
        "attribution": titles,
        "claims": [
            {
                "claim_string": statement.text,
                "evidence": evidence(statement),
                **dict.fromkeys(_CLAIM_LABELS),
            }
            for statement in split_answer(text, example.dataset, splitter)
            if normalize_answer(statement.claim)
        ],
        **dict.fromkeys(_ANSWER_LABELS),
    }
