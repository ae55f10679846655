"""What a stage needs of a machine: memory, time and disk, from its models and its work.

The figures are rough, and for a GPU where a stage wants one. A job asks for twice the time that is
expected; one that gets too little time or memory is tried again with more (`attempt`), from what it
has saved. `citepipe plan` adds them up.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from citepipe import config as kinds
from citepipe.config import Config
from citepipe.verify.load import levels

UNKNOWN = 7.0
"""Billions of parameters of a model that is not here and whose name says nothing."""
NAMED = {"xxl": 11.0, "xl": 3.0, "large": 0.8, "base": 0.25, "small": 0.1}

BANDWIDTH = 1e12
"""Bytes per second of a GPU's memory, all of whose weights a decoding step reads."""
AT_ONCE = 32
"""Sequences that a decoding step goes on with."""


class Rates(NamedTuple):
    """Operations per second of what reads and what trains, and seconds of a decoding step beside
    the reading of weights."""

    read: float
    learn: float
    step: float


GPU = Rates(1e14, 5e13, 0.03)
CORE = Rates(8e10, 5e10, 0.004)
"""A core of a CPU, with a model as small as the default's."""

PAIR = 300
"""Tokens of a pair that a verifier reads; an answer has about so many pairs:"""
PAIRS = 10
ROW = 5000
"""Bytes of a row with its documents."""
SMALL = 0.01
"""Billions of parameters up to which a model runs on one thread."""
ALONE = 3.0
"""GB of a process with torch and its activations; without CUDA the default's take 1.2."""
START = 10.0
"""Seconds until a process has imported torch and loaded what it works with."""
KEPT = 6.4e-4
"""GB of a GPU that a token's activations take per billion parameters in training; a tenth where
they are computed again (`gradient_checkpointing`), as much as a token of the cache that answers are
generated with. Counted for one sequence: more at once are as many as fit."""
TEXT = 5e-9
"""GB of a token's text."""


class Ask(NamedTuple):
    """What a job needs: memory (GB), expected hours, memory of each of its GPUs and disk (GB)."""

    gb: float
    hours: float
    gpu_gb: float = 0.0
    disk: float = 0.0


def billions(model: str) -> float:
    """The parameters of a model in billions: counted in its safetensors if they are here, else as
    its name says (`Llama-2-7b`, `t5_xxl_true`)."""
    files = sorted(Path(model).glob("*.safetensors"))
    if files:
        return sum(map(_count, files)) / 1e9
    name = Path(model).name.lower()
    if size := re.search(r"(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", name):
        return float(size[1]) / (1 if size[2] == "b" else 1000)
    return next((NAMED[word] for word in re.split("[^a-z]+", name) if word in NAMED), UNKNOWN)


def _count(path: Path) -> int:
    """The parameters in a file of safetensors."""
    with safe_open(path, framework="np") as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118


class Demand:
    """What the stages with a model ask for; `addresses` has where folders are fetched from."""

    def __init__(self, config: Config, addresses: dict[str, str]) -> None:
        self.config, self.addresses = config, addresses
        self.size = self._size(config.model.base) if config.model else 0.0
        self.bytes = 4 if config.model and config.model.dtype in ("auto", "float32") else 2
        named = config.verifiers
        verifiers = map(self._verifier_size, [named.train, named.rl or "", *named.report.values()])
        # For models as small as the default's more threads do nothing, nor does a GPU.
        is_small = max(self.size, *verifiers) <= SMALL
        self.threads, self.rates = (1, CORE) if is_small else (4, GPU)

    def training(self, wildcards: Any) -> Ask:
        """SFT, DPO, or learning from rewards."""
        system, model = self.config.systems[wildcards.system], self.config.model
        options: Any = self.config.training_options(wildcards.system)
        prompt, sampled = self.config.prompt.max_input_tokens, getattr(system, "data", None)
        assert model is not None
        gb, gpu_gb = 1.3 * self.size * self.bytes, self.weights_gb
        # A matrix of the base gets two of rank r.
        trained = self.size if model.adapter is None else self.size * 4e-4 * model.adapter.r
        if model.adapter is None:
            # Weights, gradients and AdamW's two moments in 32 bits; the reference policy beside.
            gb = gpu_gb = self.size * (16 + (self.bytes if system.train != "sft" else 0))
        kept = KEPT * self.size / (10 if model.gradient_checkpointing else 1)
        # What is published, and the state beside it.
        disk = 4 * trained * (1 + 3)
        if isinstance(system, kinds.RLSystem):
            answer, count = options.max_new_tokens, options.episodes
            # Read for log-probabilities, the reference and values, learnt from in every epoch.
            tokens = count * (prompt / options.samples_per_prompt + answer)
            seconds = self._learning(tokens * (options.epochs_per_rollout + 1))
            seconds += self._drawing(count * answer) + self._judging(count, self._rl_verifier)
            verifiers = self._verifiers(self._rl_verifier)
            gpu_gb += kept * (prompt + answer) + verifiers
            return Ask(ALONE + gb + verifiers, _hours(seconds), gpu_gb, disk)
        questions = self._train_questions(sampled)
        steps = options.max_steps or options.epochs * questions / options.batch_size
        rows = steps * options.batch_size * (2 if isinstance(system, kinds.DPOSystem) else 1)
        row = prompt + options.max_output_tokens
        return Ask(ALONE + gb, _hours(self._learning(rows * row)), gpu_gb + kept * row, disk)

    def sampling(self, wildcards: Any) -> Ask:
        """A shard of a system's samples."""
        return self._answering(self.config.systems[wildcards.system].data.sample, None)

    def prediction(self, wildcards: Any) -> Ask:
        """The answers to all test questions."""
        decode = getattr(self.config.systems[wildcards.system], "decode", None)
        if decode is None:
            return Ask(ALONE, _hours(self._tests() / 1000), 0, self._tests() * ROW / 1e9)
        return self._answering(decode, self._tests())

    def teaching(self, verifier: str) -> Ask:
        """The teacher's answers, attributed or judged by a verifier, if any."""
        count = self._train_questions(None)
        seconds, queried = self._judging(count, verifier), self.config.teacher.endpoint is not None
        gb = self._verifiers(verifier)
        return Ask(ALONE + gb, _hours(seconds + 4 * count * queried), gb, count * ROW / 1e9)

    def scores(self) -> Ask:
        """All scores of a system's answers."""
        report, count = self.config.verifiers.report.values(), self._tests()
        seconds = count / 200 + sum(self._judging(count, verifier) for verifier in report)
        models = self.config.score
        names = " ".join(models.metrics or ())
        more = ("QA-" in names) * billions(models.reader)
        more += ("mauve" in names) * billions(models.mauve_model)
        gpu_gb = self._verifiers(*report) + 5.2 * more
        gb = ALONE + gpu_gb + count / 20_000
        return Ask(gb, _hours(seconds), gpu_gb, count * ROW * len(report) / 1e9)

    def weights(self) -> Ask:
        """Somebody's weights, converted."""
        gb = self.size * self.bytes
        return Ask(ALONE + 2.6 * gb, _hours(60 * gb), 0, gb)

    def data(self) -> Ask:
        """The choice among all rows, which are in memory with their documents."""
        data, retrieval = self.config.data, self.config.retrieval
        passages = (retrieval and retrieval.passages) or ()
        paths = [*data.train, *data.dev, *data.test.values(), *passages] if data else []
        gb = sum(map(_file_size, map(Path, dict.fromkeys(paths)))) / 1e9
        return Ask(2 + 6 * gb, _hours(1000 * gb), 0, gb)

    def _answering(self, how: str, questions: float | None) -> Ask:
        """Answers to questions (by default as many as are sampled, in a shard of them)."""
        config, verifier = self.config, ""
        options: Any = config.predict if how == "greedy" else getattr(config, how)
        drawn = 1.0
        if how == "best_of_n":
            drawn, verifier = options.n, config.verifiers.train
        elif how == "segment_search":
            drawn, verifier = options.beams * options.samples_per_beam, config.verifiers.train
        if questions is None:
            questions = (options.questions or self._train_questions(None)) / config.shards
        seconds = self._reading(questions * config.prompt.max_input_tokens)
        seconds += self._drawing(questions * drawn * options.max_new_tokens)
        seconds += self._judging(questions * drawn, verifier)
        gb = gpu_gb = self._verifiers(verifier)
        if config.server is None or config.server.start is not None:
            gb += 1.3 * self.size * self.bytes
            length = config.prompt.max_input_tokens + options.max_new_tokens
            gpu_gb += self.weights_gb + KEPT / 10 * self.size * length
        disk = questions * (ROW / 1e9 + drawn * options.max_new_tokens * TEXT)
        return Ask(ALONE + gb, _hours(seconds), gpu_gb, disk)

    @property
    def weights_gb(self) -> float:
        """The base model's weights on a GPU; in 4 bits with their scales."""
        quantized = self.config.model and self.config.model.quantization == "4bit"
        return self.size * (0.6 if quantized else self.bytes)

    @property
    def _rl_verifier(self) -> str:
        return self.config.verifiers.rl or self.config.verifiers.train

    def _size(self, model: str) -> float:
        return billions(model if Path(model).exists() else self.addresses.get(model, model))

    def _verifier_size(self, spec: str) -> float:
        targets = (own.partition("?")[0] for own in levels(spec))
        models = [own for own in targets if own not in ("", "lexical") and ":" not in own]
        return sum(map(self._size, models))

    def _verifiers(self, *specs: str) -> float:
        return 2.6 * sum(map(self._verifier_size, dict.fromkeys(specs)))

    def _judging(self, answers: float, spec: str) -> float:
        operations = answers * PAIRS * PAIR * 2e9 * self._verifier_size(spec)
        return operations / self.rates.read + answers / 300

    def _reading(self, tokens: float) -> float:
        return tokens * 2e9 * self.size / self.rates.read

    def _learning(self, tokens: float) -> float:
        # Forwards once, backwards twice as much.
        return tokens * 6e9 * self.size / self.rates.learn / self.config.devices

    def _drawing(self, tokens: float) -> float:
        weights = 1e9 * self.size * self.bytes
        return tokens / AT_ONCE * (self.rates.step + weights / BANDWIDTH)

    def _train_questions(self, sampled: Any) -> float:
        own = getattr(self.config, sampled.sample) if isinstance(sampled, kinds.Sampled) else None
        if own is not None and own.questions:
            return float(own.questions)
        data = self.config.data
        return self._rows(data.train_size, data.train) if data else 0.0

    def _tests(self) -> float:
        data = self.config.data
        if data is None:
            return 10_000.0
        # A file may have the questions of several datasets.
        return self._rows(data.test_size, list(dict.fromkeys(data.test.values())), len(data.test))

    def _rows(self, size: Any, paths: list[str], files: int = 1) -> float:
        """The rows that are taken of some files: as configured, those of the miniature, by their
        size, or 3,000 of each that is not here yet."""
        if size is not None:
            return float(sum(size.values()) if isinstance(size, dict) else size * files)
        made = self.config.miniature and self.config.miniature.world
        counts = {key: n * (1 if key == "expertqa" else 3) for key, n in made or ()}
        world = Path(self.config.results, "miniature", "world")
        return sum(
            counts.get(path.stem, 0) if path.parent == world else _file_size(path) / ROW or 3000.0
            for path in map(Path, paths)
        )


def _file_size(path: Path) -> int:
    """Bytes of a file, or of all below a folder; 0 for what is not here."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


def _hours(seconds: float) -> float:
    """The hours of a process that works so long."""
    return (START + seconds) / 3600
