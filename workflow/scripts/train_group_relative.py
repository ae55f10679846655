"""GRPO or RLOO from a system's model, which is also the KL reference."""

from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from reinforcement import learn

    return learn(snakemake)


run_stage(snakemake, work, processes=snakemake.resources.gpu)
