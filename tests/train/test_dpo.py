"""Direct preference optimization: by hand, and on a tiny model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from citepipe.data.files import read_examples, read_jsonl
from citepipe.errors import InputError
from citepipe.models.encode import encode_answer, encode_prompt
from citepipe.models.load import load_base, load_tokenizer
from citepipe.options import ModelOptions, PromptOptions
from citepipe.train.dpo import Preference, held_out, losses, pairs
from citepipe.train.trainer import Item
from tests.train.conftest import BAD, GOOD, Stage, candidates, write_candidates


def test_the_best_answer_is_paired_with_the_worst(tmp_path: Path) -> None:
    path = write_candidates(
        tmp_path / "candidates.jsonl",
        a=candidates(("low", -0.2), ("high", 0.6), ("", 0.9), ("mid", 0.2), ("fair", 0.4)),
        b=candidates(("same", 0.4), ("same", 0.4), ("other", 0.4)),
        c=candidates(("x", 0.1), ("y", 0.0)),
        d=candidates(("alone", 0.1)),
        e=[],
    )
    assert pairs(path) == [("a", "high", "low"), ("c", "x", "y")]
    found = pairs(path, per_question=5)
    assert found == [("a", "high", "low"), ("a", "fair", "mid"), ("c", "x", "y")]
    # A difference has to be more than the margin: 0.8 is, 0.2 and 0.1 are not.
    assert pairs(path, per_question=5, margin=0.2) == [("a", "high", "low")]


def test_a_tenth_of_the_questions_is_held_out_with_all_their_pairs() -> None:
    preferences = [Preference(f"q{i // 2}", "x", "y") for i in range(40)]
    held = held_out(preferences, seed=0)
    assert len(held) == 2
    assert held < {preference.question for preference in preferences}
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


def test_training_prefers_the_rewarded_answers(preferring: Stage, tmp_path: Path) -> None:
    metrics = read_jsonl(preferring.run(tmp_path) / "metrics.jsonl")
    steps = [entry for entry in metrics if "loss" in entry]
    evaluations = [entry for entry in metrics if "eval_loss" in entry]
    # The policy begins as the reference, although the adapter was trained with dropout.
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert steps[0]["reward_margin"] == pytest.approx(0, abs=1e-4)
    assert [entry["step"] for entry in evaluations] == [0, 3, 6]
    assert evaluations[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert evaluations[-1]["eval_loss"] < math.log(2)
    assert evaluations[-1]["eval_reward_margin"] > 0.1
    assert evaluations[-1]["eval_reward_accuracy"] == 1


def test_reported_margins_are_those_of_plain_passes(
    preferring: Stage, tmp_path: Path, options: ModelOptions, prompt: PromptOptions
) -> None:
    out, call = preferring.run(tmp_path, beta=0.3), preferring.call
    (held,) = held_out(pairs(call["samples"]), call["seed"])
    (example,) = (e for e in read_examples(call["questions"]) if e.id == held)
    tokenizer = load_tokenizer(options)
    asked = encode_prompt(example, prompt, tokenizer)

    def log_prob(adapter: Path, text: str) -> float:
        model = PeftModel.from_pretrained(load_base(options), adapter).eval()
        answer = encode_answer(asked, text, tokenizer, 200)
        ids = torch.tensor([[*asked.token_ids, *answer]])
        scores = model(ids).logits[0, :-1].log_softmax(dim=-1)
        return float(scores.gather(1, ids[0, 1:, None])[-len(answer) :].sum())

    margins = [log_prob(a, GOOD) - log_prob(a, BAD) for a in (out / "last", call["start"])]
    found = read_jsonl(out / "metrics.jsonl")[-1]["eval_reward_margin"]
    assert found == pytest.approx(0.3 * (margins[0] - margins[1]), abs=1e-4)


def test_samples_without_pairs_are_one_clear_line(preferring: Stage, tmp_path: Path) -> None:
    equal = {f"train-{i}": candidates((BAD, 0.2), (GOOD, 0.2)) for i in range(12)}
    samples = write_candidates(tmp_path / "equal.jsonl", **equal)
    with pytest.raises(InputError, match=r"equal\.jsonl: expected two questions.*dpo\.margin = 0"):
        preferring.run(tmp_path, samples=samples)
    assert not (tmp_path / "state").exists()
