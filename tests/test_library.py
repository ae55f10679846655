"""The library's functions: what they return is what the commands write."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import citepipe
import citepipe.judgement
import citepipe.scoring.files
from citepipe.cli import main
from citepipe.errors import InputError

ROW = {
    "question": "Where was Anna Berg born?",
    "docs": ["Anna Berg was born in Oslo in 1970.", "Oslo is the capital of Norway."],
    "answers": ["Oslo"],
    "output": "Anna Berg was born in Oslo [1]. She sings [2].",
}


class Half:
    """Says half of the truth, in a type of its choice."""

    name = "half"

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def entails(self, pairs: Any) -> list[Any]:
        return [self.kind(i % 2 == 0) for i, _ in enumerate(pairs)]


def test_rows_are_scored_as_their_file_is(tmp_path: Path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "scores.json"
    path.write_text(json.dumps(ROW) + "\n")
    scores = citepipe.score([ROW])
    assert scores["metrics"]["citation_rec"] == 50
    assert main(["score", str(path), "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    for part in ("metrics", "intervals", "per_example"):
        assert json.loads(json.dumps(scores[part])) == written[part]
    assert citepipe.score(ROW)["metrics"] == citepipe.score({"data": [ROW]})["metrics"]
    assert citepipe.score(path)["metrics"] == citepipe.score(str(path))["metrics"]
    provenance = citepipe.score([ROW], rules="alce", resamples=3)["provenance"]
    assert provenance["rules"] == "alce"
    assert provenance["bootstrap"]["resamples"] == 3


def test_verdicts_and_rewards_by_character_and_token():
    [judged] = citepipe.judge([ROW], Half(bool))
    assert [statement["supported"] for statement in judged["statements"]] == [True, False]
    assert [citation["right"] for citation in judged["citations"]] == [True, False]
    text = ROW["output"]
    [own] = citepipe.reward([ROW], Half(bool), correctness=0)["per_example"]
    placed = [(reward["char"], reward["value"]) for reward in own["rewards"]]
    # The brackets and the stops behind them.
    assert sorted(placed) == [(29, 0.2), (30, 0.2), (44, -0.2), (45, -0.2)]
    # `Anna … [1]`, `.`, ` She sings [2].` and the end of sequence.
    offsets = [(0, 30), (30, 31), (31, 46), (46, 46)]
    found = citepipe.token_rewards(text, offsets, ROW, Half(np.bool_))
    assert found == pytest.approx([0.2, 0.2, -0.4, 0.2])


@pytest.mark.parametrize(
    ("rows", "verifier", "message"),
    [
        ([ROW, {"question": "Why?"}], "lexical", r"^row 1, .*docs"),
        ([], "lexical", "^rows: expected at least one row, got none"),
        ([ROW], "lexicl", "verifier 'lexicl': expected lexical, a model"),
        ([ROW], Half(float), r"verifier 'Half': expected True or False for each pair, got 1\.0"),
        ([ROW], object(), "verifier 'object': expected a verifier, with a name and a method"),
    ],
)
def test_what_does_not_fit_is_one_line(rows: Any, verifier: Any, message: str):
    with pytest.raises(InputError, match=message) as caught:
        citepipe.judge(rows, verifier)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"rule": "alce"}, {"at_most_citations": 0}, {"rules": "x"}])
def test_options_that_do_not_fit_are_one_line(options: dict[str, Any]):
    with pytest.raises(InputError, match=f"^ScoreOptions, field {next(iter(options))}: ") as caught:
        citepipe.score([ROW], **options)
    assert "\n" not in str(caught.value)


def test_a_task_of_lm_eval_has_our_scores():
    place = Path(__file__).parents[1] / "experiments/lm_eval/scorer.py"
    task = runpy.run_path(str(place))
    text = "Arle Mill was built in 1820 by John Hart."
    docs = [{"title": "Arle Mill", "text": text}, *[{"title": "", "text": "far"}] * 9]
    pairs = [{"short_answers": ["1820"]}, {"short_answers": ["Hart"]}]
    row = {"sample_id": "a", "question": "When?", "docs": docs, "qa_pairs": pairs}
    asked = task["prompt"](row)
    assert f"Question: When?\n\nDocument [1](Title: Arle Mill): {text}\nDocument [2]" in asked
    assert asked.endswith("Document [5](Title: ): far\n\nAnswer:")
    found = [task["scores"](row, [answer]) for answer in (f" {text[:-1]} [1].", "In 1820 [2].", "")]
    assert [own.get("citation_rec") for own in found] == [100, 0, None]
    assert [own["str_em"] for own in found] == [100, 50, 0]


def test_nothing_is_imported_before_it_is_called_for():
    code = (
        "import sys, citepipe\n"
        "print(*sys.modules)\n"
        "import citepipe.scoring.files\n"
        "print(citepipe.score([]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    imported = set(run.stdout.split())
    assert "citepipe" in imported
    assert not {"citepipe.library", "numpy", "nltk", "pydantic", "spacy", "torch"} & imported
    assert run.stderr.strip().endswith("InputError: rows: expected at least one row, got none")
