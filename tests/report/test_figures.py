"""Figures of scores: where marks, bars and curves stand, and their bytes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from citepipe.report import figures


def test_marks_stand_at_the_scores_with_their_intervals():
    row: dict[str, Any] = {"system": "dist"}
    for name, value in (("citation_recall", 60.0), ("citation_precision", 40.0)):
        at = f"asqa_{name}"
        row |= {at: value, f"{at}_low": value - 5, f"{at}_high": value + 10}
    # A system without citations has no mark.
    [axes] = figures.draw_scores([row, {"system": "bare"}]).axes
    [drawn] = axes.containers
    assert (drawn[0].get_xdata(), drawn[0].get_ydata()) == ([40], [60])
    across, up = (lines.get_segments()[0].tolist() for lines in drawn[2])
    assert (across, up) == ([[35, 60], [50, 60]], [[40, 55], [40, 70]])
    labels = (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
    assert labels == ("asqa", "citation precision (%)", "citation recall (%)")


def test_bars_are_shares_of_statements_over_all_seeds(tmp_path: Path):
    for seed, counts in enumerate(({"supported": 5}, {"supported": 1, "cites nothing": 2})):
        part = {"reasons": {"statements": counts}}
        (tmp_path / f"{seed}").write_text(json.dumps({"first": {"asqa": part}, "other": {}}))
    found = figures.errors([("dist", seed, tmp_path / f"{seed}") for seed in (0, 1)])
    assert found == {"asqa": {"dist": Counter({"supported": 6, "cites nothing": 2})}}
    [axes] = figures.draw_errors(found).axes
    bars = [(bar.get_x(), bar.get_width()) for container in axes.containers for bar in container]
    assert bars == [(0, 75), (75, 25)]


@pytest.fixture
def samples(tmp_path: Path) -> list[tuple[str, int, Path, Path]]:
    """A question with a greedy answer, two samples and the better one of these chosen, a list that
    was ended for it."""
    own = {"dataset": "qampari", "id": "1"}
    texts = [{"text": text, "reward": reward} for text, reward in (("a,", 1.0), ("b", -1.0))]
    record = own | {"candidates": texts, "greedy": {"text": "c", "reward": 0.5}}
    (tmp_path / "candidates.jsonl").write_text(json.dumps(record))
    (tmp_path / "answers.json").write_text(json.dumps([own | {"output": ["a."]}]))
    (tmp_path / "account.json").write_text('{"tokens_sampled": 3000}')
    return [("h_rs", 0, tmp_path / "answers.json", tmp_path / "candidates.jsonl")]


def test_rewards_before_and_after_the_choice(samples: Any):
    found = figures.rewards(samples)
    assert found == {"h_rs": {"greedy": [0.5], "samples": [1, -1], "chosen": [1]}}
    [axes] = figures.draw_samples(found).axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["greedy (mean 0.50)", "samples (mean 0.00)", "chosen (mean 1.00)"]


@pytest.fixture
def models(tmp_path: Path) -> list[tuple[str, int, Path]]:
    """What is taught, what learns from samples, and one seed more of what learns from rewards."""
    steps = {
        ("dist", 0): [{"step": 0, "eval_loss": 1}],
        ("h_rs", 0): [{"step": 0, "eval_loss": 1}],
        ("rl", 0): [{"step": 0, "dev_reward": 1}, {"step": 1, "sampled_tokens": 500}],
        ("rl", 1): [{"step": 1, "sampled_tokens": 500}, {"step": 2, "sampled_tokens": 1000}],
    }
    for (system, seed), lines in steps.items():
        (tmp_path / f"{system}{seed}").mkdir()
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (tmp_path / f"{system}{seed}/metrics.jsonl").write_text(text)
    return [(*run, tmp_path / f"{run[0]}{run[1]}") for run in steps]


def test_what_sampling_costs_and_brings(samples: Any, models: Any):
    starts = {"h_rs": "dist", "rl": "h_rs"}
    tokens = figures.sampled_tokens(models, samples, starts)
    # 3000 of its start, and 500 or 1500 of its own.
    assert tokens == {"dist": 0, "h_rs": 3000, "rl": 4000}
    rows = [{"system": name, "mean_citation_f1": n} for n, name in enumerate([*tokens, "copy"])]
    [axes] = figures.draw_cost(rows, tokens).axes
    places = [(own[0].get_xdata()[0], own[0].get_ydata()[0]) for own in axes.containers]
    assert places == [(0, 0), (3, 1), (4, 2)]


def test_the_same_input_makes_the_same_bytes(samples: Any, models: Any, tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text("system,mean_citation_f1\ndist,3\n")
    outs = []
    for name in ("a", "b"):
        figures.run(table, [], samples, models, {}, tmp_path / name)
        drawn = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        outs.append(drawn)
    assert outs[0] == outs[1]
    names = [
        f"{name}.{kind}"
        for name in ("cost", "errors", "samples", "scores")
        for kind in ("png", "svg")
    ]
    assert sorted(outs[0]) == names
