"""Answers grown segment by segment, the best beams by reward kept."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import fingerprint, run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options.model import ModelOptions
    from citepipe.options.prompt import PromptOptions
    from citepipe.options.reward import RewardOptions
    from citepipe.options.sample import SegmentSearchOptions
    from citepipe.sample import segment_search

    cfg = snakemake.params.cfg
    answers = Path(snakemake.output.answers)
    return segment_search.run(
        questions=Path(snakemake.input.questions),
        model=ModelOptions(**cfg["model"]),
        prompt=PromptOptions(**cfg["prompt"]),
        options=SegmentSearchOptions(**cfg["sample"]),
        reward=RewardOptions(**cfg["reward"]),
        verifier=cfg["verifier"],
        cache=Path(cfg["cache"]),
        adapter=Path(cfg["adapter"]),
        out_answers=answers,
        out_candidates=Path(snakemake.output.candidates),
        state=answers.parent.with_name(f"{answers.parent.name}.state"),
        fingerprint=fingerprint(snakemake),
        seed=int(snakemake.wildcards.seed),
        threads=snakemake.threads,
    )


run_stage(snakemake, work)
