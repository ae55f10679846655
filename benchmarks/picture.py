"""A picture of the results: citepipe, its peers and the bound of the machine, case by case.

    python benchmarks/picture.py

Read from the result files of `engines.py vllm`, `train_trl.py` and `score.py`, so of one run each;
drawn to docs/pictures/benchmarks.png.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from common import RESULTS, argument_parser
from matplotlib import pyplot

from citepipe.report.curves import STYLE, save
from citepipe.report.figures import COLOURS, MARKS

FILES = {"engines_vllm.txt": "answers", "train_trl.txt": "a step", "score.txt": "verdicts"}
NAMES = {"ours": "citepipe", "vllm": "vLLM", "trl": "TRL", "trl, packed": "TRL, packed"}
BOUND = re.compile(r"(?:the bound is|GFLOP/s take) ([\d.]+) s")
WAY = re.compile(r"  (\w[\w, -]*?\w)(?: of 16)?  +(?:[\d.]+ tokens/s +)?([\d.]+) s\b")


class Case(NamedTuple):
    """What was timed: its heading, seconds by way of doing it, and the bound's seconds."""

    name: str
    seconds: dict[str, float]
    bound: float


def read_cases(text: str) -> list[Case]:
    """The cases of a result file that state a bound."""
    cases = []
    for block in text.split("\n\n"):
        bound, ways = BOUND.search(block), WAY.findall(block)
        if bound and ways:
            seconds = {way: float(figure) for way, figure in ways}
            name = re.split("[:;]|, random weights", block)[0].strip()
            cases.append(Case(name.upper() if len(name) < 5 else name, seconds, float(bound[1])))
    return cases


def main() -> None:
    """Draw every way's seconds as a multiple of the bound's."""
    parser = argument_parser(__doc__, None)
    parser.set_defaults(out=Path(__file__).parents[1] / "docs" / "pictures" / "benchmarks.png")
    arguments = parser.parse_args()
    cases = [
        case._replace(name=f"{kind}: {case.name}")
        for file, kind in FILES.items()
        for case in read_cases((RESULTS / file).read_text(encoding="utf-8"))
    ]
    ways = list(dict.fromkeys(way for case in cases for way in case.seconds))
    with pyplot.style.context(["default", STYLE]):
        figure, axes = pyplot.subplots(figsize=(7.5, 0.42 * len(cases) + 1.2), layout="constrained")
        for way, colour, mark in zip(ways, COLOURS, MARKS, strict=False):
            timed = [i for i, case in enumerate(cases) if way in case.seconds]
            times = [cases[i].seconds[way] / cases[i].bound for i in timed]
            axes.scatter(times, timed, c=colour, marker=mark, label=NAMES.get(way, way), zorder=2)
        axes.axvline(1, color="black", linewidth=1, label="the bound")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_yticks(range(len(cases)), [case.name for case in cases])
        axes.invert_yaxis()
        axes.set_xlabel("seconds, as a multiple of what the machine allows at best")
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
        save(figure, arguments.out)


if __name__ == "__main__":
    main()
