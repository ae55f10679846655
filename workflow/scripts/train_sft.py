"""Supervised fine-tuning on the teacher's answers or on selected samples."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import fingerprint, run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options.model import ModelOptions
    from citepipe.options.prompt import PromptOptions
    from citepipe.options.sft import SFTOptions
    from citepipe.train import sft

    cfg = snakemake.params.cfg
    out = Path(snakemake.output[0])
    return sft.run(
        train=Path(snakemake.input.train),
        dev=Path(snakemake.input.dev),
        model=ModelOptions(**cfg["model"]),
        prompt=PromptOptions(**cfg["prompt"]),
        options=SFTOptions(**cfg["sft"]),
        start=Path(cfg["start"]) if cfg["start"] else None,
        out=out,
        state=out.with_name(f"{out.name}.state"),
        fingerprint=fingerprint(snakemake),
        seed=int(snakemake.wildcards.seed),
        threads=snakemake.threads,
    )


run_stage(snakemake, work)
