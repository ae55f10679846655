"""Whole answers sampled from a system, the best by reward kept."""

from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import BestOfNOptions
    from citepipe.sample import best_of_n
    from sampling import job_of
    from stage import of_this_run

    told = snakemake.params.cfg["sample"] | of_this_run(snakemake, "best_of_n")
    return best_of_n.run(job_of(snakemake), BestOfNOptions(**told))


run_stage(snakemake, work)
