"""How often a verifier agrees with people: accuracy on a file of labelled pairs.

    python benchmarks/lexical.py attributionbench_dev.jsonl
    python benchmarks/lexical.py quotes.jsonl --out benchmarks/results/quotes.txt
    python benchmarks/lexical.py dev.jsonl --verifier 'models/t5?dtype=bfloat16'

AttributionBench (Li et al. 2024) asked people whether a claim is attributable to its references.
The file has a JSON object per line with `claim`, `references` (a list of passages),
`attribution_label` (`attributable` or `not attributable`) and `src_dataset`. A pair's premise is
its references, a line break between two, and its hypothesis the claim without its citations.

Rows may also have `title`, `document`, `sentence`, `supported` and `kind`: a sentence that a
document has word for word, or that was changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common import Clock, Report, argument_parser

from citepipe.data.example import Document
from citepipe.text.statements import remove_citations
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier

_LABELS = {"attributable": True, "not attributable": False}


def main() -> int:
    parser = argument_parser(__doc__, None)
    parser.add_argument("file", type=Path, help="AttributionBench rows, a JSON object per line")
    parser.add_argument("--verifier", default="lexical", help="as in `citepipe score`")
    arguments = parser.parse_args()
    lines = arguments.file.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    sources, labels, pairs = zip(*map(_labelled, rows), strict=True)
    verifier = load_verifier(arguments.verifier)
    # The first call imports what a verifier imports late; it is no part of the speed.
    verifier.entails([Pair("Anna lived in Oslo.", "Anna lived in Oslo.")])
    clock = Clock()
    with clock.timing("decisions"):
        decisions = verifier.entails(pairs)
    labelled = list(zip(sources, labels, decisions, strict=True))
    report = Report(arguments.out)
    report(
        f"{'source':22}{'pairs':>7}{'accuracy':>10}{'majority':>10}{'precision':>11}{'recall':>8}"
        f"{'yes':>6}{'right':>7}"
    )
    for source in [*sorted({source for source, _, _ in labelled}), None]:
        chosen = [(label, own) for name, label, own in labelled if source in (None, name)]
        report(f"{source or 'all':22}{_agreement(chosen)}")
    report(f"verifier {verifier.name}: {len(rows) / clock.median('decisions'):.0f} pairs/s")
    return 0


def _labelled(row: dict[str, Any]) -> tuple[str, bool, Pair]:
    """Where a row is from, its label and its pair."""
    if "sentence" in row:
        passage = Document(row["title"], row["document"]).passage
        return row["kind"], row["supported"], Pair(passage, row["sentence"])
    claim = remove_citations(row["claim"]).strip()
    label = _LABELS[row["attribution_label"]]
    return row["src_dataset"], label, Pair("\n".join(row["references"]), claim)


def _agreement(chosen: list[tuple[bool, bool]]) -> str:
    """The figures of some (label, decision), in percent.

    `majority` is the accuracy of always giving the more frequent label; precision and recall are
    of `attributable`, and nan where nothing is.
    """
    count, true = len(chosen), sum(label for label, _ in chosen)
    yes = sum(decision for _, decision in chosen)
    right = sum(label and decision for label, decision in chosen)
    agreed = sum(label == decision for label, decision in chosen)

    def percent(part: int, whole: int) -> float:
        return 100 * part / whole if whole else float("nan")

    return (
        f"{count:7}{percent(agreed, count):10.1f}{percent(max(true, count - true), count):10.1f}"
        f"{percent(right, yes):11.1f}{percent(right, true):8.1f}{yes:6}{right:7}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
