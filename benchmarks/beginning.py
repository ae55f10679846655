"""How long does a command take before it does anything? Now, and at a commit before.

    python benchmarks/beginning.py --before COMMIT [--passages qa_feedback_dev_500.json]

With rows of questions and passages there is a table of 1,000 answers to them more, of sentences of
the passages, two thirds of them with an edit or more, so that `lexical` must read the passages.

Every command runs by turns from this tree and from a worktree of the other commit, in processes of
its own and in the same environment. Counted are processor seconds, user's and system's, the least
of all rounds: on a busy machine they are too many and never too few.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attack import Edits
from common import Report, argument_parser, verdict
from entailment import MINIATURE, labelled_pairs, make_random
from odd_answers import wordy_examples

from citepipe.data.files import write_result

ROOT = Path(__file__).parents[1]
_SHOWN = 8
# As in an environment of requirements.lock, which does not have SLURM's plugin.
_SNAKEMAKE = (
    "import pkgutil, sys; listed = pkgutil.iter_modules\n"
    "pkgutil.iter_modules = lambda *a: [m for m in listed(*a) if 'slurm' not in m.name]\n"
    "from snakemake.cli import main; main(sys.argv[1:])"
)


class Row(NamedTuple):
    """A command of Python's: what it is, its arguments, those of the commit before if they are
    others, and the seconds that it should stay below."""

    what: str
    now: Sequence[str]
    before: Sequence[str] | None = None
    bar: float | None = None


def main() -> int:
    parser = argument_parser(__doc__, "beginning.txt")
    parser.add_argument("--before", default="16814b7", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, by turns")
    parser.add_argument("--passages", type=Path, help="rows with `question` and `docs`, in JSON")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    report = Report(arguments.out, "spacy", "nltk", "torch", "transformers", "snakemake")
    report(f"before: {arguments.before}; the least processor seconds of {arguments.rounds}")
    report(f"\n{'':<52}{'before':>8}{'now':>8}{'ratio':>8}   bar")
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder, "before")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", other, arguments.before], check=True)
        try:
            for row in _rows(Path(folder), arguments.passages):
                reached &= _measure(row, other, arguments.rounds, report)
        finally:
            subprocess.run([*git, "remove", "--force", other], check=True)
        report("\n* imports torch")
        _imports(Path(folder, "ten.json"), report)
    return 0 if reached else 1


def _rows(folder: Path, passages: Path | None) -> list[Row]:
    examples = wordy_examples(1000, 100, several=0.2, seed=0)
    ten, thousand = folder / "ten.json", folder / "thousand.json"
    write_result(ten, {"dataset": "asqa"}, examples[:10])
    write_result(thousand, {"dataset": "asqa"}, examples)
    model = make_random(folder / "t5", labelled_pairs(examples[:50]), MINIATURE)
    model.model.save_pretrained(model.directory)
    (folder / "Snakefile").write_text("rule all:\n    shell: 'true'\n")
    one_rule = ["-n", "-s", str(folder / "Snakefile"), "-d", str(folder)]
    cli = ("-m", "citepipe.cli")
    warm = (*cli, "score", str(thousand), "--device", "cpu", "--verifier", str(model.directory))
    caches = [("--cache", str(folder / f"{when}.sqlite")) for when in ("now", "before")]
    return [
        Row("python, nothing done", ["-c", "pass"]),
        Row("import citepipe", ["-c", "import citepipe"], bar=0.3),
        Row("citepipe --help", [*cli, "--help"], bar=0.1),
        Row("citepipe score, lexical, 10 answers", [*cli, "score", str(ten)], bar=1.5),
        Row(
            "… 1,000 answers, a model, all decisions known",
            *([*warm, *cache] for cache in caches),
            bar=2.0,
        ),
        *([] if passages is None else [_edited(passages, folder / "edited.csv")]),
        Row(
            "snakemake -n, a workflow of one rule",
            ["-c", _SNAKEMAKE, *one_rule],
            ["-m", "snakemake", *one_rule],
        ),
        Row(
            "snakemake -n, the default",
            ["-c", _SNAKEMAKE, "-n", "results/table.csv"],
            ["-m", "snakemake", "-n", "results/table.csv"],
            bar=2.0,
        ),
        *(
            Row(f"a stage's imports: {name}", ["-c", f"import citepipe.{name}"])
            for name in ("sample.job", "train.sft", "train.rl")
        ),
    ]


def _edited(passages: Path, table: Path) -> Row:
    """`citepipe score` of answers that mostly are not word for word what they cite."""
    rng, rows = random.Random(0), []
    asked = json.loads(passages.read_text(encoding="utf-8"))
    for row in (asked * 1000)[:1000]:
        docs = [doc for doc in row["docs"] if Edits([doc["text"]], rng).sentences]
        said = []
        for _ in range(4 if docs else 0):
            number = rng.randrange(len(docs))
            edits = Edits([docs[number]["text"]], rng)
            words = edits.begin()
            for _ in range(rng.choice((0, 1, 3))):
                _, words = edits.edit(words)
            said.append(f"{' '.join(words).removesuffix('.')} [{number + 1}].")
        rows.append((row["question"], " ".join(said), json.dumps(docs)))
    with table.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("question", "answer", "documents"), *rows])
    return Row("… 1,000 edited answers", ["-m", "citepipe.cli", "score", str(table)], bar=5.0)


def _measure(row: Row, other: Path, rounds: int, report: Report) -> bool:
    """Report a row; whether it is below its bar."""
    ways = ((row.before or row.now, other), (row.now, ROOT))
    # The first round compiles, and fills a cache of decisions.
    rounds_of = [[_run(*way) for way in ways] for _ in range(rounds + 1)]
    before, now = (min(own[1:]) for own in zip(*rounds_of, strict=True))
    # What is tried in vain takes some microseconds.
    marks = ["*" if _imported(*way)["torch"] > 1000 else " " for way in ways]
    fits = row.bar is None or now < row.bar
    bar = "" if row.bar is None else f"   under {row.bar}: {verdict(fits)}"
    shown = f"{before:>7.2f}{marks[0]}{now:>7.2f}{marks[1]}{before / now:>8.1f}{bar}"
    report(f"{row.what:<52}{shown}")
    return fits


def _run(command: Sequence[str], tree: Path) -> float:
    """Processor seconds of a command."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    _python(command, tree)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def _imported(command: Sequence[str], tree: Path) -> Counter[str]:
    """The microseconds of its own that a command's imports take, by package."""
    written = _python(["-X", "importtime", *command], tree)
    parts: Counter[str] = Counter()
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\w+)", written):
        parts[name if name not in sys.stdlib_module_names else "Python's own"] += int(own)
    return parts


def _python(arguments: Sequence[str], tree: Path) -> str:
    """What Python, run in a tree, writes to stderr."""
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {run.stderr[-500:]}")
    return run.stderr


def _imports(answers: Path, report: Report) -> None:
    """Whose modules take how much of the imports of `citepipe score`, at best of three runs."""
    command = ["-m", "citepipe.cli", "score", str(answers)]
    least = min((_imported(command, ROOT) for _ in range(3)), key=Counter.total)
    report(f"\nimports of citepipe score, lexical (clock): {least.total() / 1e6:.2f} s")
    for name, microseconds in least.most_common(_SHOWN):
        report(f"  {name:<20}{microseconds / 1e6:>6.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
