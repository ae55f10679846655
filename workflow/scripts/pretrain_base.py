"""The miniature's base model, pretrained without any cited answer."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.miniature.base import pretrain
    from citepipe.options import MiniatureOptions

    cfg = snakemake.params.cfg
    return pretrain(MiniatureOptions(**cfg), Path(snakemake.output[0]))


run_stage(snakemake, work)
