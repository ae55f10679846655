"""The job of both sampling scripts."""

from pathlib import Path
from typing import Any

from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.reward import RewardOptions
from citepipe.sample.record import Job
from stage import fingerprint


def job_of(snakemake: Any) -> Job:
    """What a sampling rule's inputs, outputs and parameters say."""
    cfg = snakemake.params.cfg
    answers = Path(snakemake.output.answers)
    return Job(
        questions=Path(snakemake.input.questions),
        model=ModelOptions(**cfg["model"]),
        adapter=Path(cfg["adapter"]),
        prompt=PromptOptions(**cfg["prompt"]),
        reward=RewardOptions(**cfg["reward"]),
        verifier=cfg["verifier"],
        cache=Path(cfg["cache"]),
        out_answers=answers,
        out_candidates=Path(snakemake.output.candidates),
        state=answers.parent.with_name(f"{answers.parent.name}.state"),
        fingerprint=fingerprint(snakemake),
        seed=int(snakemake.wildcards.seed),
        threads=snakemake.threads,
    )
