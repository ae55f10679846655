"""The whole workflow at a tiny size: three systems, each made from the one before, run for real."""

from __future__ import annotations

import csv
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from citepipe.data.files import read_jsonl

from .project import ENVIRONMENT, SNAKEMAKE, TABLE, configured, edited, snakemake
from .tiny import CHAIN, write_project

PROMISED = ("--cores", "1", "--resources", "gpu=1", TABLE)
"""The arguments of the command that the README promises."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the workflow has run to its end."""
    folder = tmp_path_factory.mktemp("run") / "project"
    write_project(folder)
    done = snakemake(folder, *PROMISED[2:], CUDA_VISIBLE_DEVICES="7,8")
    assert done.returncode == 0, done.stdout
    assert "all done in" in done.stdout
    assert not list((folder / "results").rglob("*.state"))
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, by a digest of its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_table_has_every_system_and_every_dataset(project: Path) -> None:
    with (project / TABLE).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["system"] for row in rows] == list(CHAIN)
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
    assert [row["start"] for row in rows] == ["", "dist", "fg_rs", ""]
    assert float(rows[-1]["mean_copied"]) == 100
    for suffix in (".md", ".tex"):
        assert "copy" in (project / TABLE).with_suffix(suffix).read_text()


def test_jobs_that_want_a_gpu_have_one_of_those_that_are_there(project: Path) -> None:
    logs = {path.parent.name: path.read_text() for path in project.glob("results/logs/*/*.log")}
    on_gpu = {rule for rule, text in logs.items() if "\non GPU 7\n" in text}
    assert on_gpu == {"sft", "sample", "rl", "predict", "score"}


def test_the_promised_command_has_nothing_left_to_do(project: Path) -> None:
    for dry in ((), ("-n",)):
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *PROMISED[:-1], *dry, TABLE],
            cwd=project,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "query",
    [
        ("--list-rules",),
        ("--lint",),
        ("--rulegraph",),
        ("--summary",),
        ("--unlock",),
        ("--dry-run", "--config", "seeds=[1]"),
        ("--report", "report.html"),
    ],
)
def test_a_query_changes_nothing_below_results(project: Path, query: tuple[str, ...]) -> None:
    aside = project / "aside"
    (project / "results/models/fg_rs/seed0").rename(aside)
    before = contents(project / "results")
    try:
        snakemake(project, *query)
        assert contents(project / "results") == before
    finally:
        aside.rename(project / "results/models/fg_rs/seed0")


def test_a_run_that_fails_fails_again_with_the_same_command(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "failing"
    shutil.copytree(project, folder)
    with configured(folder, {"verifiers.report": {"t5": "models/verifier", "other": "no/model"}}):
        for _ in range(2):
            done = snakemake(folder)
            assert done.returncode == 1
            assert "verifier" in done.stdout
            assert "Traceback" not in done.stdout
    # As it was before, the table is made again.
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout
    assert (folder / TABLE).read_bytes() == (project / TABLE).read_bytes()


def test_two_runs_do_not_write_to_the_same_results(project: Path) -> None:
    with FileLock(project / "results/.lock"):
        done = snakemake(project, "--forcerun", "table", "--", TABLE)
    assert done.returncode == 1
    assert "results: another run writes there; wait until it ends" in done.stdout
    assert (project / TABLE).exists()


def test_a_broken_file_is_named_in_one_line(project: Path) -> None:
    with edited(project / "data/dev.json", "[", "[,"):
        done = snakemake(project, "--", "results/data/dev.json")
    assert done.returncode == 1
    assert "data: data/dev.json, line 1: expected JSON" in done.stdout
    assert "Traceback" not in done.stdout


def training(run: psutil.Process) -> list[psutil.Process]:
    """The processes of a run that train."""
    return [job for job in run.children(recursive=True) if "train_rl.py" in job.cmdline()[-1]]


def test_a_run_killed_within_ppo_goes_on_and_mentions_other_code(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(project, folder)
    model = "results/models/fg_rs_rl/seed0"
    state = folder / f"{model}.state"
    with configured(folder, {"rl.episodes": 1200}):
        for end, whose in (
            (signal.SIGTERM, "run"),
            (signal.SIGKILL, "run"),
            (signal.SIGKILL, "job"),
        ):
            run = subprocess.Popen(
                [*SNAKEMAKE, "--", model],
                cwd=folder,
                env=ENVIRONMENT,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            assert run.stderr is not None
            before = set(state.glob("step-*"))
            while run.poll() is None and not set(state.glob("step-*")) - before:
                time.sleep(0.05)
            # A system that has no memory left kills the job alone.
            of_run = psutil.Process(run.pid)
            [process] = [of_run] if whose == "run" else training(of_run)
            process.send_signal(end)
            # The pipe closes when the job itself, which holds it too, has ended.
            said = run.stderr.read()
            assert run.wait() != 0
            assert ("which is saved; the same command goes on" in said) == (end == signal.SIGTERM)
            assert not (folder / model / "adapter_config.json").exists()
        with edited(folder / "citepipe/train/advantages.py", "", "\nADDED = 1\n"):
            done = snakemake(folder, "--", model)
    assert done.returncode == 0, done.stdout
    assert "ppo: the code has changed since the saved state; going on" in done.stdout
    assert "ppo: going on after step" in done.stdout
    assert (folder / model / "adapter_config.json").exists()
    assert not state.exists()


@pytest.mark.slow
def test_two_processes_train_what_one_does(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    shutil.copytree(project, folder)
    targets = [f"results/models/{system}/seed0" for system in ("dist", "fg_rs_rl")]
    two = ("--resources", "gpu=2", "--config", "devices=2")
    for target in targets:
        shutil.rmtree(folder / target)
    done = snakemake(folder, *two, "--", *targets)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("== rl fg_rs_rl seed0") == 2, "its begin and its end"
    for target in targets:
        alone, together = (read_jsonl(f / target / "metrics.jsonl") for f in (project, folder))
        for one, two_of_them in zip(alone, together, strict=True):
            assert two_of_them == pytest.approx(one, rel=1e-3, abs=1e-4)
    (folder / "models/base/config.json").write_text("{}")
    shutil.rmtree(folder / targets[1])
    done = snakemake(folder, *two, "--allowed-rules", "rl", "--", targets[1])
    assert done.returncode == 1
    assert "rl fg_rs_rl seed0: process 0 of 2: models/base/config.json: expected" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_any_number_of_shards_gives_the_same_samples(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    shutil.copytree(project, folder)
    samples = folder / "results/samples/fg_rs/seed0"
    wanted = {name: (samples / name).read_bytes() for name in ("answers.json", "candidates.jsonl")}
    shutil.rmtree(samples)
    done = snakemake(
        folder, "--set-scatter", "shards=2", "--", "results/samples/fg_rs/seed0/answers.json"
    )
    assert done.returncode == 0, done.stdout
    assert len(list((samples / "shards").iterdir())) == 2
    assert {name: (samples / name).read_bytes() for name in wanted} == wanted
