"""The cited answers that are distilled: given, or attributed by the verifier."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options.data import TeacherOptions
    from citepipe.teach.teacher import teach

    cfg = snakemake.params.cfg
    return teach(
        Path(snakemake.input.train),
        Path(snakemake.input.dev),
        TeacherOptions(**cfg["teacher"]),
        cfg["verifier"],
        cfg["splitter"],
        Path(cfg["cache"]),
        Path(snakemake.output.train),
        Path(snakemake.output.dev),
    )


run_stage(snakemake, work)
