"""The learning curves of all trained systems, drawn and as numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.report import curves

    return curves.run(
        [(system, seed, Path(path)) for system, seed, path in snakemake.params.cfg["runs"]],
        Path(snakemake.output.figure),
        Path(snakemake.output.points),
    )


run_stage(snakemake, work)
