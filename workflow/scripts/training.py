"""What every training stage receives, and the tracker of its figures."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from citepipe.options import ModelOptions, PromptOptions, TrackingOptions
from citepipe.tracking import Tracker
from stage import fingerprint


@contextmanager
def told(snakemake: Any) -> Iterator[dict[str, Any]]:
    """A training rule's job as the arguments that all training stages have by the same name.

    The tracker among them ends with the block.
    """
    cfg = snakemake.params.cfg
    out = Path(snakemake.output[0])
    mark = fingerprint(snakemake)
    with tracker_of(snakemake, mark) as tracker:
        yield {
            "model": ModelOptions(**cfg["model"]),
            "prompt": PromptOptions(**cfg["prompt"]),
            "start": Path(cfg["start"]) if cfg["start"] else None,
            "out": out,
            "state": out.with_name(f"{out.name}.state"),
            "fingerprint": mark,
            "seed": int(snakemake.wildcards.seed),
            "threads": snakemake.threads,
            "tracker": tracker,
        }


def tracker_of(snakemake: Any, fingerprint: str) -> Tracker:
    """A tracker of a rule's job; a job that continues after a cut-off has the same run again.

    Of several processes that do the job together only the first one tracks.
    """
    options = TrackingOptions(**(snakemake.config.get("tracking") or {}))
    if options.wandb == "off" or os.environ.get("RANK", "0") != "0":
        return Tracker()
    stage, system, seed = snakemake.rule, snakemake.wildcards.system, snakemake.wildcards.seed
    results = Path(snakemake.config.get("results", "results"))
    return Tracker(
        key=f"{stage}|{system}|{seed}|{fingerprint}",
        mode=options.wandb,
        project=options.project,
        dir=results,
        name=f"{system}-seed{seed}",
        group=system,
        job_type=stage,
        config={"stage": stage, "system": system, "seed": int(seed), **snakemake.params.cfg},
    )
