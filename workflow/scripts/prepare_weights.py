"""Somebody's weights as a directory that can be loaded: unpacked, found, without pickles."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.models.released import prepare, write_untrained
    from citepipe.options import ModelOptions

    cfg = snakemake.params.cfg
    out = Path(snakemake.output[0])
    if cfg["adapter"] is None:
        return write_untrained(ModelOptions(**cfg["model"]), out)
    return prepare(Path(cfg["adapter"]), out)


run_stage(snakemake, work)
