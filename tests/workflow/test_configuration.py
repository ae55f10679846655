"""What the workflow makes of its configuration before any job starts."""

import json
from pathlib import Path

import pytest
import yaml

from .project import InProcess, configured, copy_workflow, snakemake

SCORED = (
    "verifiers: {train: lexical, report: {lexical: lexical}}\n"
    "systems: {people: {outputs: {asqa: ADDRESS}}}\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project without any results."""
    folder = tmp_path_factory.mktemp("work") / "project"
    copy_workflow(folder)
    return folder


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    return InProcess(folder, monkeypatch)


def test_the_default_needs_no_file_of_its_user(project: InProcess) -> None:
    jobs = project.jobs()
    assert {"world", "data", "teach", "sample fg_rs", "rl fg_rs_rl", "table"} <= jobs
    assert not (project.project / "results").exists()


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("llama2-7b", {"sample fg_rs", "rl fg_rs_rl", "score fg_rs_rl", "table"}),
        ("chat-24gb", {"teach", "sft dist", "table"}),
        ("methods", {"rl fg_grpo", "rl h_rloo", "dpo dpo", "table"}),
        ("own-documents", {"teach", "sample fg_rs", "rl fg_rl", "table"}),
        ("released", {"weights fg_rl", "predict fg_rl", "table"}),
        ("smollm2", {"sft dist", "predict base_shot", "table"}),
    ],
)
def test_an_experiment_shows_its_jobs_without_its_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, jobs: set[str]
) -> None:
    text = (folder / "experiments" / f"{name}.yaml").read_text()
    default = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text)
    try:
        table = f"{yaml.safe_load(text)['results']}/table.csv"
        assert jobs <= InProcess(folder, monkeypatch).jobs(table)
    finally:
        (folder / "config.yaml").write_text(default)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("rl: {lerning_rate: 1.0}\n", "rl.lerning_rate: no such key, did you mean learning_rate?"),
        (
            SCORED.replace("ADDRESS", "'ftp://host/asqa.json'"),
            "systems.people.outputs.asqa: ftp://host/asqa.json: expected",
        ),
        (SCORED.replace("ADDRESS", "no/file.json"), "systems.people.outputs.asqa: no file no/file"),
    ],
)
def test_a_mistake_is_one_line_before_any_job(folder: Path, given: str, line: str) -> None:
    (folder / "given.yaml").write_text(given)
    done = snakemake(folder, "--configfile", "given.yaml", "--", "results/table.csv")
    assert done.returncode == 1
    assert f"Configuration: {line}" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("Verifier = print", "expected a verifier, with a name and a method entails, got NoneType"),
        ("import nowhere", "my_own fails with ModuleNotFoundError"),
        (
            "class Verifier:\n    name = 'own'\n    def entails(self, pairs): return [0.5, 0.5]",
            "expected True or False for each pair, got 0.5",
        ),
    ],
)
def test_a_users_verifier_is_tried_before_any_job(folder: Path, code: str, line: str) -> None:
    (folder / "my_own.py").write_text(code)
    with configured(folder, {"verifiers.train": "my_own:Verifier"}):
        done = snakemake(folder, "--", "results/table.csv")
    assert done.returncode == 1
    assert f"Configuration: verifier 'my_own:Verifier': {line}" in done.stdout
    assert "== world" not in done.stdout


def test_results_that_cannot_be_written_are_one_line(folder: Path) -> None:
    (folder / "fixed").symlink_to("/sys")
    done = snakemake(folder, "--config", "results=fixed", "--", "fixed/miniature/world/train.json")
    assert done.returncode == 1
    assert "/sys/.lock cannot be written: Permission denied" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_mistyped_verifier_is_refused_when_the_configuration_is_read(folder: Path) -> None:
    with configured(folder, {"verifiers.train": "lexcal"}):
        done = snakemake(folder, "-n", "--", "results/table.csv")
    assert done.returncode == 1
    assert "Configuration: verifier 'lexcal': expected lexical" in done.stdout
    assert "is lexical meant?" in done.stdout


def test_what_the_command_line_sets_reaches_the_jobs(folder: Path) -> None:
    world = "miniature={world: {train: 2, dev: 2, test: 2, expertqa: 2}}"
    train = "results/miniature/world/train.json"
    done = snakemake(folder, "--config", "seeds=[0,1]", world, "--", train)
    assert done.returncode == 0, done.stdout
    assert len(json.loads((folder / train).read_text())) == 6


def test_without_a_network_a_line_says_how_to_go_on(folder: Path) -> None:
    done = snakemake(
        folder, "--configfile", "experiments/llama2-7b.yaml", "--", "results/llama2-7b/table.csv"
    )
    assert done.returncode == 1
    assert "offline" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_workflow_is_a_module_of_another(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        f"""
module citepipe:
    snakefile: "{folder}/Snakefile"
    config: config["citepipe"]

use rule * from citepipe as citepipe_*

rule mine:
    input: "results/table.csv"
    output: "mine.csv"
    shell: "cp {{input}} {{output}}"
"""
    )
    default = yaml.safe_load((folder / "config.yaml").read_text())
    default["model"]["base"] = str(folder / "workflow/resources/miniature-base")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"citepipe": default}))
    done = snakemake(tmp_path, "--configfile", "mine.yaml", "--dry-run", "--", "mine.csv")
    assert done.returncode == 0, done.stdout
    assert "rule citepipe_table:" in done.stdout
