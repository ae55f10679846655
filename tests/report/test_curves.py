"""Learning curves: the points, the picture's lines and marks, and its bytes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from citepipe.errors import InputError
from citepipe.report import curves

Runs = list[tuple[str, int, Path]]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """A fine-tuned system with one seed; one that learnt from rewards, its second seed shorter."""
    fitted = [{"step": 1, "loss": 2.0, "learning_rate": 0.1}, {"step": 2, "loss": 1.0}]
    fitted += [{"step": step, "eval_loss": loss} for step, loss in ((2, 1.5), (4, 1.25), (6, 1.25))]
    fitted += [{"step": 6, "runtime": 3.5}]

    def reinforced(*rewards: float) -> list[dict[str, float]]:
        parts = {"dev_correctness": 0.5, "kl": 0.5, "entropy": 1.0}
        return [
            {"step": step, "dev_reward": x, "dev_citation_recall": x - 0.5, **parts}
            | {"dev_citation_f1": 100 * x, "dev_citation_f1_oracle": 50 * x, "dev_tokens": 9}
            for step, x in enumerate(rewards)
        ]

    return [
        ("dist", 0, write(tmp_path / "dist.jsonl", fitted)),
        ("fg_rl", 0, write(tmp_path / "a.jsonl", reinforced(0.5, 0.75, 1.0, 0.625))),
        ("fg_rl", 1, write(tmp_path / "b.jsonl", reinforced(0.5, 0.25, 0.5))),
    ]


def lines(axes: Any, marker: str = "None") -> list[tuple[list[float], list[float]]]:
    """The curves of a panel, thin ones first, or its dots."""
    drawn = [line for line in axes.get_lines() if line.get_marker() == marker]
    drawn.sort(key=lambda line: line.get_linewidth())
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in drawn]


def test_the_points_are_tidy(runs: Runs, tmp_path: Path):
    summary = curves.run(runs, tmp_path / "curves.svg", tmp_path / "curves.csv")
    with (tmp_path / "curves.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["system", "seed", "step", "name", "value"]
    fitted = ["2 eval_loss 1.5", "4 eval_loss 1.25", "6 eval_loss 1.25", "1 loss 2.0", "2 loss 1.0"]
    assert rows[1:6] == [["dist", "0", *point.split()] for point in fitted]
    # Eight figures at each of four and three steps.
    assert len(rows) == 1 + 5 + 8 * 4 + 8 * 3
    assert summary.startswith("curves: 2 systems, 3 runs, 61 points")


def test_a_panel_per_fitted_system_and_a_row_per_reinforced_one(runs: Runs):
    loss, *row = curves.draw(curves.read(runs)).axes
    assert (loss.get_title(), loss.get_ylabel()) == ("dist", "loss (nats)")
    assert sorted(lines(loss)) == [([1, 2], [2.0, 1.0]), ([2, 4, 6], [1.5, 1.25, 1.25])]
    labels = ["reward per answer"] * 2 + ["citation F1 (%)", "KL (nats per answer)"]
    labels += ["entropy (nats per token)", "tokens per answer"]
    assert [axes.get_ylabel() for axes in row] == labels
    assert [text.get_text() for axes in row for text in axes.texts] == ["fg_rl"]
    assert [axes.get_xlabel() for axes in (loss, *row)] == ["step"] * 7
    reward, parts, f1, kl, entropy, _ = row
    # Seeds are thin, and their mean reaches as far as all of them.
    assert lines(reward) == [
        ([0, 1, 2, 3], [0.5, 0.75, 1.0, 0.625]),
        ([0, 1, 2], [0.5, 0.25, 0.5]),
        ([0, 1, 2], [0.5, 0.5, 0.75]),
    ]
    # Two components of the three have figures, each with two seeds and a mean.
    assert len(lines(parts)) == 6
    legend = [text.get_text() for text in parts.get_legend().get_texts()]
    assert legend == ["citation recall", "correctness"]
    held_out = [y for _, y in lines(f1)]
    assert ([25, 37.5, 50, 31.25] in held_out, [50, 75, 100, 62.5] in held_out) == (True, True)
    # The kept step is the first of the best on dev.
    assert lines(loss, "o") == [([4], [1.25])]
    assert lines(reward, "o") == [([2], [1.0]), ([0], [0.5])]
    assert lines(f1, "o") == [([2], [100.0]), ([0], [50.0])]
    assert lines(parts, "o") == lines(kl, "o") == lines(entropy, "o") == []


def test_the_same_input_makes_the_same_bytes(runs: Runs, tmp_path: Path):
    import matplotlib as mpl

    outs = []
    for width, marker in ((0.8, "None"), (3.0, "x")):
        # Neither the user's settings nor the time or place show.
        with mpl.rc_context({"axes.linewidth": width, "lines.marker": marker}):
            folder = tmp_path / marker
            curves.run(runs, folder / "curves.svg", folder / "curves.csv")
            outs.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert outs[0] == outs[1]
    assert b"<dc:date>" not in outs[0][1]


@pytest.mark.parametrize("rows", [[{"step": 1, "learning_rate": 0.5}], []])
def test_nothing_to_draw(rows: list[dict[str, float]], tmp_path: Path):
    runs = [("s", 0, write(tmp_path / "m.jsonl", rows))]
    with pytest.raises(InputError, match=r"expected numbers for some of dev_reward, "):
        curves.run(runs, tmp_path / "c.svg", tmp_path / "c.csv")
    assert not (tmp_path / "c.csv").exists()
