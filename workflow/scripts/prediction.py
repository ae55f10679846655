"""The job of both prediction scripts."""

from pathlib import Path
from typing import Any

from citepipe.generate.predict import PredictJob
from citepipe.options import ModelOptions, PredictOptions, PromptOptions, ServerOptions
from stage import fingerprint, of_this_run


def job_of(snakemake: Any) -> PredictJob:
    """What a prediction rule's inputs, outputs and parameters say."""
    cfg = snakemake.params.cfg
    datasets = cfg["datasets"]
    folder = Path(snakemake.output[0]).parent
    return PredictJob(
        tests=dict(zip(datasets, map(Path, snakemake.input.tests), strict=True)),
        model=ModelOptions(**cfg["model"]),
        prompt=PromptOptions(**cfg["prompt"]),
        options=PredictOptions(**cfg["predict"], **of_this_run(snakemake, "predict")),
        adapter=Path(cfg["adapter"]),
        server=ServerOptions(**of_this_run(snakemake, "server")) if cfg["server"] else None,
        outs=dict(zip(datasets, map(Path, snakemake.output), strict=True)),
        state=folder.with_name(f"{folder.name}.state"),
        fingerprint=fingerprint(snakemake),
        seed=int(snakemake.wildcards.seed),
        threads=snakemake.threads,
    )
