"""The prompt and the scores of `citepipe_asqa.yaml`, a task of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from citepipe.data.example import Example
from citepipe.data.prompts import render
from citepipe.library import score
from citepipe.options import TemplateOptions

DOCUMENTS = 5
"""Of a question, at most; ALCE's files have 100."""
VERIFIER = "lexical"
"""As in `citepipe score --verifier`; ALCE's is `google/t5_xxl_true_nli_mixture`."""


def prompt(row: Mapping[str, Any]) -> str:
    """A question with its documents in ALCE's layout."""
    return render(Example.from_row(_shown(row), "row", "asqa"), TemplateOptions())


def scores(row: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
    """The metrics of the answer to a row, in percent; an empty one has none of citations."""
    answered = {**_shown(row), "output": answers[0].strip()}
    [own] = score(answered, VERIFIER, dataset="asqa", resamples=1)["per_example"]
    return {name: own[name] for name in ("citation_rec", "citation_prec", "str_em") if name in own}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "docs": row["docs"][:DOCUMENTS]}
