"""What every training stage is told, and what follows its figures."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from citepipe.options import ModelOptions, PromptOptions, TrackingOptions
from citepipe.tracking.tracker import Tracker, track
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
    """A tracker of a rule's job; a job that goes on after a cut has the same again.

    Of several processes that do the job together only the first one tracks.
    """
    if os.environ.get("RANK", "0") != "0":
        return Tracker()
    return track(
        TrackingOptions(**(snakemake.config.get("tracking") or {})),
        folder=Path(snakemake.config.get("results", "results")),
        stage=snakemake.rule,
        system=snakemake.wildcards.system,
        seed=int(snakemake.wildcards.seed),
        key=fingerprint,
        config=dict(snakemake.params.cfg),
    )
