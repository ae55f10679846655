"""What the workflow makes of its configuration before any job starts."""

import shutil
from pathlib import Path

import pytest

from .command import snakemake, stale

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project without any results."""
    folder = tmp_path_factory.mktemp("work") / "project"
    for name in ("workflow", "profiles", "envs", "citepipe", "experiments"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_the_default_needs_nothing(project: Path) -> None:
    jobs = stale(project, "--", "results/table.csv")
    assert {"data", "teach", "segment_search fg_rs", "ppo fg_rs_rl", "table"} <= jobs


def test_a_mistyped_key_is_told_of_before_any_job(project: Path) -> None:
    done = snakemake(project, "--config", "rl={lerning_rate: 1.0}", "--", "results/table.csv")
    assert done.returncode == 1
    assert "Configuration: rl.lerning_rate: no such key, did you mean learning_rate?" in done.stdout


def test_results_go_where_the_command_line_says(project: Path) -> None:
    done = snakemake(project, "--dry-run", "--quiet", "host", "--config", "results=elsewhere")
    assert "elsewhere/table.csv" in done.stdout
    assert " results/" not in done.stdout


def test_a_given_configuration_takes_the_place_of_the_default(
    project: Path, tmp_path: Path
) -> None:
    given = tmp_path / "only.yaml"
    answers = tmp_path / "people_asqa.json"
    answers.write_text("[]")
    given.write_text(
        "verifiers: {train: lexical, report: {lexical: lexical}}\n"
        f"systems: {{people: {{outputs: {{asqa: {answers}}}}}}}\n"
    )
    assert stale(project, "--configfile", str(given)) == {"score people", "table", "all"}


def test_the_papers_setting_is_complete_without_its_data(project: Path) -> None:
    jobs = stale(project, "--configfile", "experiments/llama2-7b.yaml")
    assert {"segment_search fg_rs", "ppo fg_rs_rl", "score fg_rs_rl", "table"} <= jobs


def test_absent_data_is_told_of_in_a_line(project: Path) -> None:
    done = snakemake(project, "--configfile", "experiments/own-documents.yaml")
    assert done.returncode == 1
    assert "data.train: no file own/questions.jsonl below" in done.stdout


def test_without_a_network_a_line_says_where_a_file_may_be_put(project: Path) -> None:
    done = snakemake(project, "--configfile", "experiments/llama2-7b.yaml")
    assert done.returncode == 1
    assert "this is offline: put combined_dev.json at " in done.stdout
    assert "Traceback" not in done.stdout


def test_an_address_that_cannot_be_read_is_told_of_by_its_key(project: Path) -> None:
    given = project / "bad.yaml"
    given.write_text(
        "verifiers: {train: lexical, report: {lexical: lexical}}\n"
        "systems: {people: {outputs: {asqa: 'ftp://host/asqa.json'}}}\n"
    )
    done = snakemake(project, "--configfile", "bad.yaml")
    assert done.returncode == 1
    assert "Configuration: systems.people.outputs.asqa: ftp://host/asqa.json: expected" in (
        done.stdout
    )
