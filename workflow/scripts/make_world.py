"""The miniature's questions, documents, gold answers and teacher, from its seed."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.miniature.world import write_world
    from citepipe.options import MiniatureOptions

    cfg = snakemake.params.cfg
    return write_world(MiniatureOptions(**cfg), Path(snakemake.output[0]).parent)


run_stage(snakemake, work)
