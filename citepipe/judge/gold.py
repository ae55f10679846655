"""Which gold answers an answer hits: by normalised string, or by entailment of claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from citepipe.data.example import Example
from citepipe.options import JudgeOptions
from citepipe.text.normalize import normalize_answer, remove_citations
from citepipe.text.statements import list_items
from citepipe.verify.base import Pair


@dataclass(frozen=True, slots=True)
class GoldVerdict:
    """Whether the gold answer at `index` (of qa_pairs, answers or claims) is in the answer."""

    index: int
    hit: bool


def claim_pairs(example: Example, text: str, question_first: bool) -> list[Pair]:
    """The pairs that decide on an example's claims; none for ASQA and QAMPARI.

    The premise has its citations removed once more, as in ALCE: `[[1]2` is `[2` after the first
    time.

    Args:
        example: whose claims.
        text: the answer without citations, the premise.
        question_first: whether claims get the question in front.
    """
    if example.dataset in ("asqa", "qampari"):
        return []
    lead = f"{example.question} " if question_first else ""
    return [Pair(remove_citations(text), lead + claim) for claim in example.claims]


def gold_verdicts(
    example: Example, text: str, entailed: Sequence[bool], options: JudgeOptions
) -> tuple[GoldVerdict, ...]:
    """A verdict per gold answer.

    Args:
        example: what was asked.
        text: the answer without citations.
        entailed: the decisions on `claim_pairs`.
        options: says whether an alias that normalises to nothing is hit.
    """
    if example.dataset == "asqa":
        hits = [
            string_hit(pair.short_answers, normalize_answer(text), options.empty_alias_hits)
            for pair in example.qa_pairs
        ]
    elif example.dataset == "qampari":
        found = set(predicted_items(text))
        hits = [any(normalize_answer(a) in found for a in aliases) for aliases in example.answers]
    else:
        hits = list(entailed)
    return tuple(GoldVerdict(index, hit) for index, hit in enumerate(hits))


def string_hit(aliases: Sequence[str], normalized: str, empty_alias_hits: bool) -> bool:
    """Whether some alias, normalised, is a substring of a normalised text (ALCE
    `exact_presence`)."""
    return any(
        alias in normalized and (alias != "" or empty_alias_hits)
        for alias in map(normalize_answer, aliases)
    )


def predicted_items(text: str) -> list[str]:
    """The items of a list answer, normalised, without those that normalise to nothing."""
    return [item for item in map(normalize_answer, list_items(text)) if item]
