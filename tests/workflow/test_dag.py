"""The whole workflow at a tiny size: it runs to the table, and then only what is stale runs again.

The tests share one finished project. What they edit they restore.
"""

import csv
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from citepipe.data.files import read_jsonl

from .command import ENVIRONMENT, SNAKEMAKE, snakemake, stale
from .tiny import write_project

TRAINED = ["dist", "h_rs", "fg_rs", "h_rl", "fg_rl", "h_rs_rl", "fg_rs_rl", "fg_grpo", "pairs"]
SYSTEMS = [*TRAINED, "searched"]
RL = ["h_rl", "fg_rl", "h_rs_rl", "fg_rs_rl"]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the workflow has run to its end."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout
    return folder


@contextmanager
def edited(path: Path, old: str = "", new: str = "") -> Iterator[None]:
    """A text file with `old` replaced, or with a comment at its end, for a while."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else f"{text}\n# edited\n")
    try:
        yield
    finally:
        path.write_text(text)


def shown(folder: Path) -> Callable[[str], str]:
    """Paths as Snakemake has them in a folder."""
    return lambda path: str(Path(path).relative_to(folder))


def after(*systems: str) -> set[str]:
    """The jobs that follow once these systems' models have changed."""
    return {f"{rule} {name}" for rule in ("predict", "score") for name in systems} | {
        "table",
        "curves",
    }


def test_the_table_has_every_system_and_every_dataset(project: Path) -> None:
    with (project / "results/table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["system"] for row in rows] == SYSTEMS
    for column in (
        "asqa_em_recall",
        "asqa_citation_recall",
        "asqa_citation_precision_lexical",
        "qampari_recall_top5",
        "eli5_claim_recall",
        "expertqa_citation_f1",
        "mean_citation_f1",
        "mean_citation_f1_lexical",
    ):
        assert all(0 <= float(row[column]) <= 100 for row in rows), column


def test_no_state_is_left_behind(project: Path) -> None:
    assert not list((project / "results").rglob("*.state"))


def test_a_second_run_has_nothing_to_do(project: Path) -> None:
    done = snakemake(project, "--", "results/table.csv")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


def test_editing_the_learning_rate_of_rl_reruns_rl(project: Path) -> None:
    with edited(project / "config.yaml", "\nrl:\n", "\nrl:\n  learning_rate: 5.0e-05\n"):
        assert stale(project) == {f"ppo {name}" for name in RL} | after(*RL) | {"all"}


def test_editing_ppo_reruns_rl(project: Path) -> None:
    with edited(project / "citepipe/train/ppo.py"):
        assert stale(project) == {f"ppo {name}" for name in RL} | after(*RL) | {"all"}


def test_editing_another_method_reruns_what_it_trains(project: Path) -> None:
    with edited(project / "citepipe/train/group_relative.py"):
        assert stale(project) == {"group_relative fg_grpo"} | after("fg_grpo") | {"all"}
    with edited(project / "citepipe/train/dpo.py"):
        assert stale(project) == {"dpo pairs"} | after("pairs") | {"all"}


def test_editing_the_search_reruns_what_was_made_from_it(project: Path) -> None:
    made = {"segment_search fg_rs", "merge_samples fg_rs", "sft fg_rs", "ppo fg_rs_rl"}
    made |= {"predict_by_search searched", "score searched"}
    with edited(project / "citepipe/sample/segment_search.py"):
        assert stale(project) == made | after("fg_rs", "fg_rs_rl") | {"all"}


def test_editing_best_of_n_reruns_what_was_made_from_it(project: Path) -> None:
    made = {"best_of_n h_rs", "merge_samples h_rs", "sft h_rs", "ppo h_rs_rl", "dpo pairs"}
    with edited(project / "citepipe/sample/best_of_n.py"):
        assert stale(project) == made | after("h_rs", "h_rs_rl", "pairs") | {"all"}


def test_any_number_of_shards_gives_the_same_samples(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    shutil.copytree(project, folder)
    samples = {name: folder / "results/samples" / name / "seed0" for name in ("h_rs", "fg_rs")}
    wanted = {
        path: path.read_bytes()
        for name in samples.values()
        for path in (name / "answers.json", name / "candidates.jsonl")
    }
    for name in samples.values():
        shutil.rmtree(name)
    answers = [str(name / "answers.json") for name in samples.values()]
    done = snakemake(folder, "--set-scatter", "shards=3", "--", *map(shown(folder), answers))
    assert done.returncode == 0, done.stdout
    assert sorted(p.name for p in (samples["h_rs"] / "shards").iterdir()) == [
        f"{number}-of-3.jsonl" for number in (1, 2, 3)
    ]
    assert {path: path.read_bytes() for path in wanted} == wanted


def test_editing_the_scorer_reruns_scores(project: Path) -> None:
    scores = {f"score {name}" for name in SYSTEMS} | {"table", "all"}
    with edited(project / "citepipe/score/files.py"):
        assert stale(project) == scores


def test_editing_the_report_reruns_the_table(project: Path) -> None:
    with edited(project / "citepipe/report/table.py"):
        assert stale(project) == {"table", "all"}


def test_overriding_one_system_reruns_that_system(project: Path) -> None:
    with edited(project / "config.yaml", "\n  h_rl:\n", "\n  h_rl:\n    options: {kl_coef: 0.5}\n"):
        assert stale(project) == {"ppo h_rl"} | after("h_rl") | {"all"}


def test_a_touched_file_reruns_nothing(project: Path) -> None:
    (project / "citepipe/data/example.py").touch()
    assert stale(project) == set()


def test_a_new_system_trains_nothing_else(project: Path) -> None:
    added = "systems:\n  eighth: {train: ppo, start: fg_rs, reward: holistic}\n"
    with edited(project / "config.yaml", "systems:\n", added):
        assert stale(project) == {"ppo eighth"} | after("eighth") | {"all"}


@pytest.mark.parametrize(
    ("product", "made_by"),
    [
        ("models/h_rl/seed0", {"ppo h_rl"} | after("h_rl") - {"curves"}),
        (
            "samples/h_rs/seed0",
            {"best_of_n h_rs", "merge_samples h_rs", "sft h_rs", "ppo h_rs_rl", "dpo pairs"},
        ),
        ("samples/h_rs/seed0/shards", {"best_of_n h_rs", "merge_samples h_rs", "sft h_rs"}),
        ("predictions/dist/seed0", {"predict dist", "score dist", "table"}),
        ("data", {"data"}),
    ],
)
def test_what_a_failed_job_took_away_is_made_again(
    project: Path, tmp_path: Path, product: str, made_by: set[str]
) -> None:
    # Snakemake removes a job's output before it starts; if the job then dies, the rest looks done.
    there, aside = project / "results" / product, tmp_path / "aside"
    shutil.move(there, aside)
    try:
        assert stale(project, "--", "results/table.csv") >= made_by
        assert (project / "results/table.csv").exists(), "a dry run takes nothing away"
    finally:
        shutil.move(aside, there)


def test_a_table_is_made_again_with_what_a_failed_job_took_away(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "failed"
    shutil.copytree(project, folder)
    shutil.rmtree(folder / "results/models/fg_rs_rl/seed0")
    done = snakemake(folder, "--", "results/table.csv")
    assert done.returncode == 0, done.stdout
    assert "== ppo fg_rs_rl seed0" in done.stdout
    assert (folder / "results/table.csv").read_text() == (project / "results/table.csv").read_text()
    again = snakemake(folder, "--", "results/table.csv")
    assert "Nothing to be done" in again.stdout


def test_two_processes_train_what_one_does(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    shutil.copytree(project, folder)
    targets = [f"results/models/{system}/seed0" for system in ("dist", "h_rl")]
    for target in targets:
        shutil.rmtree(folder / target)
    two = ("--config", "devices=2")
    done = snakemake(folder, *two, "--", *targets)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("== ppo h_rl seed0") == 2, "its begin and its end"
    for target in targets:
        alone, together = (read_jsonl(f / target / "metrics.jsonl") for f in (project, folder))
        assert len(together) == len(alone)
        for one, two_of_them in zip(alone, together, strict=True):
            assert two_of_them == pytest.approx(one, rel=1e-3, abs=1e-4)
    alone, together = (load_file(f / targets[0] / WEIGHTS) for f in (project, folder))
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-5, rtol=0)
    (folder / "models/base/config.json").write_text("{}")
    shutil.rmtree(folder / "results/models/h_rl/seed0")
    done = snakemake(folder, *two, "--allowed-rules", "ppo", "--", targets[1])
    assert done.returncode == 1
    assert "ppo h_rl seed0: process 0 of 2: model.base models/base: no " in done.stdout
    assert "Traceback" not in done.stdout


def test_the_learning_curves_are_drawn(project: Path) -> None:
    assert (project / "results/figures/learning_curves.svg").stat().st_size > 10_000
    with (project / "results/figures/curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["system"] for row in rows} == set(TRAINED)
    reinforced = {row["system"] for row in rows if row["name"] == "dev_citation_f1"}
    assert reinforced == {*RL, "fg_grpo"}


def test_a_broken_file_is_told_of_in_one_line(project: Path) -> None:
    with edited(project / "data/dev.json", "[", "[,"):
        done = snakemake(project, "--", "results/data/dev.json")
    assert done.returncode == 1
    assert "data: data/dev.json, line 1: expected JSON" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_run_killed_within_ppo_goes_on_with_the_same_command(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(project, folder)
    model = "results/models/fg_rl/seed0"
    with edited(folder / "config.yaml", "episodes: 8\n", "episodes: 1200\n"):
        command = [*SNAKEMAKE, "--", model]
        run = subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert run.stderr is not None
        state = folder / f"{model}.state"
        while run.poll() is None and not list(state.glob("step-*/snapshot.json")):
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        # The pipe closes when the job itself, which holds it too, has ended.
        run.wait()
        run.stderr.read()
        assert not (folder / model / "adapter_config.json").exists()
        done = snakemake(folder, "--", model)
    assert done.returncode == 0, done.stdout
    assert "ppo: going on after step" in done.stdout
    assert (folder / model / "adapter_config.json").exists()
    assert not state.exists()
