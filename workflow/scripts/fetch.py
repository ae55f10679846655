"""What an address leads to: a file, an unpacked archive, or many files, in a folder of its own."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import of_this_run, run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import SourcesOptions
    from citepipe.sources import fetch

    cfg = snakemake.params.cfg
    options = SourcesOptions(**of_this_run(snakemake, "sources"))
    return fetch(cfg["address"], Path(snakemake.output[0]), options, cfg["members"])


run_stage(snakemake, work)
