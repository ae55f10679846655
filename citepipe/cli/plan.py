"""The command `plan`: what a run of the workflow would do, need and cost, and why."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from citepipe.cli import shared
from citepipe.errors import InputError

SHOWN = 60
"""Characters that are shown of a value."""


def add_plan(commands: Any) -> None:
    """The command `plan`."""
    option = shared.command(
        commands,
        "plan",
        _plan,
        "what a run of the workflow would do, need and cost, and why",
        "Asks Snakemake what a run in this folder would do now. Shows by stage its jobs, the most "
        "that one of them asks for (memory, GPUs, memory of a GPU), what they are expected to take "
        "together (hours, hours of GPUs, disk), and why they run. Times and sizes are rough, and "
        "of a GPU where a stage wants one. Nothing is written below the results.",
        "plan",
        "plan --configfile experiments/llama2-7b.yaml --price 2.5",
    ).add_argument
    config = "the configuration; default: config.yaml"
    option("--configfile", type=Path, metavar="FILE", help=config)
    price = shared.number(float, "a number from 0", lambda value: 0 <= value < float("inf"))
    option("--price", type=price, metavar="X", help="of an hour of a GPU, in any money")
    shared.add_json(option)


def _plan(arguments: argparse.Namespace) -> None:
    """Show the jobs that would run, by stage."""
    shared.check_writable(arguments.json)
    jobs = jobs_to_run(arguments.configfile)
    stages: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for job in jobs:
        stages[job["stage"]].append(job)
    head = ("stage", "jobs", "memory", "GPUs", "GPU memory", "hours", "GPU hours", "disk")
    rows = [head, *(_row(stage, own) for stage, own in stages.items()), _row("all", jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([name.ljust(widths[0]), *map(str.rjust, figures, widths[1:])])
        for name, *figures in rows
    ]
    if arguments.price is not None:
        money = arguments.price * sum(job["hours"] * job["gpus"] for job in jobs)
        lines.append(f"\nGPUs at {arguments.price:g} an hour: {money:.2f}")
    lines.append("\nWhy:")
    for stage, own in stages.items():
        reasons = Counter(job["why"] for job in own).most_common()
        lines += [f"  {stage}, {count} of {len(own)}: {why}" for why, count in reasons]
    shared.publish(arguments.json, jobs, lines if jobs else ["Nothing to be done."])


def _row(stage: str, jobs: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the jobs of a stage need: memory and GPUs at most, all else together."""

    def most(key: str) -> float:
        return max((job[key] for job in jobs), default=0)

    on_gpus = [job for job in jobs if job["gpus"]]
    return (
        stage,
        str(len(jobs)),
        f"{most('memory_gb'):.1f} GB",
        f"{most('gpus')}",
        f"{max((job['gpu_memory_gb'] for job in on_gpus), default=0):.1f} GB",
        f"{sum(job['hours'] for job in jobs):.2f}",
        f"{sum(job['hours'] * job['gpus'] for job in on_gpus):.2f}",
        f"{sum(job['disk_gb'] for job in jobs):.2f} GB",
    )


def jobs_to_run(configfile: Path | None) -> list[dict[str, Any]]:
    """The jobs that a run would have now, in their order: stage, wildcards, what each needs (GB,
    hours, GPUs), and why.

    Raises:
        InputError: there is no workflow, or Snakemake refuses it.
    """
    import io
    import logging
    import sys
    from contextlib import redirect_stderr

    from snakemake.api import SnakemakeApi
    from snakemake.logging import logger
    from snakemake.settings.enums import RerunTrigger
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        OutputSettings,
        ResourceSettings,
    )
    from snakemake_interface_common.exceptions import ApiError, WorkflowError

    from citepipe.provenance import ROOT

    snakefile = next(filter(Path.is_file, (Path("Snakefile"), ROOT / "Snakefile")), None)
    if snakefile is None:
        raise InputError("no Snakefile here: this is for the folder of the workflow")
    if configfile and not configfile.is_file():
        raise InputError(f"{configfile}: no such file")
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)
    logger.addHandler(warnings)
    # Snakemake lists every job.
    with redirect_stderr(io.StringIO()), SnakemakeApi(OutputSettings(dryrun=True)) as api:
        try:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(configfiles=[configfile] if configfile else []),
                snakefile=snakefile,
            )
            dag = workflow.dag(DAGSettings(rerun_triggers=frozenset({RerunTrigger.PARAMS})))
            dag.execute_workflow(executor="dryrun")
        except (ApiError, WorkflowError) as error:
            raise InputError(" ".join(str(error).split())) from None
        graph: Any = workflow._workflow.dag
        return [
            {
                "stage": job.rule.name,
                "wildcards": dict(job.wildcards_dict),
                "why": _why(job, graph),
                "memory_gb": job.resources["mem_mb"] / 1000,
                "gpus": job.resources.get("gpu", 0),
                "gpu_memory_gb": job.resources["gpu_mb"] / 1000,
                "hours": job.resources["seconds"] / 3600,
                "disk_gb": job.resources["disk_mb"] / 1000,
            }
            for level in graph.toposorted()
            for job in sorted(level, key=lambda job: str(job.output))
            if graph.needrun(job) and job.rule.name != "all"
        ]


def _why(job: Any, graph: Any) -> str:
    """Why a job runs: by the record of what its output was made of, else by Snakemake."""
    from citepipe.provenance import read_record, record_of

    reason = graph.reason(job)
    if reason.forced:
        return "forced"
    if reason.missing_output:
        return "not there yet"
    made = read_record(record_of(job.rule.workflow.globals["RESULTS"], job.output[0]))
    if not isinstance(made, dict):
        return "nothing says what it was made of, or it was cut off"
    changed = [
        f"{key} {_short(old)} -> {_short(new)}"
        for key, old, new in _differences(made["cfg"], job.params["cfg"])
    ]
    others = [key for key, *_ in _differences(made["made_of"], job.params["made_of"])]
    if "code" in others:
        changed.append("its code")
    given = ", ".join(key for key in others if key != "code")
    makers = ", ".join(sorted({x.rule.name for x in graph.dependencies[job] if graph.needrun(x)}))
    if given or makers:
        changed.append(f"what it is given{given and ': '}{given}{makers and ', by '}{makers}")
    return "; ".join(changed) or str(reason)


def _differences(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves of two nested mappings that are not the same: where, the one, and the other."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{place}{key}.")
    elif old != new:
        yield place.rstrip("."), old, new


def _short(value: Any) -> str:
    return textwrap.shorten(json.dumps(value, ensure_ascii=False), SHOWN, placeholder=" ...")
