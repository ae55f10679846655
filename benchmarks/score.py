"""How much quicker than ALCE's own program is `citepipe score`? Same model, file and decisions.

    python benchmarks/score.py --alce ALCE

Both run by turns in one process, with the model loaded and the same number of threads: ALCE's
eval.py from its command line to the scores it writes, ours from the file to the result. Neither
computes ROUGE, which ALCE resamples a thousand times. Ours decides each pair once and many at a
time, and with a cache that knows the decisions (warm) not at all; ALCE's program keeps none.

Then the verifier alone, at the shapes of T5-small, T5-base and a decoder of 135 million parameters
that classifies: ours, batches of 16 as they come, padded to the longest, and pair by pair, beside
the bound, what arithmetic is needed without padding at the rate of large matrix products.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import peers
import torch
from common import (
    Clock,
    Ratio,
    Report,
    argument_parser,
    decoder_operations,
    matmul_rate,
    told_bound,
    verdict,
)
from entailment import (
    BASE,
    SMALL,
    VOCABULARY,
    Entailment,
    labelled_pairs,
    make_random,
    make_trained,
    prompt_of,
    save_tokenizer,
)
from odd_answers import taught_examples, wordy_examples

from citepipe.data.example import Example
from citepipe.data.files import read_answers, write_result
from citepipe.options import ScoreOptions
from citepipe.scoring.files import Scorer
from citepipe.text.sentences import Splitter
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier

METRICS = ("length", "str_em", "str_hit", "citation_rec", "citation_prec")
_TRAINING_STEPS = 400
# In tokens of T5's own vocabulary that is a passage of ALCE's, of 100 words.
_WORDS_PER_PASSAGE = 140
_PLAIN = 16
"""Pairs of a plain batch."""
_SHARE = 0.7
"""Of the bound, that ours should reach."""
_DECODER = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
_DECODER |= {"num_attention_heads": 9, "num_key_value_heads": 3}


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
    parser.add_argument("--pairs", type=int, default=48, help="for the verifiers alone")
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
        pairs = list(labelled_pairs(_wordy(arguments.pairs)))[: arguments.pairs]
        for alone in (
            _seq2seq(Path(folder) / "t5-small", "T5-small", SMALL, pairs),
            _seq2seq(Path(folder) / "t5-base", "T5-base", BASE, pairs),
            _decoder(Path(folder) / "decoder", pairs),
        ):
            _measure_alone(alone, pairs, arguments.rounds, report)
    return 1 if differences else 0


class Alone(NamedTuple):
    """A verifier, `plain`ly queried with a few pairs in a batch, the tokens of each pair, and the
    operations that it takes."""

    name: str
    directory: Path
    plain: Callable[[Sequence[Pair]], list[bool]]
    lengths: list[int]
    operations: float


def _measure_alone(alone: Alone, pairs: Sequence[Pair], rounds: int, report: Report) -> None:
    """Report how long pairs take, and beside the bound."""
    verifier = load_verifier(f"{alone.directory}?dtype=float32", None, "cpu")

    def in_batches(size: int) -> list[bool]:
        batches = (pairs[i : i + size] for i in range(0, len(pairs), size))
        return [decision for batch in batches for decision in alone.plain(batch)]

    ways = {
        "ours": lambda: verifier.entails(pairs),
        f"plain batches of {_PLAIN}": lambda: in_batches(_PLAIN),
        "pair by pair": lambda: in_batches(1),
    }
    verifier.entails(pairs[:2])
    clock, decisions, rates = Clock(), {}, []
    for _ in range(rounds):
        rates.append(matmul_rate("cpu", torch.float32))
        for name, way in ways.items():
            with clock.timing(name):
                decisions[name] = way()
    lengths, rate = alone.lengths, statistics.median(rates)
    report(
        f"\n{alone.name}, random weights: {len(pairs)} pairs of {statistics.mean(lengths):.0f} "
        f"tokens ({min(lengths)} to {max(lengths)}), {sum(decisions['ours']) / len(pairs):.0%} "
        "entailed"
    )
    for name in ways:
        share = alone.operations / rate / clock.median(name)
        line = f"  {name:<20}{clock.median(name):>8.3f} s, {share:.0%} of the bound"
        if name == "ours":
            line += f"; bar {_SHARE:.0%}, {verdict(share >= _SHARE)}"
        else:
            other = sum(a != b for a, b in zip(decisions["ours"], decisions[name], strict=True))
            ratio = Ratio.of(clock.seconds[name], clock.seconds["ours"])
            line += f"; ours is {ratio} as quick; decided otherwise: {other}"
        report(line)
    report(f"  bound: {told_bound(alone.operations / rate, rate)}")


def _seq2seq(folder: Path, name: str, shape: dict[str, Any], pairs: Sequence[Pair]) -> Alone:
    made = make_random(folder, pairs, shape, VOCABULARY)
    made.model.save_pretrained(folder)

    @torch.inference_mode()
    def plain(batch: Sequence[Pair]) -> list[bool]:
        texts = [prompt_of(pair) for pair in batch]
        padded = made.tokenizer(texts, padding=True, return_tensors="pt")
        written: Any = made.model.generate(**padded, max_new_tokens=10)  # type: ignore[operator]
        read = made.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text == "1" for text in read]

    lengths = made.lengths(pairs)
    return Alone(f"{name}'s shape", folder, plain, lengths, made.operations(pairs))


def _decoder(folder: Path, pairs: Sequence[Pair]) -> Alone:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    def text_of(pair: Pair) -> str:
        return f"{pair.premise}</s>{pair.hypothesis}"

    tokenizer = save_tokenizer(map(text_of, pairs), folder, size=49_152)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), pad_token_id=0, id2label={0: "0", 1: "1"}, **_DECODER
    )
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(folder)

    @torch.inference_mode()
    def plain(batch: Sequence[Pair]) -> list[bool]:
        padded = tokenizer([text_of(pair) for pair in batch], padding=True, return_tensors="pt")
        decided: list[bool] = (model(**padded).logits.softmax(-1)[:, 1] > 0.5).tolist()
        return decided

    lengths = [len(tokenizer(text_of(pair)).input_ids) for pair in pairs]
    operations, _ = decoder_operations(config, [(n, ()) for n in lengths])
    return Alone("a decoder of SmolLM2 135M's shape", folder, plain, lengths, operations)


def _wordy(count: int) -> list[Example]:
    return wordy_examples(count, _WORDS_PER_PASSAGE, several=0.1, seed=5)


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
    examples = _wordy(count)
    made = make_random(folder / "true", labelled_pairs(examples), SMALL, VOCABULARY)
    made.model.save_pretrained(made.directory)
    return Setting("(b) T5-small, random weights", made, _write(folder, examples), bar=1.2)


def _write(folder: Path, examples: Sequence[Example]) -> Path:
    write_result(folder / "asqa_answers.json", {}, examples)
    return folder / "asqa_answers.json"


if __name__ == "__main__":
    raise SystemExit(main())
