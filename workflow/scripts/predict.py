"""A system's answer to every test question."""

from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from prediction import job_of

    from citepipe.generate import predict

    return predict.run(job_of(snakemake))


run_stage(snakemake, work)
