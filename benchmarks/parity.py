"""Are citepipe's scores and rewards those of the programs that it follows?

    python benchmarks/parity.py --alce ALCE --atg atg-w-fg-rw --data FOLDER

ALCE's eval.py and `citepipe score` run on the same files of odd answers, as whole programs, with
the same entailment models, each loaded by its own code: a T5 with random weights and one trained on
the spot, so that both decisions are frequent. Compared are every decision that ALCE's program
makes, every metric of it, the equally weighted metrics of the paper's program (`--atg`), and its
rewards.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
from common import DATASETS, Report, argument_parser
from entailment import MINIATURE, labelled_pairs, make_random, make_trained
from odd_answers import odd_examples
from reward_parity import compare_rewards

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_result
from citepipe.text.normalize import clean_output
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier

TOLERANCE = 1e-9
_TRAINING_STEPS = 500
_REAL_DOCUMENTS = 5
_REAL_ANSWERS = 30
_ABSENT_IN_ALCE = {"str_em", "str_hit"}
"""ALCE writes these as 0 where a dataset has no short answers; ours leaves them out."""


def main() -> int:
    parser = argument_parser(__doc__, "parity.txt")
    parser.add_argument("--alce", type=Path, required=True, help="a copy of princeton-nlp/ALCE")
    parser.add_argument("--atg", type=Path, help="a copy of HCY123902/atg-w-fg-rw")
    parser.add_argument("--data", type=Path, help="a folder with alce_asqa_10.json and others")
    parser.add_argument("--answers", type=int, default=600, help="odd answers per dataset")
    arguments = parser.parse_args()
    report = Report(arguments.out, "torch", "transformers", "nltk", "rouge-score")
    name, theirs = peers.splitters()
    report(f"sentences: {name}{', on both sides' if theirs is None else ' in both programs'}")
    report(f"entailment in 32 bits on the CPU; metrics are equal if within {TOLERANCE:g}")
    with tempfile.TemporaryDirectory() as folder:
        differences = compare_scores(arguments, report, Path(folder), name, theirs)
        if arguments.atg is not None:
            model = Path(folder) / "trained_true"
            differences += compare_rewards(arguments.atg, model, theirs, report)
    report()
    report(f"unexpected differences in all: {differences}")
    return 1 if differences else 0


def compare_scores(
    arguments: argparse.Namespace,
    report: Report,
    folder: Path,
    splitter: str,
    theirs: Splitter | None,
) -> int:
    """Both programs on all files under both models; how much was different."""
    files = _write_files(arguments, folder)
    examples = [example for path in files for example in read_examples(path)]
    models = _make_models(examples, folder, report)
    differences = 0
    for label, directory in models.items():
        alce = peers.load_alce(arguments.alce, theirs)
        bootstrap = peers.average_rouge(alce)
        peers.query_model(alce, directory)
        queried = peers.log_decisions(alce)
        verifier = load_verifier(f"{directory}?dtype=float32", None, "cpu")
        for path in files:
            queried.clear()
            bootstrap.clear()
            flags = ["--citations", *(["--claims_nli"] if "eli5" in path.name else [])]
            scores = peers.run_alce(alce, path, *flags)
            paper = _paper_scores(arguments.atg, theirs, path, queried) if arguments.atg else {}
            ours = _score(path, directory, splitter)
            decisions = verifier.entails([pair for pair, _ in queried])
            unequal = sum(d != t for d, (_, t) in zip(decisions, queried, strict=True))
            share = sum(d for _, d in queried) / max(len(queried), 1)
            report()
            report(
                f"{label} T5, {path.stem}: {ours['counts']['examples']} answers, {len(queried)} "
                f"pairs queried by ALCE, {share:.0%} entailed, {unequal} decided otherwise"
            )
            report(f"  {'':<24}{'theirs':>14}{'citepipe':>14}")
            differences += unequal + _compare(scores | paper, ours["metrics"], report)
            if bootstrap:
                away = bootstrap[0] - scores["rougeLsum"]
                report(f"  ROUGE is a plain mean here; ALCE's bootstrap gives {away:+.4f}")
    return differences


def _score(path: Path, verifier: Path, splitter: str) -> dict[str, Any]:
    """What `citepipe score` writes, as a command."""
    out = path.with_suffix(".ours")
    command = "from citepipe.cli import main; raise SystemExit(main())"
    options = ["--verifier", str(verifier), "--splitter", splitter, "--device", "cpu"]
    options += ["--no-cache", "--resamples", "1", "--json", str(out)]
    subprocess.run(
        [sys.executable, "-c", command, "score", str(path), *options],
        check=True,
        capture_output=True,
    )
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def _compare(theirs: dict[str, float], ours: dict[str, float], report: Report) -> int:
    differences = 0
    for name, value in theirs.items():
        if name not in ours and name in _ABSENT_IN_ALCE and value == 0:
            continue
        own = ours.get(name, math.nan)
        equal = math.isclose(value, own, rel_tol=0, abs_tol=TOLERANCE)
        report(f"  {name:<24}{value:>14.6f}{own:>14.6f}{'' if equal else '  DIFFERENT'}")
        differences += not equal
    return differences


def _write_files(arguments: argparse.Namespace, folder: Path) -> list[Path]:
    """Result files as ALCE reads them: odd answers, and real ones if there are any."""
    written = {
        f"{dataset}_odd": odd_examples(dataset, arguments.answers, seed=7) for dataset in DATASETS
    }
    real = arguments.data / "alce_asqa_10.json" if arguments.data else None
    if real is not None and real.is_file():
        written["asqa_real"] = [
            replace(example, docs=example.docs[:_REAL_DOCUMENTS]) for example in read_examples(real)
        ]
    human = arguments.data / "qa_feedback_dev_500.json" if arguments.data else None
    if human is not None and human.is_file():
        written["eli5_real"] = [
            _citing(example, number)
            for number, example in enumerate(read_examples(human, "eli5")[:_REAL_ANSWERS])
        ]
    files = []
    for stem, examples in written.items():
        files.append(folder / f"{stem}.json")
        write_result(files[-1], {}, examples)
    return files


def _citing(example: Example, number: int) -> Example:
    """A human answer with citations by turns, a part of them out of range."""
    answer = example.answer or ""
    marks = ["[1]", "[1][2]", "", "[2]", "[1][2][3]"]
    output = " ".join(
        f"{answer[start : end - 1]} {marks[(number + place) % len(marks)]}."
        for place, (start, end) in enumerate(load_splitter()(answer))
    )
    return replace(example, output=output, docs=example.docs[:2], claims=example.claims[:3])


def _paper_scores(
    folder: Path, splitter: Splitter | None, path: Path, queried: Sequence[tuple[Pair, bool]]
) -> dict[str, float]:
    """The equally weighted metrics, with the decisions that ALCE's program has made."""
    paper = peers.load_paper(folder, splitter)
    known = dict(queried)
    paper.autoais_model = True  # type: ignore[attr-defined]
    paper._run_nli_autoais = lambda p, c: int(known[Pair(p, c)])  # type: ignore[attr-defined]
    rows = json.loads(path.read_text(encoding="utf-8"))["data"]
    for row in rows:
        row["output"] = clean_output(row["output"])
    bare = copy.deepcopy(rows)
    for row in bare:
        row["output"] = paper.remove_citations(row["output"])
    listed = "qampari" in path.name
    scores = paper.compute_autoais(rows, qampari=listed, at_most_citations=3)
    if listed:
        # The paper's program has these five as shares, and all others in percent.
        found = paper.compute_qampari_f1(bare)
        scores |= {name: 100 * value for name, value in found.items() if "eq_w" in name}
    elif "asqa" in path.name:
        scores["str_em_eq_w"] = paper.compute_str_em(bare, dataset="asqa")[2]
    return {name: float(value) for name, value in scores.items() if "eq_w" in name}


def _make_models(examples: Sequence[Example], folder: Path, report: Report) -> dict[str, Path]:
    """Two models; the paper's programs want `true` in the name."""
    labelled = labelled_pairs(examples)
    models = {label: folder / f"{label}_true" for label in ("random", "trained")}
    made = make_random(models["random"], labelled, MINIATURE)
    made.model.save_pretrained(models["random"])
    _, share = make_trained(models["trained"], labelled, _TRAINING_STEPS)
    report(f"trained T5: {_TRAINING_STEPS} steps, labels by words, {share:.0%} right at the end")
    return models


if __name__ == "__main__":
    raise SystemExit(main())
