"""The job of both scripts of reinforcement learning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from citepipe.options import ModelOptions, RewardOptions
from citepipe.rewards import Placement
from citepipe.train import learning
from training import told


def learn(
    snakemake: Any,
    method_of: Callable[[str, dict[str, Any], ModelOptions, Placement], learning.Method],
) -> str:
    """Run reinforcement learning as a rule's inputs, outputs and parameters say.

    Args:
        snakemake: the job's object.
        method_of: from a method's name, its options, the base model and where rewards stand.
    """
    cfg = snakemake.params.cfg
    with told(snakemake) as shared:
        return learning.run(
            train=Path(snakemake.input.train),
            dev=Path(snakemake.input.dev),
            method=method_of(cfg["method"], cfg["options"], shared["model"], cfg["placement"]),
            reward=RewardOptions(**cfg["reward"]),
            placement=cfg["placement"],
            verifier=cfg["verifier"],
            cache=Path(cfg["cache"]),
            **shared,
        )
