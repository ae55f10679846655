"""Prediction writes ALCE result files."""

from __future__ import annotations

import json
from pathlib import Path

from citepipe.data.example import Document, Example
from citepipe.data.files import read_examples, write_examples
from citepipe.generate.predict import PredictJob, run
from citepipe.options import ModelOptions, PredictOptions, PromptOptions


def _tests(folder: Path) -> dict[str, Path]:
    docs = (Document("Silver River", "Silver River was directed by Anna Berg. " * 20),)
    paths = {}
    for dataset, count in (("asqa", 5), ("qampari", 3)):
        paths[dataset] = folder / f"{dataset}.json"
        questions = [Example(f"{dataset}{i}", dataset, f"Who {i}?", docs) for i in range(count)]
        write_examples(paths[dataset], questions)
    return paths


def test_every_question_of_every_dataset_is_answered(tiny_base: Path, tmp_path: Path) -> None:
    outs = {dataset: tmp_path / "out" / f"{dataset}.json" for dataset in ("asqa", "qampari")}
    summary = run(
        PredictJob(
            tests=_tests(tmp_path),
            model=ModelOptions(base=str(tiny_base), dtype="float32"),
            prompt=PromptOptions(instruction="Say.", max_input_tokens=100),
            options=PredictOptions(max_new_tokens=7, batch_size=2),
            adapter=None,
            server=None,
            outs=outs,
            state=tmp_path / "state",
            fingerprint="f",
            seed=3,
            threads=1,
        )
    )
    written = json.loads(outs["asqa"].read_text())
    assert written["args"]["dataset"] == "asqa"
    assert written["args"]["seed"] == 3
    assert [row["id"] for row in written["data"]] == [f"asqa{i}" for i in range(5)]
    for example in read_examples(outs["qampari"]):
        assert example.output is not None
        assert "\n" not in example.output
    assert "answers 8" in summary
    assert "prompts shortened 8" in summary
