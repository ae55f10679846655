"""How much quicker than ALCE's own program is `citepipe score`? Same model, file and decisions.

    python benchmarks/score.py --alce ALCE

Both run by turns in one process, with the model loaded and the same number of threads: ALCE's
eval.py from its command line to the scores it writes, ours from the file to the result. Neither
computes ROUGE, which ALCE resamples a thousand times. Ours decides each pair once and many at a
time, and with a cache that knows the decisions (warm) not at all; ALCE's program keeps none.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peers
import tiny_t5
from bound import encoder_operations, matmul_rate
from machine import RESULTS, Report
from odd_answers import taught_examples, wordy_examples
from parity import labelled_pairs, splitters

from citepipe.data.example import Example
from citepipe.data.files import read_answers, write_result
from citepipe.options import ScoreOptions
from citepipe.score.files import Scorer
from citepipe.text.sentences import Splitter
from citepipe.verify.base import Pair, load_verifier

METRICS = ("length", "str_em", "str_hit", "citation_rec", "citation_prec")
_TRAINING_STEPS = 400
_CALIBRATION_PAIRS = 64
# In tokens of T5's own vocabulary that is a passage of ALCE's, of 100 words.
_WORDS_PER_PASSAGE = 140
_MATMUL_SIZE = 2048


@dataclass(frozen=True)
class Setting:
    """A model and a file to score with it, and by how much ours should be quicker."""

    name: str
    model: Path
    answers: Path
    bar: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--alce", type=Path, required=True, help="a copy of princeton-nlp/ALCE")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, by turns")
    parser.add_argument("--answers", type=int, default=200, help="answers for the tiny model")
    parser.add_argument("--few", type=int, default=40, help="answers for the 60 M model")
    parser.add_argument("--out", type=Path, default=RESULTS / "score.txt")
    arguments = parser.parse_args()
    import torch

    report = Report(arguments.out, "torch", "transformers")
    name, theirs = splitters()
    report(f"sentences: {name}; {torch.get_num_threads()} threads; 32 bits on the CPU")
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            _trained_tiny(Path(folder) / "tiny", arguments.answers),
            _random_small(Path(folder) / "small", arguments.few),
        ]
        differences = sum(
            _measure(setting, arguments, name, theirs, report) for setting in settings
        )
    return 1 if differences else 0


def _measure(
    setting: Setting,
    arguments: argparse.Namespace,
    splitter: str,
    theirs: Splitter | None,
    report: Report,
) -> int:
    import torch

    alce = peers.load_alce(arguments.alce, theirs)
    peers.answer_with(alce, setting.model)
    asked = peers.log_decisions(alce)
    options = ScoreOptions(splitter=splitter, metrics=METRICS)
    flags = ("--citations", "--no_rouge")
    seconds: dict[str, list[float]] = {"theirs": [], "cold": [], "warm": []}
    computed = 0
    for turn in range(arguments.rounds):
        cache = setting.answers.with_name(f"{turn}.sqlite")
        cold = load_verifier(str(setting.model), cache, "cpu")
        seconds["cold"].append(_timed(partial(_ours, setting.answers, cold, options)))
        computed = cold.computed  # type: ignore[attr-defined]
        warm = load_verifier(str(setting.model), cache, "cpu")
        seconds["warm"].append(_timed(partial(_ours, setting.answers, warm, options)))
        asked.clear()
        seconds["theirs"].append(_timed(partial(peers.run_alce, alce, setting.answers, *flags)))
    scores = peers.written_scores(setting.answers)
    ours = _ours(setting.answers, warm, options)["metrics"]
    decisions = warm.entails([pair for pair, _ in asked])
    unequal = sum(d != t for d, (_, t) in zip(decisions, asked, strict=True))
    unequal += sum(abs(ours[metric] - scores[metric]) > 1e-9 for metric in METRICS)
    distinct = list({pair for pair, _ in asked})
    tokenizer, config = alce.autoais_tokenizer, alce.autoais_model.config
    lengths = [len(tokenizer(tiny_t5.asked(pair)).input_ids) for pair in distinct]
    rate = matmul_rate("cpu", torch.float32, _MATMUL_SIZE)
    least = encoder_operations(config, lengths) / rate
    million = sum(p.numel() for p in alce.autoais_model.parameters()) / 1e6
    entailed = sum(decision for _, decision in asked) / len(asked)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    report()
    report(
        f"{setting.name}: {million:.1f} M parameters, pairs of {statistics.mean(lengths):.0f} "
        f"tokens ({min(lengths)} to {max(lengths)}), {entailed:.0%} entailed"
    )
    report(f"  pairs: {len(asked)} asked by theirs, {computed} computed by ours")
    report(f"  decisions and metrics that differ: {unequal}")
    for name, pairs in (("theirs", len(asked)), ("cold", computed), ("warm", 0)):
        each = f", {1000 * middle[name] / pairs:.2f} ms a pair" if pairs else ""
        runs = " ".join(f"{value:.3f}" for value in seconds[name])
        report(f"  {name:<7}{middle[name]:>9.3f} s{each} (runs: {runs})")
    _tell_ratio("cold", seconds, setting.bar, report)
    _tell_ratio("warm", seconds, 100.0, report)
    report(
        f"  bound: {encoder_operations(config, lengths) / 1e9:.1f} GFLOP of the encoder at "
        f"{rate / 1e9:.0f} GFLOP/s (product of matrices of {_MATMUL_SIZE} rows) is {least:.3f} s; "
        f"cold reaches {least / middle['cold']:.0%} of it, theirs {least / middle['theirs']:.0%}"
    )
    whole = {
        "theirs": _timed(partial(_their_command, setting, arguments.alce, flags)),
        "cold": _timed(partial(_our_command, setting, splitter)),
        "warm": _timed(partial(_our_command, setting, splitter)),
    }
    told = ", ".join(f"{name} {value:.1f} s" for name, value in whole.items())
    report(f"  whole commands, imports and loading included, one run each: {told}")
    return unequal


def _tell_ratio(name: str, seconds: dict[str, list[float]], bar: float, report: Report) -> None:
    ratios = [a / b for a, b in zip(seconds["theirs"], seconds[name], strict=True)]
    ratio = statistics.median(seconds["theirs"]) / statistics.median(seconds[name])
    report(
        f"  {name}: {ratio:.1f} times as quick (rounds: {min(ratios):.1f} to {max(ratios):.1f}); "
        f"bar {bar:g}, {'reached' if ratio >= bar else 'NOT REACHED'}"
    )


def _ours(path: Path, verifier: object, options: ScoreOptions) -> dict[str, dict[str, float]]:
    file = read_answers(path, None)
    return Scorer(file, options).under(verifier)  # type: ignore[arg-type]


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _our_command(setting: Setting, splitter: str) -> None:
    command = "from citepipe.cli import main; raise SystemExit(main())"
    options = ["--verifier", str(setting.model), "--splitter", splitter, "--device", "cpu"]
    options += ["--cache", str(setting.answers.with_name("command.sqlite"))]
    options += ["--metrics", ",".join(METRICS)]
    _run(command, "score", str(setting.answers), *options)


def _their_command(setting: Setting, alce: Path, flags: Sequence[str]) -> None:
    _run(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; import peers; from parity import splitters\n"
        "module = peers.load_alce(Path(sys.argv[2]), splitters()[1])\n"
        "peers.answer_with(module, Path(sys.argv[3]))\n"
        "peers.run_alce(module, Path(sys.argv[4]), *sys.argv[5:])\n",
        str(Path(__file__).parent),
        str(alce),
        str(setting.model),
        str(setting.answers),
        *flags,
    )


def _run(command: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", command, *arguments], check=True, capture_output=True)


def _trained_tiny(folder: Path, count: int) -> Setting:
    examples = taught_examples("asqa", count, seed=5)
    model, answers, labelled = _prepare(folder, examples)
    size = tiny_t5.save_tokenizer(map(tiny_t5.asked, labelled), model)
    made = tiny_t5.random_t5(size, tiny_t5.MINIATURE, seed=3)
    tiny_t5.train(made, model, list(labelled.items()), _TRAINING_STEPS, seed=0)
    return Setting("(a) tiny T5, trained", model, answers, bar=3.0)


def _random_small(folder: Path, count: int) -> Setting:
    examples = wordy_examples(count, _WORDS_PER_PASSAGE, several=0.1, seed=5)
    model, answers, labelled = _prepare(folder, examples)
    size = tiny_t5.save_tokenizer(map(tiny_t5.asked, labelled), model, size=tiny_t5.VOCABULARY)
    made = tiny_t5.random_t5(size, tiny_t5.SMALL, seed=3)
    pairs = list(labelled)
    tiny_t5.let_it_answer(made, model, pairs[:: max(len(pairs) // _CALIBRATION_PAIRS, 1)])
    made.save_pretrained(model)
    return Setting("(b) T5-small, random weights", model, answers, bar=1.2)


def _prepare(folder: Path, examples: Sequence[Example]) -> tuple[Path, Path, dict[Pair, bool]]:
    answers = folder / "asqa_answers.json"
    write_result(answers, {}, examples)
    return folder / "true", answers, labelled_pairs(examples)


if __name__ == "__main__":
    raise SystemExit(main())
