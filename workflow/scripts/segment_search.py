"""Answers grown segment by segment, the best beams by reward kept."""

from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import SegmentSearchOptions
    from citepipe.sample import segment_search
    from sampling import job_of
    from stage import of_this_run

    told = snakemake.params.cfg["sample"] | of_this_run(snakemake, "segment_search")
    return segment_search.run(job_of(snakemake), SegmentSearchOptions(**told))


run_stage(snakemake, work)
