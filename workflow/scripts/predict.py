"""A system's answer to every test question."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.generate import predict
    from citepipe.options.model import ModelOptions
    from citepipe.options.predict import PredictOptions
    from citepipe.options.prompt import PromptOptions

    cfg = snakemake.params.cfg
    datasets = cfg["datasets"]
    return predict.run(
        tests=dict(zip(datasets, map(Path, snakemake.input.tests), strict=True)),
        model=ModelOptions(**cfg["model"]),
        prompt=PromptOptions(**cfg["prompt"]),
        options=PredictOptions(**cfg["predict"]),
        adapter=Path(cfg["adapter"]),
        outs=dict(zip(datasets, map(Path, snakemake.output), strict=True)),
        seed=int(snakemake.wildcards.seed),
        threads=snakemake.threads,
    )


run_stage(snakemake, work)
