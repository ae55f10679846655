"""Proximal policy optimization from a system's model, which is also the KL reference."""

from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import PPOOptions
    from citepipe.train.ppo import PPO
    from reinforcement import learn

    return learn(snakemake, lambda _, options, model, __: PPO(PPOOptions(**options), model))


run_stage(snakemake, work, processes=snakemake.resources.gpu)
