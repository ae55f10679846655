"""A copy of the workflow, and Snakemake on it: in this process, or as a user runs it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.logging import logger
from snakemake.settings.enums import RerunTrigger
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)
from snakemake_interface_logger_plugins.common import LogEvent

from citepipe.provenance import record_of, write_record

ROOT = Path(__file__).parents[2]
PARTS = ("workflow", "profiles", "envs", "citepipe", "experiments")
RESULTS = "results"
TABLE = f"{RESULTS}/table.csv"

# Two jobs of one thread each, so that the tests take half as long.
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2", "--max-threads", "1"]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1"}


def copy_workflow(folder: Path) -> None:
    """The workflow, its profiles, the experiments and the package, without any results."""
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, folder)


def snakemake(
    project: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end; stdout and stderr come back as one text in `stdout`."""
    return subprocess.run(
        [*SNAKEMAKE, *(arguments or ("--resources", "gpu=2", "--", TABLE))],
        cwd=project,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def read_config(project: Path) -> dict[str, Any]:
    """The project's configuration."""
    loaded: dict[str, Any] = yaml.safe_load((project / "config.yaml").read_text())
    return loaded


@contextmanager
def configured(project: Path, changes: Mapping[str, Any]) -> Iterator[None]:
    """The project's configuration with values replaced for a while, by dotted keys."""
    path = project / "config.yaml"
    text = path.read_text()
    config = read_config(project)
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    try:
        yield
    finally:
        path.write_text(text)


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """A text file with `old` replaced for a while; an empty `old` stands for the file's end."""
    text = path.read_text()
    assert old in text, f"{path} no longer holds {old!r}"
    path.write_text(text.replace(old, new) if old else text + new)
    try:
        yield
    finally:
        path.write_text(text)


class InProcess:
    """Snakemake's own interface on a project, without a process per question."""

    def __init__(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = project
        # The digests of code are of the copy, which tests edit.
        monkeypatch.setattr("citepipe.provenance.ROOT", project)
        monkeypatch.chdir(project)

    def jobs(self, *targets: str, executor: str = "dryrun", forced: str = "") -> set[str]:
        """The jobs that would run, as `rule` or `rule system`."""
        output = OutputSettings(dryrun=executor == "dryrun", quiet={Quietness.ALL})
        with SnakemakeApi(output) as api:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(),
                snakefile=self.project / "Snakefile",
                workdir=self.project,
            )
            dag = workflow.dag(
                DAGSettings(
                    targets=frozenset(targets or [TABLE]),
                    rerun_triggers=frozenset({RerunTrigger.PARAMS}),
                    forceall=executor == "touch",
                    forcerun=frozenset(forced.split()),
                )
            )
            begun = _Begun()
            logger.addHandler(begun)
            try:
                dag.execute_workflow(executor=executor)
            finally:
                logger.removeHandler(begun)
            if executor == "touch":
                for job in workflow._workflow.dag.jobs:
                    record = record_of(RESULTS, str(job.output[0]))
                    write_record(record, {key: job.params[key] for key in ("cfg", "made_of")})
            return begun.jobs


class _Begun(logging.Handler):
    """Collects the jobs that begin."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            fields = record.__dict__
            system = (fields["wildcards"] or {}).get("system", "")
            self.jobs.add(f"{fields['rule_name']} {system}".strip())
