"""Whole answers sampled from a system, the best by reward kept."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import fingerprint, run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options.model import ModelOptions
    from citepipe.options.prompt import PromptOptions
    from citepipe.options.reward import RewardOptions
    from citepipe.options.sample import BestOfNOptions
    from citepipe.sample import best_of_n

    cfg = snakemake.params.cfg
    answers = Path(snakemake.output.answers)
    return best_of_n.run(
        questions=Path(snakemake.input.questions),
        model=ModelOptions(**cfg["model"]),
        prompt=PromptOptions(**cfg["prompt"]),
        options=BestOfNOptions(**cfg["sample"]),
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
