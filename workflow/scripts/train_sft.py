"""Supervised fine-tuning on the teacher's answers or on selected samples."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import SFTOptions
    from citepipe.train import sft
    from training import told

    with told(snakemake) as shared:
        return sft.run(
            train=Path(snakemake.input.train),
            dev=Path(snakemake.input.dev),
            options=SFTOptions(**snakemake.params.cfg["sft"]),
            **shared,
        )


run_stage(snakemake, work, processes=snakemake.resources.gpu)
