"""Direct preference optimization: by hand, and on a tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from citepipe.data.files import read_examples, read_json, read_jsonl, write_jsonl
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.models.load import load_base, load_tokenizer
from citepipe.options import DPOOptions, ModelOptions, PromptOptions
from citepipe.train import dpo
from citepipe.train.dpo import Preference, held_out, losses, pairs
from citepipe.train.trainer import Item, Trainer
from tests.train.conftest import run

GOOD = "Silver River was directed by Anna Berg [1]."
BAD = "It is not known."


def _candidates(*rewarded: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"text": t, "reward": r, "rewards": {"correctness": r}} for t, r in rewarded]


def _write(path: Path, **questions: list[dict[str, Any]]) -> Path:
    records = [{"id": q, "dataset": "asqa", "candidates": c} for q, c in questions.items()]
    write_jsonl(path, records)
    return path


def test_the_best_answer_is_paired_with_the_worst(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "candidates.jsonl",
        a=_candidates(("low", -0.2), ("high", 0.6), ("", 0.9), ("mid", 0.2), ("fair", 0.4)),
        b=_candidates(("same", 0.4), ("same", 0.4), ("other", 0.4)),
        c=_candidates(("x", 0.1), ("y", 0.0)),
        d=_candidates(("alone", 0.1)),
        e=[],
    )
    found = [(p.question, p.chosen, p.rejected) for p in pairs(path)]
    assert found == [("a", "high", "low"), ("c", "x", "y")]
    found = [(p.question, p.chosen, p.rejected) for p in pairs(path, per_question=5)]
    assert found == [("a", "high", "low"), ("a", "fair", "mid"), ("c", "x", "y")]
    # A difference has to be more than the margin: 0.8 is, 0.2 and 0.1 are not.
    assert [p.chosen for p in pairs(path, per_question=5, margin=0.2)] == ["high"]


def test_a_tenth_of_the_questions_is_held_out_with_all_their_pairs() -> None:
    preferences = [Preference(f"q{i // 2}", "x", "y") for i in range(40)]
    held = held_out(preferences, seed=0)
    assert len(held) == 2
    assert held < {preference.question for preference in preferences}
    assert held_out(preferences, seed=0) == held
    assert any(held_out(preferences, seed) != held for seed in range(1, 5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_by_hand(smoothing: float) -> None:
    # Log-ratios of the chosen less the rejected answer: 0, 2 and -2.
    policy = torch.tensor([[-1.0, -3.0], [-1.0, -3.0], [-4.0, -3.0]])
    items = [Item((), 1, both) for both in ((-2.0, -4.0), (-2.0, -2.0), (-3.0, -4.0))]
    found = losses(policy, items, beta=0.5, label_smoothing=smoothing)
    # -log sigmoid(0.5 x) = log(1 + exp(-0.5 x))
    even, right, wrong = math.log(2), math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    smoothed = (1 - smoothing) * (right + wrong) + smoothing * (wrong + right)
    assert float(found["loss"]) == pytest.approx(even + smoothed)
    assert float(found["reward_margin"]) == pytest.approx(0.5 * (0 + 2 - 2))
    assert float(found["reward_accuracy"]) == 1


@pytest.fixture
def call(supervised: dict[str, Any], adapter: Path, tmp_path: Path) -> dict[str, Any]:
    train = supervised["train"]
    questions = {e.id: _candidates((BAD, -0.2), (GOOD, 0.6)) for e in read_examples(train)}
    options = DPOOptions(max_steps=6, batch_size=4, learning_rate=1e-2, evaluations=2, save_every=2)
    return {
        **{key: supervised[key] for key in ("model", "prompt", "fingerprint", "seed", "threads")},
        "samples": _write(tmp_path / "candidates.jsonl", **questions),
        "questions": train,
        "options": options,
        "start": adapter,
    }


def _run(call: dict[str, Any], folder: Path, **changed: Any) -> Path:
    run(dpo, call | changed | {"out": folder / "out", "state": folder / "state"})
    return folder / "out"


def test_training_prefers_the_rewarded_answers(call: dict[str, Any], tmp_path: Path) -> None:
    out = _run(call, tmp_path)
    metrics = read_jsonl(out / "metrics.jsonl")
    steps = [entry for entry in metrics if "loss" in entry]
    evaluations = [entry for entry in metrics if "eval_loss" in entry]
    # The policy begins as the reference, although the adapter was trained with dropout.
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert steps[0]["reward_margin"] == pytest.approx(0, abs=1e-4)
    assert [entry["step"] for entry in evaluations] == [3, 6]
    assert evaluations[-1]["eval_loss"] < math.log(2)
    assert evaluations[-1]["eval_reward_margin"] > 0.1
    assert evaluations[-1]["eval_reward_accuracy"] == 1
    assert not (tmp_path / "state").exists()


def test_reported_margins_are_those_of_plain_passes(
    call: dict[str, Any], tmp_path: Path, options: ModelOptions, prompt: PromptOptions
) -> None:
    changed = call["options"].model_copy(update={"beta": 0.3})
    out = _run(call, tmp_path, options=changed)
    preferences = pairs(call["samples"])
    (held,) = held_out(preferences, call["seed"])
    (example,) = (e for e in read_examples(call["questions"]) if e.id == held)
    tokenizer = load_tokenizer(options)
    asked = encode_prompt(example, prompt, tokenizer)

    def log_prob(adapter: Path, text: str) -> float:
        model = PeftModel.from_pretrained(load_base(options), adapter).eval()
        answer = encode_answer(asked, text, tokenizer, 200)
        ids = torch.tensor([[*asked.token_ids, *answer]])
        scores = model(ids).logits[0, :-1].log_softmax(dim=-1)
        chosen = scores.gather(1, ids[0, 1:, None])[-len(answer) :]
        return float(chosen.sum())

    margins = [log_prob(a, GOOD) - log_prob(a, BAD) for a in (out / "last", call["start"])]
    found = read_jsonl(out / "metrics.jsonl")[-1]["eval_reward_margin"]
    assert found == pytest.approx(0.3 * (margins[0] - margins[1]), abs=1e-4)


def test_a_run_that_was_cut_off_ends_with_the_same_weights_and_reference(
    call: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run(call, tmp_path / "whole")
    with monkeypatch.context() as patch:
        learn = Trainer.learn

        def dying(own: Trainer, items: Any, step: int) -> Any:
            if step == 4:
                raise KeyboardInterrupt
            return learn(own, items, step)

        patch.setattr(Trainer, "learn", dying)
        with pytest.raises(KeyboardInterrupt):
            _run(call, tmp_path / "cut")
    assert len(read_json(tmp_path / "cut" / "state" / "reference.json")) == 12
    with monkeypatch.context() as patch:
        # Computed once: the second run reads what the first has kept.
        patch.delattr(Trainer, "log_probs")
        cut = _run(call, tmp_path / "cut")
    for name in ("adapter_model.safetensors", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


def test_samples_without_pairs_are_one_clear_line(call: dict[str, Any], tmp_path: Path) -> None:
    questions = [e.id for e in read_examples(call["questions"])]
    equal = {q: _candidates((BAD, 0.2), (GOOD, 0.2)) for q in questions}
    call["samples"] = _write(tmp_path / "equal.jsonl", **equal)
    with pytest.raises(InputError, match=r"equal\.jsonl: expected two questions.*dpo\.margin = 0"):
        _run(call, tmp_path)
    assert not (tmp_path / "state").exists()
