"""ALCE's scores of a system's answers, by every verifier that reports."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import ScoreOptions
    from citepipe.score import files

    cfg = snakemake.params.cfg
    return files.run(
        {dataset: Path(path) for dataset, path in cfg["answers"].items()},
        cfg["verifiers"],
        ScoreOptions(**cfg["score"]),
        Path(cfg["cache"]),
        Path(snakemake.output[0]),
    )


run_stage(snakemake, work)
