"""ALCE's and the paper's own scoring programs, loaded from fetched copies, to run beside ours.

Changed in them is only what is named here: where NLTK's model is not installed sentences come from
citepipe's splitter, the noisy bootstrap of ROUGE gives way to the mean on request, and progress
bars and logs are quiet.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from citepipe.text.sentences import Splitter
from citepipe.verify.base import Pair

Decide = Callable[[str, str], int]


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


def answer_with(module: ModuleType, directory: Path) -> None:
    """Let a program decide with the model in a directory, by its own code, in 32 bits."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    module.autoais_model = AutoModelForSeq2SeqLM.from_pretrained(  # type: ignore[attr-defined]
        directory, dtype=torch.float32
    ).eval()
    module.autoais_tokenizer = AutoTokenizer.from_pretrained(directory)  # type: ignore[attr-defined]


def log_decisions(module: ModuleType) -> list[tuple[Pair, bool]]:
    """Keep every pair that a program asks, in order, with the decision."""
    own: Decide = module._run_nli_autoais
    asked: list[tuple[Pair, bool]] = []

    def logging_decision(passage: str, claim: str) -> int:
        decision = own(passage, claim)
        asked.append((Pair(passage, claim), bool(decision)))
        return decision

    module._run_nli_autoais = logging_decision  # type: ignore[attr-defined]
    return asked


def run_alce(module: ModuleType, path: Path, *arguments: str) -> dict[str, float]:
    """ALCE's program on a file, from its command line to the scores that it writes."""
    before, printed = sys.argv, sys.stdout
    sys.argv = ["eval.py", "--f", str(path), *arguments]
    try:
        with open(os.devnull, "w") as sys.stdout:
            module.main()
    finally:
        sys.argv, sys.stdout = before, printed
    return written_scores(path)


def written_scores(path: Path) -> dict[str, float]:
    """What ALCE's program has written about a file."""
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


def load_paper_rewards(folder: Path, splitter: Splitter | None) -> tuple[ModuleType, ModuleType]:
    """The paper's `fgrlhf/reward_utils.py` (sampling) and `training/reward.py` (RL).

    What they import and do not use for rewards, vLLM and dateparser, is stood in for.
    """
    before = dict(sys.modules)
    vllm = ModuleType("vllm")
    vllm.LLM = vllm.SamplingParams = object  # type: ignore[attr-defined]
    dateparser = ModuleType("dateparser")
    dateparser.data = None  # type: ignore[attr-defined]
    sys.modules |= {"vllm": vllm, "dateparser": dateparser}
    try:
        training = folder / "tasks" / "qa_feedback" / "training" / "reward.py"
        rewards = _load("paper_rewards", training, folder)
        sampling = sys.modules["fgrlhf.reward_utils"]
    finally:
        for name in {"vllm", "dateparser"} - before.keys():
            del sys.modules[name]
    for module in (sampling, rewards):
        _quiet(module, splitter)
    return sampling, rewards


def load_paper_search(folder: Path) -> ModuleType:
    """The paper's `fgrlhf/utils.py`, which has its beam search.

    vLLM, which it imports, is stood in for: the parameters of its sampling are any.
    """
    vllm = ModuleType("vllm")
    vllm.LLM = object  # type: ignore[attr-defined]
    vllm.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
    before = sys.modules.get("vllm")
    sys.modules["vllm"] = vllm
    try:
        search = _load("paper_search", folder / "fgrlhf" / "utils.py", folder)
    finally:
        del sys.modules["vllm"]
        if before is not None:
            sys.modules["vllm"] = before
    search.print = lambda *_: None  # type: ignore[attr-defined]
    return search


def _load(name: str, path: Path, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def _quiet(module: ModuleType, splitter: Splitter | None) -> ModuleType:
    for name in (module.__name__, "utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    module.tqdm = lambda rows: rows  # type: ignore[attr-defined]
    if splitter is not None:
        split = splitter
        module.sent_tokenize = lambda text: [text[a:b] for a, b in split(text)]  # type: ignore[attr-defined]
    return module
