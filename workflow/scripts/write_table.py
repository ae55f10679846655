"""The table of all systems, and all scores in tidy form."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.report import table

    cfg = snakemake.params.cfg
    return table.run(
        [
            (system, seed, Path(path))
            for (system, seed), path in zip(cfg["runs"], snakemake.input.scores, strict=True)
        ],
        Path(snakemake.output.table),
        Path(snakemake.output.scores),
    )


run_stage(snakemake, work)
