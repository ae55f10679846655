"""The sampled answers of all shards, put together."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.sample.merge import merge

    return merge(
        questions=Path(snakemake.input.questions),
        count=snakemake.params.cfg["questions"],
        seed=int(snakemake.wildcards.seed),
        parts=[Path(part) for part in snakemake.input.parts],
        out_answers=Path(snakemake.output.answers),
        out_candidates=Path(snakemake.output.candidates),
    )


run_stage(snakemake, work)
