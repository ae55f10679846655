"""Direct preference optimization on sampled answers, from a system that is also the reference."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import DPOOptions
    from citepipe.train import dpo
    from training import told

    with told(snakemake) as shared:
        return dpo.run(
            samples=Path(snakemake.input.samples),
            questions=Path(snakemake.input.questions),
            options=DPOOptions(**snakemake.params.cfg["dpo"]),
            **shared,
        )


run_stage(snakemake, work, processes=snakemake.resources.gpu)
