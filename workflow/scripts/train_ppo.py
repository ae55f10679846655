"""Proximal policy optimization from a system's adapter, which is also the KL reference."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import fingerprint, run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options.model import ModelOptions
    from citepipe.options.prompt import PromptOptions
    from citepipe.options.reward import RewardOptions
    from citepipe.options.rl import PPOOptions
    from citepipe.train import ppo

    cfg = snakemake.params.cfg
    out = Path(snakemake.output[0])
    return ppo.run(
        train=Path(snakemake.input.train),
        dev=Path(snakemake.input.dev),
        model=ModelOptions(**cfg["model"]),
        prompt=PromptOptions(**cfg["prompt"]),
        options=PPOOptions(**cfg["rl"]),
        reward=RewardOptions(**cfg["reward"]),
        placement=cfg["placement"],
        verifier=cfg["verifier"],
        cache=Path(cfg["cache"]),
        start=Path(cfg["start"]),
        out=out,
        state=out.with_name(f"{out.name}.state"),
        fingerprint=fingerprint(snakemake),
        seed=int(snakemake.wildcards.seed),
        threads=snakemake.threads,
    )


run_stage(snakemake, work)
