"""The job of both scripts of reinforcement learning."""

from pathlib import Path
from typing import Any

from citepipe.options import RewardOptions
from citepipe.train import rl
from citepipe.train.job import Job
from citepipe.train.methods import METHODS
from training import told


def learn(snakemake: Any) -> str:
    """Run reinforcement learning as a rule's inputs, outputs and parameters say."""
    cfg = snakemake.params.cfg
    with told(snakemake) as shared:
        return rl.run(
            Job(**shared),
            train=Path(snakemake.input.train),
            dev=Path(snakemake.input.dev),
            method=cfg["method"],
            options=METHODS[cfg["method"]].options(**cfg["options"]),
            reward=RewardOptions(**cfg["reward"]),
            placement=cfg["placement"],
            verifier=cfg["verifier"],
            cache=Path(cfg["cache"]),
        )
