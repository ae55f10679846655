"""Reinforcement learning on a tiny model: the order of things, and what is reported."""

from __future__ import annotations

import json
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
from citepipe.options import GRPOOptions, ModelOptions, PPOOptions, RewardOptions
from citepipe.rewards import COMPONENTS, Reward
from citepipe.text.statements import Answer
from citepipe.train import rl
from citepipe.train.actor_critic import ActorCritic
from citepipe.train.batch import Row
from citepipe.train.methods import METHODS, Rollout, Sample
from citepipe.train.rl import Learner
from tests.train.conftest import ADAPTER, Stage


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


def test_citing_pays_above_a_share_that_the_sizes_decide() -> None:
    # Right: 0.3 + 0.1, wrong: -0.4, uncited: -0.3. At 1 in 8: 0.05 - 0.35 = -0.3.
    reward = RewardOptions(citation_recall=0.3, citation_precision=0.1)
    line = "13% of the start's sampled citations are right, citing pays above 12%"
    assert rl.whether_citing_pays(0.13, reward) == line
    assert rl.whether_citing_pays(0.12, reward).startswith(
        "12% of the start's sampled citations are right, citing pays above 12%: it does not pay"
    )


def test_a_rollout_tells_rewards_and_the_share_of_right_citations() -> None:
    totals = dict.fromkeys(COMPONENTS, 0.0)
    # An answer of one token may have a whole number for a reward.
    given: list[tuple[list[float], Any]] = [([0], (True, False, True)), ([0.0, -0.2], (False,))]
    scored = [
        (
            Sample(Row((5,), (6,) * len(r)), "", r, totals, [0.0] * len(r), cited),
            (torch.zeros(len(r)),) * 3,
        )
        for r, cited in given
    ]
    found = rl._rollout(scored)
    torch.testing.assert_close(found.rewards, torch.tensor([[0.0, 0.0], [0.0, -0.2]]))
    assert found.figures["reward"] == pytest.approx(-0.1)
    assert found.figures["sampled_tokens"] == 3
    assert (found.figures["citations"], found.figures["citations_right"]) == (2, 0.5)


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
def ppo(reinforced: dict[str, Stage]) -> Stage:
    return reinforced["ppo"]


def test_the_value_model_may_learn_before_the_policy(ppo: Stage, tmp_path: Path) -> None:
    out = ppo.run(tmp_path, value_warmup=4, warmup_steps=0)
    start, last = (load_file(folder / ADAPTER) for folder in (ppo.call["start"], out / "last"))
    assert all(torch.equal(start[name], last[name]) for name in start)
    steps = [entry for entry in read_jsonl(out / "metrics.jsonl") if "value_loss" in entry]
    assert len(steps) == 4
    assert steps[-1]["value_loss"] != steps[0]["value_loss"]
    assert not any("policy_loss" in entry or "grad_norm" in entry for entry in steps)


def test_what_is_reported(ppo: Stage, tmp_path: Path) -> None:
    out = ppo.run(tmp_path)
    metrics = read_jsonl(out / "metrics.jsonl")
    steps = [entry for entry in metrics if "kl" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    assert [entry["step"] for entry in metrics if "dev_reward" in entry] == [0, 2, 4]
    assert steps[0]["kl"] == 0, "the policy begins as the reference"
    assert all(entry["sampler_gap"] < 1e-4 for entry in steps)
    assert all(0 < entry["entropy"] < 7 for entry in steps), "log(320 tokens) is 5.8"
    for entry in steps:
        parts = [entry[f"reward_{name}"] for name in COMPONENTS]
        assert sum(parts) == pytest.approx(entry["reward"], abs=1e-5)
    samples = read_jsonl(out / "samples.jsonl")
    assert [own["step"] for own in samples] == [0] * 4 + [2] * 4 + [4] * 4
    for own in samples:
        found = sum(sum(parts.values()) for _, _, parts in own["standing"])
        assert found == pytest.approx(own["reward"], abs=1e-5)


def test_citation_scores_on_dev_are_means_over_datasets(
    options: ModelOptions, adapter: Path
) -> None:
    cited = [("asqa", 100, 100, -0.1), ("asqa", 0, 50, 0.5), ("eli5", 20, 20, 0.5)]
    verdict = SimpleNamespace(citations=["[1]", "[2]"])
    judged = [
        (
            SimpleNamespace(citation_rec=r, citation_prec=p, statements=[verdict] * (r > 0)),
            [Reward("correctness", 0, value)],
        )
        for _, r, p, value in cited
    ]
    examples = [Example(str(i), own[0], "?", ()) for i, own in enumerate(cited)]  # type: ignore[arg-type]
    generator = SimpleNamespace(
        generate=lambda requests, _: [[Completion((5,), "A", ((0, 1),), (), "end")]] * len(requests)
    )
    actor: Any = ActorCritic(options, adapter, with_values=False)
    read = [Answer("sane", "A", "A", "A", ())] * 3
    rewarder: Any = SimpleNamespace(judged=lambda *_: judged, read=lambda *_: read)
    learner = Learner("grpo", GRPOOptions(), "holistic", actor, generator, rewarder, 1, 0)
    # Another verifier supports nothing but the last; its rewards are not looked at.
    none = [(SimpleNamespace(citation_rec=0, citation_prec=0), [])] * 2
    learner.judges["_strict"] = SimpleNamespace(judged=lambda *_: [*none, judged[2]])  # type: ignore[assignment]
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
            "dev_citation_f1_strict": 10,
            "dev_citation_rec_strict": 10,
            "dev_citation_prec_strict": 10,
            "dev_citations": 4 / 3,
            "dev_tokens": 1,
            **dict.fromkeys(("dev_copied_run", "dev_citations_per_statement"), 0),
            **dict.fromkeys(("dev_refusals", "dev_repeated"), 0),
        }
    )
    assert [(row["answer"], row["reward"]) for row in shown] == [("A", own[3]) for own in cited]


def test_a_policy_that_cites_less_than_its_start_is_told_of(
    ppo: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = ((0.0, 2.0), (1.0, 1.5), (0.5, 3.0))
    found = iter([{"dev_reward": reward, "dev_citations": count} for reward, count in figures])
    monkeypatch.setattr(Learner, "evaluate", lambda *_: (next(found), []))
    ppo.run(tmp_path)
    said = "ppo: the published policy cites less on dev than its start, 1.50 citations per answer"
    assert said in capsys.readouterr().err


def test_the_best_policy_on_dev_is_kept_and_the_last_beside_it(
    ppo: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = iter([{"dev_reward": 1.0}, {"dev_reward": 0.0}, {"dev_reward": 0.5}])
    monkeypatch.setattr(Learner, "evaluate", lambda *_: (next(worse), []))
    out = ppo.run(tmp_path)
    folders = ppo.call["start"], out, out / "last"
    start, kept, last = (load_file(folder / ADAPTER) for folder in folders)
    assert all((start[name] == kept[name]).all() for name in start)
    card = (out / "README.md").read_text()
    assert f"--model {out}\n" in card
    made = json.loads(card.partition("```json\n")[2].partition("```")[0])
    assert (made["trained"], made["from"]) == ("ppo", str(folders[0]))
    assert made["kept step"] == {"step": 0, "dev_reward": 1.0}
    assert any((start[name] != last[name]).any() for name in start)


def test_a_policy_that_games_the_rewards_is_not_kept_and_ends_the_run(
    ppo: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What is better by both is kept; then rewards rise and the other verifier's figure falls.
    figures = iter([(0.0, 50.0), (1.0, 60.0), (2.0, 40.0), (1.5, 59.0), (9.0, 99.0)])
    names = "dev_reward", "dev_citation_f1_other"
    found = (dict(zip(names, own, strict=True)) for own in figures)
    monkeypatch.setattr(Learner, "evaluate", lambda *_: (next(found), []))
    changed = {"watch": ("other", "lexical"), "stop_when_diverging": True, "evaluations": 4}
    metrics = read_jsonl(ppo.run(tmp_path, **changed) / "metrics.jsonl")
    assert [own["step"] for own in metrics if "dev_reward" in own] == [0, 1, 2, 3]
    said = capsys.readouterr().err
    assert "stopped at step 3, rewards rise (dev_reward 1.000 -> 1.500) and" in said
    assert "(dev_citation_f1_other 60.000 -> 59.000); step 1 is kept" in said


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_state(
    ppo: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = Learner.collect

    def broken(learner: Learner, examples: Any, prompts: Any, key: str) -> Rollout:
        rollout = collect(learner, examples, prompts, key)
        if key == "rollout/2":
            rollout.rewards[0, 0] = float("nan")
        return rollout

    monkeypatch.setattr(Learner, "collect", broken)
    with pytest.raises(InputError, match="ppo, step 3: the loss is not finite"):
        ppo.run(tmp_path)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "state" / "step-00000002").is_dir()


def test_a_runaway_policy_stops_the_run(ppo: Stage, tmp_path: Path) -> None:
    out = ppo.run(tmp_path, max_kl=1e-9, learning_rate=1e-2)
    kl = [entry["kl"] for entry in read_jsonl(out / "metrics.jsonl") if "kl" in entry]
    *before, last = kl
    assert last > 1e-9 >= max(before), "the first rollout is the reference's own"
    assert len(kl) < 4
