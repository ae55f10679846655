"""How much quicker than ALCE's own program is `citepipe score`? Same model, file and decisions.

    python benchmarks/score.py --alce ALCE

Both run by turns in one process, with the model loaded and the same number of threads: ALCE's
eval.py from its command line to the scores it writes, ours from the file to the result. Neither
computes ROUGE, which ALCE resamples a thousand times. Ours decides each pair once and many at a
time, and with a cache that knows the decisions (warm) not at all; ALCE's program keeps none.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import peers
from common import Clock, Ratio, Report, argument_parser, verdict
from entailment import SMALL, VOCABULARY, Entailment, labelled_pairs, make_random, make_trained
from odd_answers import taught_examples, wordy_examples

from citepipe.data.example import Example
from citepipe.data.files import read_answers, write_result
from citepipe.options import ScoreOptions
from citepipe.score.files import Scorer
from citepipe.text.sentences import Splitter
from citepipe.verify.load import load_verifier

METRICS = ("length", "str_em", "str_hit", "citation_rec", "citation_prec")
_TRAINING_STEPS = 400
# In tokens of T5's own vocabulary that is a passage of ALCE's, of 100 words.
_WORDS_PER_PASSAGE = 140


class Setting(NamedTuple):
    """A model and a file to score with it, and by how much ours should be quicker."""

    name: str
    entailment: Entailment
    answers: Path
    bar: float


def main() -> int:
    parser = argument_parser(__doc__, "score.txt")
    parser.add_argument("--alce", type=Path, required=True, help="a copy of princeton-nlp/ALCE")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, by turns")
    parser.add_argument("--answers", type=int, default=200, help="answers for the tiny model")
    parser.add_argument("--few", type=int, default=40, help="answers for the 60 M model")
    arguments = parser.parse_args()
    report = Report(arguments.out, "torch", "transformers")
    splitter, theirs = peers.splitters()
    report(f"sentences: {splitter}; 32 bits on the CPU")
    options = ScoreOptions(splitter=splitter, metrics=METRICS)
    with tempfile.TemporaryDirectory() as folder:
        differences = sum(
            _measure(setting, arguments.alce, arguments.rounds, options, theirs, report)
            for setting in (
                _trained_tiny(Path(folder) / "tiny", arguments.answers),
                _random_small(Path(folder) / "small", arguments.few),
            )
        )
    return 1 if differences else 0


def _measure(
    setting: Setting,
    folder: Path,
    rounds: int,
    options: ScoreOptions,
    theirs: Splitter | None,
    report: Report,
) -> int:
    """Score one file by turns; the decisions and metrics that differ."""
    entailment, file = setting.entailment, setting.answers
    alce = peers.load_alce(folder, theirs)
    peers.query_model(alce, entailment.directory)
    queried = peers.log_decisions(alce)
    computed = []
    clock = Clock()
    for round_ in range(rounds):
        cache = file.with_name(f"{round_}.sqlite")
        # The second finds every decision in the cache that the first has filled.
        for name in ("cold", "warm"):
            verifier: Any = load_verifier(f"{entailment.directory}?dtype=float32", cache, "cpu")
            with clock.timing(name):
                metrics = Scorer(read_answers(file, None), options).under(verifier)["metrics"]
            computed.append(verifier.computed)
        queried.clear()
        with clock.timing("theirs"):
            scores = peers.run_alce(alce, file, "--citations", "--no_rouge")
    decisions = verifier.entails([pair for pair, _ in queried])
    unequal = sum(d != t for d, (_, t) in zip(decisions, queried, strict=True))
    unequal += sum(abs(metrics[metric] - scores[metric]) > 1e-9 for metric in METRICS)
    distinct = list({pair for pair, _ in queried})
    lengths = entailment.lengths(distinct)
    million = sum(p.numel() for p in entailment.model.parameters()) / 1e6
    entailed = sum(decision for _, decision in queried) / len(queried)
    report(
        f"\n{setting.name}: {million:.1f} M parameters, pairs of {statistics.mean(lengths):.0f} "
        f"tokens ({min(lengths)} to {max(lengths)}), {entailed:.0%} entailed"
    )
    report(f"  pairs: {len(queried)} queried by theirs, {computed[0]} computed by ours")
    report(f"  decisions and metrics that differ: {unequal}")
    report(f"  theirs {clock.median('theirs'):>9.3f} s")
    for name, bar in (("cold", setting.bar), ("warm", 100.0)):
        ratio = Ratio.of(clock.seconds["theirs"], clock.seconds[name])
        report(
            f"  {name:<7}{clock.median(name):>9.3f} s, {ratio} as quick; bar {bar:g}, "
            f"{verdict(ratio.middle >= bar)}"
        )
    return unequal


def _trained_tiny(folder: Path, count: int) -> Setting:
    examples = taught_examples("asqa", count, seed=5)
    made, _ = make_trained(folder / "true", labelled_pairs(examples), _TRAINING_STEPS)
    return Setting("(a) tiny T5, trained", made, _write(folder, examples), bar=3.0)


def _random_small(folder: Path, count: int) -> Setting:
    examples = wordy_examples(count, _WORDS_PER_PASSAGE, several=0.1, seed=5)
    made = make_random(folder / "true", labelled_pairs(examples), SMALL, VOCABULARY)
    made.model.save_pretrained(made.directory)
    return Setting("(b) T5-small, random weights", made, _write(folder, examples), bar=1.2)


def _write(folder: Path, examples: Sequence[Example]) -> Path:
    write_result(folder / "asqa_answers.json", {}, examples)
    return folder / "asqa_answers.json"


if __name__ == "__main__":
    raise SystemExit(main())
