"""Reinforcement learning on a tiny model: the order of things, and runs that are cut off."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from citepipe.data.files import read_jsonl
from citepipe.errors import InputError
from citepipe.judge import Judgement
from citepipe.options import (
    GRPOOptions,
    ModelOptions,
    PPOOptions,
    PromptOptions,
    RewardOptions,
    RLOOOptions,
)
from citepipe.rewards import Reward
from citepipe.train import learning
from citepipe.train.actor_critic import ActorCritic
from citepipe.train.group_relative import GRPO, RLOO
from citepipe.train.learning import Method
from citepipe.train.micro_batches import TokenBudget
from citepipe.train.ppo import PPO
from citepipe.train.processes import Processes
from citepipe.train.rollout import Asked, Part, Rollout, passes

WEIGHTS = "adapter_model.safetensors"
SETTINGS: dict[str, Any] = {
    "episodes": 24,
    "prompts_per_step": 3,
    "samples_per_prompt": 2,
    "epochs_per_rollout": 2,
    "minibatches": 2,
    "tokens_per_pass": 200,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "kl_coef": 0.05,
    "temperature": 1.0,
    "top_k": 0,
    "max_new_tokens": 12,
    "evaluations": 2,
    "save_every": 1,
}


def _ppo(model: ModelOptions, **more: Any) -> PPO:
    return PPO(PPOOptions(**{**SETTINGS, **more}), model)


def test_every_question_comes_once_before_any_comes_twice() -> None:
    asked = [i for step in range(5) for i in learning.questions_of_step(6, step, 4, seed=1)]
    assert Counter(asked[:6]) == Counter(range(6)) == Counter(asked[6:12])
    assert asked[:6] != asked[6:12]


def test_the_learning_rate_warms_up_and_decays() -> None:
    factors = [learning.learning_rate_factor(i, updates=6, warmup=2) for i in range(6)]
    assert factors == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_the_kl_penalty_moves_toward_its_target() -> None:
    options = PPOOptions(kl_target=4.0, kl_horizon=100)
    # A KL 10 % over the target for 20 of 100 answers: 0.1 * 20 / 100 = 2 % more.
    assert learning.next_kl_coef(0.3, 4.4, 20, options) == pytest.approx(0.3 * 1.02)
    # Far off, either way, counts as 20 %.
    assert learning.next_kl_coef(0.3, 40.0, 20, options) == pytest.approx(0.3 * 1.04)
    assert learning.next_kl_coef(0.3, 0.0, 20, options) == pytest.approx(0.3 * 0.96)
    assert learning.next_kl_coef(0.3, 40.0, 20, PPOOptions()) == 0.3


def _asked(prompt: int, *lengths: int) -> Asked:
    answers = [(7,) * length for length in lengths]
    return Asked((5,) * prompt, answers, [], [], [], [])


def test_answers_to_a_question_stay_together_as_far_as_the_budget_allows() -> None:
    asked = [_asked(10, 5, 5, 5, 5), _asked(10, 4, 4)]
    # Behind one prompt: 30 and 18 tokens, and two rows of 30 are 60.
    both = passes(asked, [0, 1], shared=True, budget=60)
    assert both == [[Part(0, 0, 4), Part(1, 0, 2)]]
    one_each = passes(asked, [0, 1], shared=True, budget=59)
    assert one_each == [[Part(0, 0, 4)], [Part(1, 0, 2)]]
    # Two answers behind a prompt are 20 tokens, and 18.
    split = passes(asked, [0, 1], shared=True, budget=20)
    assert split == [[Part(0, 0, 2)], [Part(0, 2, 4)], [Part(1, 0, 2)]]
    # With a prompt each: 60 tokens in all, 30 of two.
    assert passes(asked, [0], shared=False, budget=30) == [[Part(0, 0, 2)], [Part(0, 2, 4)]]


def _rollout() -> Rollout:
    torch.manual_seed(0)
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    asked = [
        Asked((5, 6, 7), [(8, 9, 10), (11,)], [], [], [], []),
        Asked((9, 10), [(8, 9), (12, 13, 14)], [], [], [], []),
    ]
    noise = torch.randn(4, 4, 3) * mask
    return Rollout(asked, mask, noise[0], -noise[1].abs(), -noise[2].abs(), noise[3], {})


def _gradients(actor: ActorCritic, budget: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    parameters = actor.policy_parameters() | actor.value_parameters()
    optimizer = torch.optim.SGD(parameters.values(), lr=0.0)
    method = PPO(PPOOptions(samples_per_prompt=2, clip_value=100), ModelOptions(base="x"))
    rollout = _rollout()
    figures = learning.update(
        actor,
        optimizer,
        method,
        rollout,
        method.targets(rollout, 0.1),
        [0, 1],
        1,
        TokenBudget(budget, False, "rl"),
        Processes(),
    )
    return {name: p.grad for name, p in parameters.items() if p.grad is not None}, figures


def test_neither_checkpointing_nor_the_budget_changes_a_gradient(
    options: ModelOptions, adapter: Path
) -> None:
    found = []
    for checkpointing, budget in ((False, 1000), (True, 1000), (False, 5)):
        model = options.model_copy(update={"gradient_checkpointing": checkpointing})
        actor = ActorCritic(model, adapter, "adapter")
        torch.manual_seed(1)
        # Apart from each other, so that a pass that is run again by the other adapter shows.
        with torch.no_grad():
            for parameter in (actor.policy_parameters() | actor.value_parameters()).values():
                parameter.add_(0.3 * torch.randn_like(parameter))
        found.append(_gradients(actor, budget))
    plain, plain_figures = found[0]
    assert any(gradient.any() for name, gradient in plain.items() if ".value." in name)
    for gradients, figures in found[1:]:
        assert figures == pytest.approx(plain_figures, rel=1e-4)
        assert gradients.keys() == plain.keys()
        for name, gradient in plain.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.fixture
def call(
    options: ModelOptions, prompt: PromptOptions, files: dict[str, Path], adapter: Path
) -> dict[str, Any]:
    return {
        "train": files["train"],
        "dev": files["dev"],
        "model": options,
        "prompt": prompt,
        "method": _ppo(options),
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
    collect = learning.collect

    def dying(*args: Any) -> Any:
        if f"rollout/{step}" in args:
            raise KeyboardInterrupt
        return collect(*args)

    monkeypatch.setattr(learning, "collect", dying)


class LetterRewarder:
    """Rewards every vowel where it stands: answers of a tiny model differ in that at least."""

    def __init__(self, *_: Any) -> None:
        pass

    def spans(self, _: Any, answers: list[str]) -> list[list[Reward]]:
        return [
            [Reward("correctness", i, 0.1) for i, letter in enumerate(answer) if letter in "aeiou"]
            for answer in answers
        ]

    def judged(self, examples: Any, answers: list[str]) -> list[tuple[Judgement, list[Reward]]]:
        return [(Judgement((), ()), rewards) for rewards in self.spans(examples, answers)]


METHODS = {
    "ppo": _ppo,
    "ppo with a shared trunk": lambda model: _ppo(model, value="shared", kl_target=0.01),
    "grpo": lambda _: GRPO(GRPOOptions(**SETTINGS), "fine_grained"),
    "rloo": lambda _: RLOO(RLOOOptions(**SETTINGS), "holistic"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_cut_off_ends_with_the_same_weights(
    name: str,
    call: dict[str, Any],
    options: ModelOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning, "Rewarder", LetterRewarder)
    call["method"] = METHODS[name](options)
    learning.run(**call, out=tmp_path / "whole", state=tmp_path / "whole.state")
    with monkeypatch.context() as patch:
        _die_in(patch, step=2)
        with pytest.raises(KeyboardInterrupt):
            learning.run(**call, out=tmp_path / "cut", state=tmp_path / "cut.state")
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / "cut.state" / "step-00000002").is_dir()
    learning.run(**call, out=tmp_path / "cut", state=tmp_path / "cut.state")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for file in (WEIGHTS, f"last/{WEIGHTS}", "metrics.jsonl"):
        assert (whole / file).read_bytes() == (cut / file).read_bytes()
    assert not (tmp_path / "cut.state").exists()
    start, last = load_file(call["start"] / WEIGHTS), load_file(whole / "last" / WEIGHTS)
    assert any((start[key] != last[key]).any() for key in start), "it learnt"


@pytest.mark.parametrize("value", ["adapter", "shared"])
def test_the_value_model_may_learn_before_the_policy(
    value: str, call: dict[str, Any], tmp_path: Path
) -> None:
    call["method"] = _ppo(call["model"], value=value, value_warmup=4, warmup_steps=0)
    learning.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    start, last = (load_file(f / WEIGHTS) for f in (call["start"], tmp_path / "out" / "last"))
    assert all(torch.equal(start[name], last[name]) for name in start)
    steps = [m for m in read_jsonl(tmp_path / "out" / "metrics.jsonl") if "value_loss" in m]
    assert len(steps) == 4
    assert steps[-1]["value_loss"] != steps[0]["value_loss"]
    assert not any("policy_loss" in entry or "grad_norm" in entry for entry in steps)


def test_a_changed_configuration_starts_clean_and_says_so(
    call: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        _die_in(patch, step=2)
        with pytest.raises(KeyboardInterrupt):
            learning.run(**call, out=tmp_path / "cut", state=tmp_path / "state")
    call |= {"fingerprint": "b", "seed": 1}
    learning.run(**call, out=tmp_path / "cut", state=tmp_path / "state")
    assert "ppo: starting clean" in capsys.readouterr().err
    learning.run(**call, out=tmp_path / "whole", state=tmp_path / "other")
    assert (tmp_path / "cut" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_what_is_reported(call: dict[str, Any], tmp_path: Path) -> None:
    learning.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    metrics = read_jsonl(tmp_path / "out" / "metrics.jsonl")
    steps = [entry for entry in metrics if "kl" in entry]
    evaluations = [entry for entry in metrics if "dev_reward" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    assert [entry["step"] for entry in evaluations] == [0, 2, 4]
    assert steps[0]["kl"] == 0, "the policy begins as the reference"
    assert all(entry["sampler_gap"] < 1e-4 for entry in steps)
    assert all(0 < entry["entropy"] < 7 for entry in steps), "log(320 tokens) is 5.8"
    for entry in steps:
        parts = [entry[f"reward_{name}"] for name in ("citation_recall", "citation_precision")]
        assert sum(parts) + entry["reward_correctness"] == pytest.approx(entry["reward"], abs=1e-5)
    for entry in evaluations:
        recall, precision = entry["dev_citation_rec"], entry["dev_citation_prec"]
        both = recall + precision
        expected = 2 * recall * precision / both if both else 0.0
        assert entry["dev_citation_f1"] == pytest.approx(expected)


def test_the_best_policy_on_dev_is_kept_and_the_last_beside_it(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = iter([{"dev_reward": 1.0}, {"dev_reward": 0.0}, {"dev_reward": 0.5}])
    monkeypatch.setattr(learning, "evaluate", lambda *_: (next(worse), []))
    learning.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    start = load_file(call["start"] / WEIGHTS)
    kept, last = (load_file(tmp_path / "out" / path) for path in (WEIGHTS, f"last/{WEIGHTS}"))
    assert all((start[name] == kept[name]).all() for name in start)
    assert any((start[name] != last[name]).any() for name in start)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_state(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = learning.collect

    def broken(*args: Any) -> Any:
        rollout = collect(*args)
        if "rollout/2" in args:
            rollout.rewards[0, 0] = float("nan")
        return rollout

    with monkeypatch.context() as patch:
        patch.setattr(learning, "collect", broken)
        with pytest.raises(InputError, match="ppo, step 3: the loss is not finite"):
            learning.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "state" / "step-00000002").is_dir()
    learning.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    learning.run(**call, out=tmp_path / "whole", state=tmp_path / "other")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_memory_that_runs_out_within_an_update_counts_no_gradient_twice(
    options: ModelOptions, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, figures = _gradients(ActorCritic(options, adapter, "adapter"), 10)
    actor = ActorCritic(options, adapter, "adapter")
    backward, passed = actor.backward, []

    def failing(*args: Any) -> None:
        backward(*args)
        passed.append(1)
        if len(passed) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(actor, "backward", failing)
    again, other_figures = _gradients(actor, 10)
    assert len(passed) > 3
    assert other_figures == pytest.approx(figures, rel=1e-4)
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5)


def test_a_runaway_policy_stops_the_run(call: dict[str, Any], tmp_path: Path) -> None:
    call["method"] = _ppo(call["model"], max_kl=1e-9, learning_rate=1e-2)
    learning.run(**call, out=tmp_path / "out", state=tmp_path / "state")
    steps = [r["step"] for r in read_jsonl(tmp_path / "out" / "metrics.jsonl") if "kl" in r]
    assert steps == [1, 2], "the first rollout is the reference's own"


TWO = """
import pickle, sys
from pathlib import Path
from citepipe.train import learning
learning.run(**pickle.loads(Path(sys.argv[1]).read_bytes()))
"""


def test_two_processes_learn_what_one_does(call: dict[str, Any], tmp_path: Path) -> None:
    call["method"] = _ppo(call["model"], minibatches=1)
    learning.run(**call, out=tmp_path / "one", state=tmp_path / "one.state")
    told = tmp_path / "call.pickle"
    told.write_bytes(pickle.dumps({**call, "out": tmp_path / "two", "state": tmp_path / "state"}))
    (tmp_path / "two.py").write_text(TWO)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(tmp_path / "two.py"), str(told)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )
    one, two = (read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(two)
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-3, abs=1e-4)
    alone, together = (load_file(tmp_path / n / "last" / WEIGHTS) for n in ("one", "two"))
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=2e-4, rtol=0)


def test_a_method_says_what_it_is(options: ModelOptions) -> None:
    methods: list[Method] = [
        _ppo(options),
        GRPO(GRPOOptions(), "holistic"),
        RLOO(RLOOOptions(), "fine_grained"),
    ]
    assert [(m.name, m.value_kind) for m in methods] == [
        ("ppo", "adapter"),
        ("grpo", None),
        ("rloo", None),
    ]
    assert PPO(PPOOptions(), options.model_copy(update={"adapter": None})).value_kind == "shared"
