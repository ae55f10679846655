"""Somebody's weights as a directory that can be loaded: unpacked, found, without pickles."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.models.released import prepare

    return prepare(Path(snakemake.params.cfg["adapter"]), Path(snakemake.output[0]))


run_stage(snakemake, work)
