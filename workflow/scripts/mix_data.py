"""The rows of all splits, chosen from the files that the configuration names."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.data.mixture import mix
    from citepipe.options.data import DataOptions

    cfg = snakemake.params.cfg
    return mix(DataOptions(**cfg), Path(snakemake.output.train).parent)


run_stage(snakemake, work)
