"""How often a verifier agrees with people: accuracy on a file in AttributionBench's layout.

AttributionBench (Li et al. 2024) asked people whether a claim is attributable to its references.
The file has a JSON object per line with `claim`, `references` (a list of passages),
`attribution_label` (`attributable` or `not attributable`) and `src_dataset`. A pair's premise is
its references, a line break between two, and its hypothesis the claim without its citations.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citepipe.errors import InputError
from citepipe.text.statements import remove_citations
from citepipe.verify.base import Pair, load_verifier

LABELS = {"attributable": True, "not attributable": False}
_EXAMPLES = """examples:
  python benchmarks/lexical.py attributionbench_dev.jsonl
  python benchmarks/lexical.py dev.jsonl --verifier 'models/t5?dtype=bfloat16' --device cuda
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A pair, whether people found the claim attributable, and the data set that it is from."""

    pair: Pair
    attributable: bool
    source: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Compare a verifier with the human labels of AttributionBench.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="AttributionBench rows, a JSON object per line")
    parser.add_argument(
        "--verifier", default="lexical", metavar="SPEC", help="as in `citepipe score`; %(default)s"
    )
    parser.add_argument("--device", default="auto", help="where a model runs; default: auto")
    parsed = parser.parse_args(arguments)
    try:
        rows = read_rows(parsed.file)
        verifier = load_verifier(parsed.verifier, device=parsed.device)
        # The first call imports what a verifier imports late; it is no part of the speed.
        verifier.entails([Pair("Anna lived in Oslo.", "Anna lived in Oslo.")])
        began = time.perf_counter()
        decisions = verifier.entails([row.pair for row in rows])
        seconds = time.perf_counter() - began
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(table(rows, decisions)))
    print(f"verifier {verifier.name}: {len(rows) / max(seconds, 1e-9):.0f} pairs/s")
    return 0


def read_rows(path: Path) -> list[Row]:
    """Read the pairs and their labels.

    Raises:
        InputError: there is no such file, or a line is no such object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    rows = [_row(f"{path}, line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"{path}: expected a JSON object per line, found none")
    return rows


def _row(where: str, line: str) -> Row:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise InputError(f"{where}: not JSON") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object")
    references = row.get("references")
    if not isinstance(references, list) or not all(isinstance(r, str) for r in references):
        raise InputError(f"{where}, references: expected a list of texts")
    label = _text(where, row, "attribution_label")
    if label not in LABELS:
        raise InputError(
            f"{where}, attribution_label: expected one of {', '.join(LABELS)}, got {label!r}"
        )
    claim = remove_citations(_text(where, row, "claim")).strip()
    pair = Pair("\n".join(references), claim)
    return Row(pair, LABELS[label], _text(where, row, "src_dataset"))


def _text(where: str, row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        raise InputError(f"{where}, {field}: expected a text")
    return value


def table(rows: Sequence[Row], decisions: Sequence[bool]) -> list[str]:
    """Lines with the agreement by source and in all, in percent.

    `majority` is the accuracy of always giving the more frequent label; precision and recall are
    of `attributable`, and nan where nothing is.
    """
    lines = [
        f"{'source':20}{'pairs':>7}{'accuracy':>10}{'majority':>10}{'precision':>11}{'recall':>8}"
        f"{'yes':>6}{'right':>7}"
    ]
    for source in [*sorted({row.source for row in rows}), None]:
        chosen = [
            (row.attributable, decision)
            for row, decision in zip(rows, decisions, strict=True)
            if source in (None, row.source)
        ]
        yes = sum(decision for _, decision in chosen)
        true = sum(label for label, _ in chosen)
        right = sum(label and decision for label, decision in chosen)
        agreed = sum(label == decision for label, decision in chosen)
        lines.append(
            f"{source or 'all':20}{len(chosen):7}{_percent(agreed, len(chosen)):10.1f}"
            f"{_percent(max(true, len(chosen) - true), len(chosen)):10.1f}"
            f"{_percent(right, yes):11.1f}{_percent(right, true):8.1f}{yes:6}{right:7}"
        )
    return lines


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")


if __name__ == "__main__":
    sys.exit(main())
