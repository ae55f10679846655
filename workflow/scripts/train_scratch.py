"""A tokenizer and a small base model trained on given texts."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import PromptOptions, ScratchOptions
    from citepipe.train import scratch

    cfg = snakemake.params.cfg
    options = ScratchOptions(**cfg["scratch"])
    return scratch.run(
        texts=list(map(Path, options.texts)),
        prompt=PromptOptions(**cfg["prompt"]),
        options=options,
        out=Path(snakemake.output[0]),
        threads=snakemake.threads,
    )


run_stage(snakemake, work)
