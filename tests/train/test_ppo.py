"""PPO on a tiny model: the order of things, and a run that is cut off and goes on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from citepipe.data.files import read_jsonl
from citepipe.errors import InputError
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.reward import RewardOptions
from citepipe.options.rl import PPOOptions
from citepipe.train import ppo
from citepipe.train.actor_critic import ActorCritic
from citepipe.train.rollout import Rollout

OPTIONS = PPOOptions(
    episodes=24,
    prompts_per_step=3,
    samples_per_prompt=2,
    epochs_per_rollout=2,
    minibatches=2,
    micro_batch_size=2,
    learning_rate=1e-3,
    warmup_steps=2,
    kl_coef=0.05,
    temperature=1.0,
    top_k=0,
    max_new_tokens=12,
    evaluations=2,
    save_every=1,
)


def test_every_question_comes_once_before_any_comes_twice() -> None:
    asked = [i for step in range(5) for i in ppo.questions_of_step(6, step, 4, seed=1)]
    assert Counter(asked[:6]) == Counter(range(6)) == Counter(asked[6:12])
    assert asked[:6] != asked[6:12]


def test_the_learning_rate_warms_up_and_decays() -> None:
    factors = [ppo.learning_rate_factor(i, updates=6, warmup=2) for i in range(6)]
    assert factors == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_gradient_checkpointing_changes_no_gradient(options: ModelOptions, adapter: Path) -> None:
    torch.manual_seed(0)
    noise = torch.randn(4, 2, 3)
    rollout = Rollout(
        [(5, 6, 7)], [(8, 9, 10), (11,)], -noise[0].abs(), noise[1], noise[2], noise[3], {}
    )
    two = PPOOptions(samples_per_prompt=2, clip_value=100)
    moved = []
    for checkpointing in (False, True):
        model = options.model_copy(update={"gradient_checkpointing": checkpointing})
        actor = ActorCritic(model, adapter)
        torch.manual_seed(1)
        parameters = actor.policy_parameters() | actor.value_parameters()
        # Apart from each other, so that a pass that is run again by the other adapter shows.
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(0.3 * torch.randn_like(parameter))
        optimizer = torch.optim.SGD(parameters.values(), lr=0.0)
        ppo.update(actor, optimizer, rollout, [0], two, pad_id=1)
        moved.append({name: parameter.grad for name, parameter in parameters.items()})
    assert any(gradient.any() for name, gradient in moved[0].items() if ".value." in name)
    for name, gradient in moved[0].items():
        torch.testing.assert_close(moved[1][name], gradient)


@pytest.fixture
def call(
    options: ModelOptions, prompt: PromptOptions, files: dict[str, Path], adapter: Path
) -> dict[str, Any]:
    return {
        "train": files["train"],
        "dev": files["dev"],
        "model": options,
        "prompt": prompt,
        "options": OPTIONS,
        "reward": RewardOptions(),
        "placement": "fine_grained",
        "verifier": "lexical",
        "cache": None,
        "start": adapter,
        "fingerprint": "a",
        "seed": 0,
        "threads": 1,
    }


def _die_in(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    collect = ppo.collect

    def dying(*args: Any, **more: Any) -> Any:
        if more["key"] == f"rollout/{step}":
            raise KeyboardInterrupt
        return collect(*args, **more)

    monkeypatch.setattr(ppo, "collect", dying)


def test_a_run_that_was_cut_off_ends_with_the_same_weights(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo.run(**call, out=tmp_path / "whole", state=tmp_path / "whole.state")
    with monkeypatch.context() as patch:
        _die_in(patch, step=2)
        with pytest.raises(KeyboardInterrupt):
            ppo.run(**call, out=tmp_path / "cut", state=tmp_path / "cut.state")
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / "cut.state" / "step-00000002").is_dir()
    ppo.run(**call, out=tmp_path / "cut", state=tmp_path / "cut.state")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    name = "adapter_model.safetensors"
    assert (whole / name).read_bytes() == (cut / name).read_bytes()
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()
    assert not (tmp_path / "cut.state").exists()


def test_what_is_reported(call: dict[str, Any], tmp_path: Path) -> None:
    ppo.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    metrics = read_jsonl(tmp_path / "out" / "metrics.jsonl")
    steps = [entry for entry in metrics if "kl" in entry]
    evaluations = [entry for entry in metrics if "dev_reward" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    assert [entry["step"] for entry in evaluations] == [0, 2, 4]
    assert steps[0]["kl"] == 0, "the policy begins as the reference"
    assert all(entry["sampler_gap"] < 1e-4 for entry in steps)
    for entry in steps:
        parts = [v for k, v in entry.items() if k.startswith("reward_")]
        assert sum(parts) == pytest.approx(entry["reward"], abs=1e-5)


def test_the_best_policy_on_dev_is_kept(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = iter([{"dev_reward": 1.0}, {"dev_reward": 0.0}, {"dev_reward": 0.5}])
    monkeypatch.setattr(ppo, "evaluate", lambda *_: next(worse))
    ppo.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    start = load_file(call["start"] / "adapter_model.safetensors")
    kept = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all((start[name] == kept[name]).all() for name in start)


def test_a_loss_that_is_not_finite_names_the_step(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exploding(*_: Any) -> Any:
        raise ArithmeticError

    monkeypatch.setattr(ppo, "update", exploding)
    with pytest.raises(InputError, match="ppo, step 1: the loss is not finite"):
        ppo.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    assert not (tmp_path / "out").exists()


def test_a_runaway_policy_stops_the_run(call: dict[str, Any], tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"max_kl": 1e-9, "learning_rate": 1e-2})
    ppo.run(**{**call, "options": options}, out=tmp_path / "out", state=tmp_path / "state")
    steps = [r["step"] for r in read_jsonl(tmp_path / "out" / "metrics.jsonl") if "kl" in r]
    assert steps == [1, 2], "the first rollout is the reference's own"
