"""A system's answer to every test question, searched for by the rewards of its citations."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from prediction import job_of

    from citepipe.options import RewardOptions, SegmentSearchOptions
    from citepipe.sample import predict

    told = snakemake.params.search
    return predict.run(
        job_of(snakemake),
        SegmentSearchOptions(**told["search"]),
        RewardOptions(**told["reward"]),
        told["verifier"],
        Path(told["cache"]),
    )


run_stage(snakemake, work)
