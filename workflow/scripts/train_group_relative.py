"""GRPO or RLOO from a system's model, which is also the KL reference."""

from typing import TYPE_CHECKING, Any

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import GRPOOptions, RLOOOptions
    from citepipe.rewards import Placement
    from citepipe.train.group_relative import GRPO, RLOO
    from reinforcement import learn

    def method(name: str, options: dict[str, Any], _: object, placement: Placement) -> GRPO | RLOO:
        if name == "grpo":
            return GRPO(GRPOOptions(**options), placement)
        return RLOO(RLOOOptions(**options), placement)

    return learn(snakemake, method)


run_stage(snakemake, work, processes=snakemake.resources.gpu)
