"""How do time and memory of commands grow with the number of answers?

    python benchmarks/growth.py [--most 10000]

`citepipe score` and `check` of answers with five passages of a hundred words, judged by `lexical`,
and `compare` and `report` of two score files of them. Every command runs in a process of its own;
counted are its processor seconds and its peak memory. The exponent is that of the last tenfold
growth: 1 is in proportion.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common import Report, argument_parser, verdict
from odd_answers import wordy_examples

from citepipe.data.files import write_result

_LARGEST_EXPONENT = 1.1


def main() -> int:
    parser = argument_parser(__doc__, "growth.txt")
    parser.add_argument("--most", type=int, default=10_000, help="answers of the largest file")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1"}
    report = Report(arguments.out, "numpy", "spacy", "nltk")
    sizes = [100 * 10**i for i in range(9) if 100 * 10**i <= arguments.most]
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            folder = Path(name, str(size))
            folder.mkdir()
            for command, words in _commands(folder, size).items():
                found.setdefault(command, []).append(_run([command, *words], folder))
    report(f"\n{'answers':<10}" + "".join(f"{size:>18,}" for size in sizes) + "   exponents")
    linear = True
    for command, own in found.items():
        exponents = [math.log10(b / a) for a, b in zip(own[-2], own[-1], strict=True)]
        linear &= max(exponents) < _LARGEST_EXPONENT
        cells = "".join(f"{seconds:>9.1f} s{mib:>5.0f} MB" for seconds, mib in own)
        shown = ", ".join(f"{exponent:.2f}" for exponent in exponents)
        report(f"{command:<10}{cells}   {shown}")
    report(f"no exponent above {_LARGEST_EXPONENT}: {verdict(linear)}")
    return 0 if linear else 1


def _commands(folder: Path, size: int) -> dict[str, list[str]]:
    """Each command's arguments, in the order in which one needs another's files."""
    examples = wordy_examples(size, 100, several=0.2, seed=0)
    first = [replace(e, output=re.sub(r"\[\d\]", "[1]", e.output or "")) for e in examples]
    for name, own in (("a", examples), ("b", first)):
        write_result(folder / f"{name}.json", {"dataset": "asqa"}, own)
    _run(["score", "b.json", "--json", "b_scores.json"], folder)
    scores = ["a_scores.json", "b_scores.json"]
    return {
        "score": ["a.json", "--json", "a_scores.json"],
        "check": ["a.json"],
        "compare": scores,
        "report": [*scores, "a.json", "b.json"],
    }


def _run(command: list[str], folder: Path) -> tuple[float, float]:
    """Processor seconds and peak memory (MB) of a command of citepipe's."""
    path = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    process = subprocess.Popen(
        [sys.executable, "-m", "citepipe.cli", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {status}")
    # Linux counts in KiB.
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    raise SystemExit(main())
