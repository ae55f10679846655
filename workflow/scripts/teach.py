"""The cited answers that are distilled: given, or attributed by the verifier."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options.teacher import TeacherOptions
    from citepipe.teach.teacher import teach

    cfg = snakemake.params.cfg
    return teach(
        train=Path(snakemake.input.train),
        dev=Path(snakemake.input.dev),
        options=TeacherOptions(**cfg["teacher"]),
        verifier=cfg["verifier"],
        splitter=cfg["splitter"],
        cache=Path(cfg["cache"]),
        out_train=Path(snakemake.output.train),
        out_dev=Path(snakemake.output.dev),
    )


run_stage(snakemake, work)
