"""What runs again after a change, and what does not.

The project has systems of every kind. Its results are made up, and Snakemake's own `--touch` notes
them as made by the configuration, the code and the inputs that are there.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from citepipe.cli import main

from .project import TABLE, InProcess, configured, copy_workflow, edited

SYSTEMS = {
    "dist": {"train": "sft", "data": "teacher"},
    "h_rs": {"train": "sft", "start": "dist", "data": {"sample": "best_of_n", "from": "dist"}},
    "fg_rs": {
        "train": "sft",
        "start": "dist",
        "data": {"sample": "segment_search", "from": "dist"},
    },
    "fg_rs_rl": {"train": "ppo", "start": "fg_rs", "reward": "fine_grained"},
    "grpo": {"train": "grpo", "start": "dist", "reward": "holistic"},
    "dpo": {"train": "dpo", "start": "dist", "data": {"samples_of": "h_rs"}},
    "searched": {"model_of": "dist", "decode": "segment_search"},
    "released": {"adapter": "given/adapter.zip"},
    "people": {"outputs": {"asqa": "given/people.json"}},
    "copy": {"extract": "first_sentence"},
}
CONFIG: dict[str, Any] = {
    "data": {
        "train": ["given/train.json"],
        "dev": ["given/dev.json"],
        "test": {"asqa": "given/test.json", "eli5": "given/test.json"},
    },
    "model": {"base": "given/base", "dtype": "float32"},
    "verifiers": {
        "train": "given/verifier",
        "report": {"lexical": "lexical", "own": "my_verifier:load?given/facts.json"},
    },
    "systems": SYSTEMS,
}
GIVEN = ("train.json", "dev.json", "test.json", "adapter.zip", "people.json", "facts.json")
GIVEN += ("base/config.json", "verifier/config.json")
TRAINED = ("dist", "h_rs", "fg_rs", "fg_rs_rl", "grpo", "dpo")


def of(rule: str, *systems: str) -> set[str]:
    return {f"{rule} {system}" for system in systems}


def after(*systems: str) -> set[str]:
    """What follows from other models of these systems."""
    return of("predict", *systems) | of("score", *systems) | {"table"}


SCORES = of("score", *SYSTEMS) | {"table"}
SAMPLING = of("sample", "h_rs", "fg_rs") | of("merge_samples", "h_rs", "fg_rs")
SAMPLED = SAMPLING | of("sft", "h_rs", "fg_rs") | of("rl", "fg_rs_rl") | of("dpo", "dpo")
RL = of("rl", "fg_rs_rl", "grpo") | after("fg_rs_rl", "grpo")
BEST_OF_N = (
    of("sample", "h_rs") | of("merge_samples", "h_rs") | of("sft", "h_rs") | of("dpo", "dpo")
)
SEARCH = of("sample", "fg_rs") | of("merge_samples", "fg_rs") | of("sft", "fg_rs")
SEARCH |= of("rl", "fg_rs_rl") | after("fg_rs", "fg_rs_rl", "searched")
ANSWERS = of("predict", *TRAINED, "searched", "released", "copy")
# The scores of what a model answers here.
LATER = SCORES - of("score", "people", "copy")
TRAINING = of("sft", "dist") | SAMPLED | of("rl", "grpo")
EVERYTHING = {"data", "teach"} | TRAINING | ANSWERS | SCORES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose results are all there."""
    folder = tmp_path_factory.mktemp("stale") / "project"
    copy_workflow(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    for name in GIVEN:
        path = folder / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"of {name}")
    (folder / "my_verifier.py").write_text(
        "from my_words import WORDS\n\n\nclass load:\n    name = 'own'\n\n"
        "    def __init__(self, path): ...\n\n"
        "    def entails(self, pairs):\n        return [True for _ in pairs]\n"
    )
    (folder / "my_words.py").write_text("WORDS = 3\n")
    results = folder / "results"
    for system in TRAINED:
        (results / "models" / system / "seed0").mkdir(parents=True)
    (results / "weights" / "released").mkdir(parents=True)
    files = [f"data/{name}.json" for name in ("train", "dev", "test/asqa", "test/eli5", "mixture")]
    files += ["teacher/train.json", "teacher/dev.json", "report.html", "scores.csv"]
    files += [*(f"table.{kind}" for kind in ("csv", "md", "tex", "html")), "figures/curves.csv"]
    drawn = ("learning_curves", "scores", "errors", "samples", "cost")
    files += [f"figures/{name}.{kind}" for name in drawn for kind in ("svg", "png")]
    files += [f"scores/{system}/seed0.json" for system in SYSTEMS]
    for system in ("h_rs", "fg_rs"):
        sampled = ("answers.json", "candidates.jsonl", "shards/1-of-1.jsonl")
        files += [f"samples/{system}/seed0/{name}" for name in sampled]
    for system in (*TRAINED, "searched", "released", "copy"):
        files += [f"predictions/{system}/seed0/{name}.json" for name in ("asqa", "eli5")]
    for name in files:
        path = results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("made")
    with pytest.MonkeyPatch.context() as patch:
        InProcess(folder, patch).jobs("results/report.html", TABLE, executor="touch")
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    return InProcess(made, monkeypatch)


def test_nothing_runs_again_when_nothing_has_changed(project: InProcess) -> None:
    assert project.jobs() == set()


@pytest.mark.parametrize(
    ("path", "stale"),
    [
        ("citepipe/data/mixture.py", EVERYTHING - of("score", "people")),
        ("citepipe/train/sft.py", of("sft", "dist", "h_rs", "fg_rs") | SAMPLED | of("rl", "grpo")
         | after(*TRAINED, "searched")),
        ("citepipe/sample/best_of_n.py", BEST_OF_N | after("h_rs", "dpo")),
        ("citepipe/train/dpo.py", of("dpo", "dpo") | after("dpo")),
        ("citepipe/train/advantages.py", RL),
        ("citepipe/scoring/rouge.py", SCORES),
        ("citepipe/report/files.py", {"table"}),
        ("workflow/scripts/train_dpo.py", of("dpo", "dpo") | after("dpo")),
        ("workflow/scripts/table.py", {"table"}),
        ("my_verifier.py", SCORES),
        ("my_words.py", SCORES),
        ("citepipe/progress.py", set()),
        ("citepipe/cli/files.py", set()),
    ],
)  # fmt: skip
def test_a_changed_program_reruns_what_it_computes(
    project: InProcess, path: str, stale: set[str]
) -> None:
    with edited(project.project / path, "", "\nADDED = 1\n"):
        assert project.jobs() == stale
    with edited(project.project / path, "", "\n# A comment.\n"):
        assert project.jobs() == set()


def test_a_changed_page_makes_the_report_again_and_nothing_else(project: InProcess) -> None:
    page = project.project / "citepipe/report"
    assert project.jobs("results/report.html") == set()
    for name, change in (("page.js", "// New."), ("page.py", "ADDED = 1\n")):
        with edited(page / name, "", change):
            assert project.jobs("results/report.html", TABLE) == {"report"}
    with edited(page / "page.py", "", "# A comment.\n"):
        assert project.jobs("results/report.html") == set()


def test_messages_and_docstrings_are_not_behaviour() -> None:
    from citepipe.provenance import behaviour

    program = '''
def f(path):
    """Reads DOC."""
    if not path:
        raise InputError(f"{path}: ERROR")
    say(f"SAID {path}")  # COMMENT
    return VALUE
'''
    for part in ("DOC", "ERROR", "SAID", "COMMENT"):
        assert behaviour(program.replace(part, "b")) == behaviour(program)
    assert behaviour(program.replace("VALUE", "b")) != behaviour(program)


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"data.seed": 7}, EVERYTHING - of("score", "people")),
        ({"teacher.keep_uncited": True}, {"teach"} | of("sft", "dist") | SAMPLED | of("rl", "grpo")
         | of("sft", "h_rs", "fg_rs") | after(*TRAINED, "searched")),
        ({"sft.epochs": 3}, of("sft", "dist") | SAMPLED | of("rl", "grpo")
         | after(*TRAINED, "searched")),
        ({"rs_sft.epochs": 4}, of("sft", "h_rs", "fg_rs") | of("rl", "fg_rs_rl")
         | after("h_rs", "fg_rs", "fg_rs_rl")),
        ({"best_of_n.n": 3}, BEST_OF_N | after("h_rs", "dpo")),
        ({"segment_search.beams": 3}, SEARCH),
        ({"segment_search.min_reward": 0.1}, of("merge_samples", "fg_rs") | of("sft", "fg_rs")
         | of("rl", "fg_rs_rl") | after("fg_rs", "fg_rs_rl")),
        ({"rl.lam": 0.5}, of("rl", "fg_rs_rl") | after("fg_rs_rl")),
        ({"grpo.kl_coef": 0.5}, of("rl", "grpo") | after("grpo")),
        ({"dpo.beta": 0.5}, of("dpo", "dpo") | after("dpo")),
        ({"systems.grpo.options": {"clip_ratio": 0.3}}, of("rl", "grpo") | after("grpo")),
        ({"predict.max_new_tokens": 9}, ANSWERS - of("predict", "copy") | LATER),
        ({"score.resamples": 9}, SCORES),
        ({"score.metrics": ["length"]}, SCORES),
        ({"reward.correctness": 0.9}, SAMPLED | RL | after("h_rs", "fg_rs", "dpo", "searched")),
        ({"verifiers.report": {"lexical": "lexical"}}, SCORES),
        ({"verifiers.report": dict(reversed(CONFIG["verifiers"]["report"].items()))}, SCORES),
        ({"systems.eighth": {"model_of": "grpo"}}, after("eighth")),
        ({"systems.searched.prompt": {"max_input_tokens": 99}}, after("searched")),
        ({"systems.all": {"train": "sft", "start": "dist", "data": {"samples_of": "h_rs"}}},
         of("merge_samples", "all") | of("sft", "all") | after("all")),
        # What changes no result.
        ({"sft.save_every": 3, "rl.save_minutes": 1, "grpo.tokens_per_pass": 99}, set()),
        ({"best_of_n.batch_size": 3, "predict.batch_size": 3, "rl.batch_size": 3}, set()),
        ({"model.gradient_checkpointing": True, "tracking.wandb": "off", "shards": 3}, set()),
        ({"score.reader": "other", "score.mauve_seed": 3, "rloo.kl_coef": 0.5}, set()),
        ({"teacher.endpoint": {"url": "http://127.0.0.1:9/v1", "model": "m"}}, set()),
        ({"sources.retries": 3, "miniature": {}}, set()),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_changed_configuration_reruns_what_it_decides(
    project: InProcess, changes: dict[str, Any], stale: set[str]
) -> None:
    with configured(project.project, changes):
        assert project.jobs() == stale


@pytest.mark.parametrize(
    ("name", "stale"),
    [
        ("train.json", EVERYTHING - of("score", "people")),
        ("base/config.json", TRAINING | ANSWERS - of("predict", "copy") | LATER),
        ("verifier/config.json", SAMPLED | RL | after("h_rs", "fg_rs", "dpo", "searched")),
        ("adapter.zip", {"weights released"} | after("released")),
        ("people.json", of("score", "people") | {"table"}),
        ("facts.json", SCORES),
    ],
)
def test_changed_content_counts_also_with_an_older_time(
    project: InProcess, name: str, stale: set[str]
) -> None:
    path = project.project / "given" / name
    text = path.read_text()
    path.write_text(text.replace("of", "or"))
    os.utime(path, (1, 1))
    try:
        assert project.jobs() == stale
    finally:
        path.write_text(text)
    # Written anew with the same content it is newer than all results.
    assert project.jobs() == set()


def test_a_moved_folder_and_a_copy_are_not_stale(
    project: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project.project, copy, copy_function=shutil.copy)
    assert InProcess(copy, monkeypatch).jobs() == set()
    moved = copy.rename(tmp_path / "moved")
    assert InProcess(moved, monkeypatch).jobs() == set()
    # As in a fresh clone, to which only the results were copied.
    shutil.rmtree(moved / ".snakemake")
    assert InProcess(moved, monkeypatch).jobs() == set()
    with configured(moved, {"dpo.beta": 0.5}):
        assert InProcess(moved, monkeypatch).jobs() == of("dpo", "dpo") | after("dpo")


@pytest.mark.parametrize(
    ("product", "made_by"),
    [
        ("data/train.json", {"data"}),
        ("teacher/train.json", {"teach"}),
        ("models/fg_rs_rl/seed0", of("rl", "fg_rs_rl")),
        ("samples/h_rs/seed0/answers.json", of("merge_samples", "h_rs")),
        ("predictions/dist/seed0/asqa.json", of("predict", "dist")),
        ("scores/people/seed0.json", of("score", "people")),
        ("weights/released", set()),
    ],
)
def test_what_a_failed_job_took_away_is_made_again(
    project: InProcess, tmp_path: Path, product: str, made_by: set[str]
) -> None:
    # Snakemake removes a job's output before it starts; if the job then fails, the rest looks done.
    there, aside = project.project / "results" / product, tmp_path / "aside"
    shutil.move(there, aside)
    try:
        stale = project.jobs()
        assert stale >= made_by
        assert ("table" in stale) == bool(made_by)
    finally:
        shutil.move(aside, there)
    assert project.jobs() == set()


def test_what_changed_behind_something_absent_is_not_passed_over(
    project: InProcess, tmp_path: Path
) -> None:
    # Snakemake itself asks no job behind one that has to run for a reason of its own.
    there, aside = project.project / "results/models/dist/seed0", tmp_path / "aside"
    shutil.move(there, aside)
    try:
        with configured(project.project, {"rl.lam": 0.5}):
            assert {"sft dist", "rl fg_rs_rl", "table"} <= project.jobs()
    finally:
        shutil.move(aside, there)


def test_what_follows_from_a_forced_job_runs_too(project: InProcess) -> None:
    with configured(project.project, {"rl.lam": 0.5}):
        stale = project.jobs(forced="results/models/dist/seed0")
    assert stale == EVERYTHING - {"data", "teach"} - of("predict", "released", "copy") - of(
        "score", "released", "people", "copy"
    )


def test_other_versions_are_said_and_make_nothing_stale(
    project: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    record = project.project / "results/.made/models/dist/seed0.json"
    text = record.read_text()
    made = json.loads(text)
    made["versions"]["torch"] = "1.0"
    record.write_text(json.dumps(made))
    try:
        assert project.jobs() == set()
    finally:
        record.write_text(text)
    said = [line for line in caplog.messages if "made with torch 1.0, and is kept" in line]
    assert len(said) == 1


def test_a_plan_says_what_a_run_would_do_and_why(
    project: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    results = project.project / "results"
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert main(["plan"]) == 0
    assert capsys.readouterr().out == "Nothing to be done.\n"
    with (
        configured(project.project, {"rl.lam": 0.5}),
        edited(project.project / "citepipe/report/files.py", "", "\nADDED = 1\n"),
    ):
        assert main(["plan", "--price", "2"]) == 0
    text = capsys.readouterr().out
    lines = [line.strip() for line in text.splitlines()]
    assert "rl, 1 of 1: options.lam 0.95 -> 0.5" in lines
    assert "predict, 1 of 1: what it is given: adapter, by rl" in lines
    assert (
        "table, 1 of 1: its code; what it is given: models, products, scores, by predict, rl, score"
        in text
    )
    stages = {line.split()[0]: line.split() for line in lines if line}
    assert {name: stages[name][1] for name in ("rl", "predict", "score", "all")} == {
        "rl": "1", "predict": "1", "score": "1", "all": "5"
    }  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


def test_digests_are_kept_beside_snakemakes_own_records(project: InProcess) -> None:
    project.jobs()
    from citepipe.provenance import KEPT, kept

    kept().save()
    assert json.loads((project.project / KEPT).read_text())
