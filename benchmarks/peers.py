"""The peers' own programs, loaded from fetched copies, to run beside ours.

Changed in them is only what is named here: where NLTK's model is not installed sentences come from
citepipe's splitter, the noisy bootstrap of ROUGE gives way to the mean on request, packages that
they import and do not use for what is compared are stood in for, and progress bars and logs are
quiet.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from citepipe.errors import InputError
from citepipe.text.sentences import Splitter, load_splitter
from citepipe.verify.base import Pair

Decide = Callable[[str, str], int]


def splitters() -> tuple[str, Splitter | None]:
    """The splitter of ours to take, and what to put into the peers; None leaves them theirs."""
    try:
        load_splitter("punkt")
    except InputError:
        return "punkt-rules", load_splitter("punkt-rules")
    return "punkt", None


def load_alce(folder: Path, splitter: Splitter | None) -> ModuleType:
    """ALCE's `eval.py`."""
    return _quiet(_load("alce_eval", folder / "eval.py", folder), splitter)


def load_paper(folder: Path, splitter: Splitter | None) -> ModuleType:
    """The paper's `evaluation/eval.py`; it turns the standard streams to a log file."""
    streams = sys.stdout, sys.stderr
    with tempfile.NamedTemporaryFile(suffix=".log", delete=False) as log:
        os.environ["EVAL_LOG_PATH"] = log.name
    try:
        module = _load("paper_eval", folder / "evaluation" / "eval.py", folder / "evaluation")
    finally:
        sys.stdout, sys.stderr = streams
    module.autoais_model_name = "true"  # type: ignore[attr-defined]
    return _quiet(module, splitter)


def load_paper_rewards(folder: Path, splitter: Splitter | None) -> tuple[ModuleType, ModuleType]:
    """The paper's `fgrlhf/reward_utils.py` (sampling) and `training/reward.py` (RL)."""
    with _standing_in({"vllm": ("LLM", "SamplingParams"), "dateparser": ("data",)}):
        training = folder / "tasks" / "qa_feedback" / "training" / "reward.py"
        rewards = _load("paper_rewards", training, folder)
        sampling = sys.modules["fgrlhf.reward_utils"]
    return _quiet(sampling, splitter), _quiet(rewards, splitter)


def load_paper_search(folder: Path) -> ModuleType:
    """The paper's `fgrlhf/utils.py`, which has its beam search."""
    with _standing_in({"vllm": ("LLM", "SamplingParams")}):
        search = _load("paper_search", folder / "fgrlhf" / "utils.py", folder)
    search.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    search.print = lambda *_: None  # type: ignore[attr-defined]
    return search


def load_fine_grained(folder: Path) -> tuple[ModuleType, ModuleType, ModuleType]:
    """FineGrainedRLHF's modules `fgrlhf.utils`, `fgrlhf.ppo` and `fgrlhf.reward`."""
    needed = ("wandb", "yaml", "nltk", "accelerate")
    missing = {name: () for name in needed if importlib.util.find_spec(name) is None}
    with _standing_in(missing), _importing_from(folder):
        names = ("utils", "ppo", "reward")
        utils, ppo, reward = (importlib.import_module(f"fgrlhf.{name}") for name in names)
    return utils, ppo, reward


def query_model(module: ModuleType, directory: Path) -> None:
    """Let a program decide with the model in a directory, by its own code, in 32 bits."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    module.autoais_model = AutoModelForSeq2SeqLM.from_pretrained(  # type: ignore[attr-defined]
        directory, dtype=torch.float32
    ).eval()
    module.autoais_tokenizer = AutoTokenizer.from_pretrained(directory)  # type: ignore[attr-defined]


def log_decisions(module: ModuleType) -> list[tuple[Pair, bool]]:
    """Keep every pair that a program queries, in order, with the decision."""
    own: Decide = module._run_nli_autoais
    queried: list[tuple[Pair, bool]] = []

    def logging_decision(passage: str, claim: str) -> int:
        decision = own(passage, claim)
        queried.append((Pair(passage, claim), bool(decision)))
        return decision

    module._run_nli_autoais = logging_decision  # type: ignore[attr-defined]
    return queried


def run_alce(module: ModuleType, path: Path, *arguments: str) -> dict[str, float]:
    """ALCE's program on a file, from its command line to the scores that it writes."""
    before, printed = sys.argv, sys.stdout
    sys.argv = ["eval.py", "--f", str(path), *arguments]
    try:
        with open(os.devnull, "w") as sys.stdout:
            module.main()
    finally:
        sys.argv, sys.stdout = before, printed
    scores: dict[str, float] = json.loads(path.with_name(path.name + ".score").read_text())
    return scores


def average_rouge(module: ModuleType) -> list[float]:
    """Put the mean in the place of the bootstrap whose middle ALCE takes; returns a list to which
    each use adds what the bootstrap would have given."""
    from rouge_score.scoring import BootstrapAggregator

    drawn: list[float] = []

    class Mean(BootstrapAggregator):
        def aggregate(self) -> dict[str, Any]:
            drawn.append(100 * float(super().aggregate()["rougeLsum"].mid.fmeasure))
            scores = [score.fmeasure for score in self._scores["rougeLsum"]]
            mean = SimpleNamespace(fmeasure=sum(scores) / len(scores))
            return {"rougeLsum": SimpleNamespace(mid=mean)}

    module.scoring = SimpleNamespace(BootstrapAggregator=Mean)  # type: ignore[attr-defined]
    return drawn


@contextmanager
def _standing_in(modules: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Empty modules, with some names, in the place of packages while something is imported."""
    before = {name: sys.modules.get(name) for name in modules}
    for name, attributes in modules.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(dict.fromkeys(attributes, object))
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def _load(name: str, path: Path, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _importing_from(folder):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _quiet(module: ModuleType, splitter: Splitter | None) -> ModuleType:
    for name in (module.__name__, "utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    module.tqdm = lambda rows: rows  # type: ignore[attr-defined]
    if splitter is not None:
        split = splitter
        module.sent_tokenize = lambda text: [text[a:b] for a, b in split(text)]  # type: ignore[attr-defined]
    return module
