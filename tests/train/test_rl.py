"""Reinforcement learning on a tiny model: the order of things, and runs that are cut off."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from citepipe.data.example import Example
from citepipe.data.files import read_jsonl
from citepipe.errors import InputError
from citepipe.generate.completion import Completion
from citepipe.judge import Judgement
from citepipe.options import GRPOOptions, ModelOptions, PPOOptions, PromptOptions, RewardOptions
from citepipe.rewards import Reward
from citepipe.train import rl
from citepipe.train.actor_critic import ActorCritic
from citepipe.train.batch import Row
from citepipe.train.job import Job
from citepipe.train.methods import METHODS, Rollout, Sample
from citepipe.train.rl import Learner

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


def test_every_question_comes_once_before_any_comes_twice() -> None:
    chosen = [i for step in range(5) for i in rl.questions_of_step(6, step, 4, seed=1)]
    assert Counter(chosen[:6]) == Counter(range(6)) == Counter(chosen[6:12])
    assert chosen[:6] != chosen[6:12]


def test_the_learning_rate_warms_up_and_decays() -> None:
    factors = [rl.learning_rate_factor(i, updates=6, warmup=2) for i in range(6)]
    assert factors == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_the_kl_penalty_moves_toward_its_target() -> None:
    options = PPOOptions(kl_target=4.0, kl_horizon=100)
    # A KL 10 % over the target for 20 of 100 answers: 0.1 * 20 / 100 = 2 % more.
    assert rl.next_kl_coef(0.3, 4.4, 20, options) == pytest.approx(0.3 * 1.02)
    # Far off, either way, counts as 20 %.
    assert rl.next_kl_coef(0.3, 40.0, 20, options) == pytest.approx(0.3 * 1.04)
    assert rl.next_kl_coef(0.3, 0.0, 20, options) == pytest.approx(0.3 * 0.96)
    assert rl.next_kl_coef(0.3, 40.0, 20, PPOOptions()) == 0.3


def _gradients(
    actor: ActorCritic, budget: int, start_over_after: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradients of an update on two questions; memory runs out once, after so many passes."""
    torch.manual_seed(0)
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    prompts = [(5, 6, 7)] * 2 + [(9, 10)] * 2
    answers = [(8, 9, 10), (11,), (8, 9), (12, 13, 14)]
    samples = [Sample(Row(p, a), "", [], {}, []) for p, a in zip(prompts, answers, strict=True)]
    noise = torch.randn(4, 4, 3) * mask
    rollout = Rollout(samples, mask, noise[0], -noise[1].abs(), -noise[2].abs(), noise[3], {})
    options = PPOOptions(samples_per_prompt=2, clip_value=100, tokens_per_pass=budget)
    learner: Any = Learner("ppo", options, "fine_grained", actor, None, None, 1, 0)  # type: ignore[arg-type]
    parameters = actor.policy_parameters() | actor.value_parameters()
    learner.optimizer = torch.optim.SGD(parameters.values(), lr=0.0)
    backward, passed = actor.backward, []

    def counting(*arguments: Any) -> None:
        backward(*arguments)
        passed.append(arguments)
        if len(passed) == start_over_after:
            raise torch.OutOfMemoryError("CUDA out of memory")

    actor.backward = counting  # type: ignore[method-assign]
    figures = learner.update(rollout, METHODS["ppo"].targets(rollout, options, 0.1, True), [0, 1])
    assert not start_over_after or len(passed) > start_over_after + 1
    return {name: p.grad for name, p in parameters.items() if p.grad is not None}, figures


def test_neither_checkpointing_nor_passes_nor_a_lack_of_memory_change_a_gradient(
    options: ModelOptions, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("citepipe.train.batch._SMALLEST_PASS", 1)
    found = []
    for checkpointing, budget, fails in ((0, 1000, 0), (1, 1000, 0), (0, 5, 0), (0, 10, 2)):
        model = options.model_copy(update={"gradient_checkpointing": bool(checkpointing)})
        actor = ActorCritic(model, adapter, with_values=True)
        torch.manual_seed(1)
        # Apart from each other, so that a pass that is run again by the other adapter shows.
        with torch.no_grad():
            for parameter in (actor.policy_parameters() | actor.value_parameters()).values():
                parameter.add_(0.3 * torch.randn_like(parameter))
        found.append(_gradients(actor, budget, fails))
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
    """What `_run` takes; keys of `Job` and of options may be replaced."""
    return {
        "train": files["train"],
        "dev": files["dev"],
        "reward": RewardOptions(),
        "verifier": "lexical",
        "cache": None,
        "model": options,
        "prompt": prompt,
        "start": adapter,
    }


def _run(call: dict[str, Any], out: Path, method: str = "ppo", **more: Any) -> None:
    job = {"fingerprint": "a", "seed": 0, "threads": 1, "state": out.with_suffix(".state")}
    job |= {key: call[key] for key in ("model", "prompt", "start")}
    job |= {key: more.pop(key) for key in list(more) if key in job}
    rl.run(
        Job(out=out, **job),
        method=method,
        placement=more.pop("placement", "fine_grained"),
        options=METHODS[method].options(**SETTINGS | more),
        **{key: value for key, value in call.items() if key not in job},
    )


def _die_in(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    collect = Learner.collect

    def dying(learner: Learner, examples: Any, prompts: Any, key: str) -> Rollout:
        if key == f"rollout/{step}":
            raise KeyboardInterrupt
        return collect(learner, examples, prompts, key)

    monkeypatch.setattr(Learner, "collect", dying)


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


@pytest.mark.parametrize(
    ("method", "trained", "more"),
    [
        ("ppo", "adapter", {}),
        ("ppo", "whole", {"kl_target": 0.01}),
        ("grpo", "adapter", {}),
        ("rloo", "adapter", {"placement": "holistic"}),
    ],
)
def test_a_run_that_was_cut_off_ends_with_the_same_weights(
    method: str,
    trained: str,
    more: dict[str, Any],
    call: dict[str, Any],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rl, "Rewarder", LetterRewarder)
    weights = WEIGHTS
    if trained == "whole":
        weights = "model.safetensors"
        call |= {"model": call["model"].model_copy(update={"adapter": None}), "start": whole}
    quiet, cut = tmp_path / "quiet", tmp_path / "cut"
    _run(call, quiet, method, **more)
    with monkeypatch.context() as patch:
        _die_in(patch, step=2)
        with pytest.raises(KeyboardInterrupt):
            _run(call, cut, method, **more)
    assert not cut.exists()
    assert (tmp_path / "cut.state" / "step-00000002").is_dir()
    _run(call, cut, method, **more)
    for file in (weights, f"last/{weights}", "metrics.jsonl"):
        assert (quiet / file).read_bytes() == (cut / file).read_bytes()
    assert not (tmp_path / "cut.state").exists()
    start, last = load_file(call["start"] / weights), load_file(quiet / "last" / weights)
    assert any((start[key] != last[key]).any() for key in start), "it learnt"


def test_the_value_model_may_learn_before_the_policy(call: dict[str, Any], tmp_path: Path) -> None:
    _run(call, tmp_path / "out", value_warmup=4, warmup_steps=0)
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
    for step, fingerprint in ((1, "a"), (0, "b")):
        with monkeypatch.context() as patch:
            _die_in(patch, step)
            with pytest.raises(KeyboardInterrupt):
                _run(call, tmp_path / "out", fingerprint=fingerprint)
    assert "ppo: starting clean" in capsys.readouterr().err


def test_what_is_reported(call: dict[str, Any], tmp_path: Path) -> None:
    _run(call, tmp_path / "out")
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


def test_citation_scores_on_dev_are_means_over_datasets(
    options: ModelOptions, adapter: Path
) -> None:
    answers = {
        "asqa": [SimpleNamespace(citation_rec=100, citation_prec=100)],
        "eli5": [SimpleNamespace(citation_rec=20, citation_prec=20)],
    }
    answers["asqa"].append(SimpleNamespace(citation_rec=0, citation_prec=50))
    judged = [(own, [Reward("correctness", 0, 0.5)]) for each in answers.values() for own in each]
    judged[0] = judged[0][0], [Reward("correctness", 0, -0.1)]
    examples = [
        Example(id=str(i), dataset=name, question="?", docs=())  # type: ignore[arg-type]
        for i, name in enumerate(("asqa", "asqa", "eli5"))
    ]
    generator = SimpleNamespace(
        generate=lambda requests: [[Completion((5,), "A", ((0, 1),), (), "end")]] * len(requests)
    )
    actor: Any = ActorCritic(options, adapter, with_values=False)
    rewarder: Any = SimpleNamespace(judged=lambda *_: judged)
    learner = Learner("grpo", GRPOOptions(), "holistic", actor, generator, rewarder, 1, 0)
    figures, shown = learner.evaluate(examples, [(5,)] * 3)
    # ASQA: recall 50, precision 75, F1 60.
    assert figures == pytest.approx(
        {
            "dev_reward": 0.3,
            "dev_correctness": 0.3,
            "dev_citation_recall": 0,
            "dev_citation_precision": 0,
            "dev_citation_f1": 40,
            "dev_citation_rec": 35,
            "dev_citation_prec": 47.5,
            "dev_tokens": 1,
        }
    )
    assert [(row["answer"], row["reward"]) for row in shown] == [
        ("A", -0.1),
        ("A", 0.5),
        ("A", 0.5),
    ]


def test_the_best_policy_on_dev_is_kept_and_the_last_beside_it(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = iter([{"dev_reward": 1.0}, {"dev_reward": 0.0}, {"dev_reward": 0.5}])
    monkeypatch.setattr(Learner, "evaluate", lambda *_: (next(worse), []))
    _run(call, tmp_path / "out")
    start = load_file(call["start"] / WEIGHTS)
    kept, last = (load_file(tmp_path / "out" / path) for path in (WEIGHTS, f"last/{WEIGHTS}"))
    assert all((start[name] == kept[name]).all() for name in start)
    assert any((start[name] != last[name]).any() for name in start)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_state(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = Learner.collect

    def broken(learner: Learner, examples: Any, prompts: Any, key: str) -> Rollout:
        rollout = collect(learner, examples, prompts, key)
        if key == "rollout/2":
            rollout.rewards[0, 0] = float("nan")
        return rollout

    monkeypatch.setattr(Learner, "collect", broken)
    with pytest.raises(InputError, match="ppo, step 3: the loss is not finite"):
        _run(call, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.state" / "step-00000002").is_dir()


def test_a_runaway_policy_stops_the_run(call: dict[str, Any], tmp_path: Path) -> None:
    _run(call, tmp_path / "out", max_kl=1e-9, learning_rate=1e-2)
    steps = [r["step"] for r in read_jsonl(tmp_path / "out" / "metrics.jsonl") if "kl" in r]
    assert steps == [1, 2], "the first rollout is the reference's own"


TWO = """
import pickle, sys
from pathlib import Path
from tests.train.test_rl import _run
_run(*pickle.loads(Path(sys.argv[1]).read_bytes()), minibatches=1)
"""


def test_two_processes_learn_what_one_does(call: dict[str, Any], tmp_path: Path) -> None:
    _run(call, tmp_path / "one", minibatches=1)
    (tmp_path / "call.pickle").write_bytes(pickle.dumps((call, tmp_path / "two")))
    (tmp_path / "two.py").write_text(TWO)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*torchrun, "--nproc-per-node", "2", tmp_path / "two.py", tmp_path / "call.pickle"],
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
