"""The job of both sampling scripts."""

from pathlib import Path
from typing import Any

from citepipe.options import ModelOptions, PromptOptions, RewardOptions, ServerOptions
from citepipe.sample.record import Job
from stage import fingerprint, of_this_run


def job_of(snakemake: Any) -> Job:
    """What a sampling rule's inputs, outputs and parameters say."""
    cfg = snakemake.params.cfg
    out = Path(snakemake.output[0])
    shard, shards = map(int, snakemake.wildcards.scatteritem.split("-of-"))
    return Job(
        questions=Path(snakemake.input.questions),
        model=ModelOptions(**cfg["model"]),
        adapter=Path(cfg["adapter"]),
        prompt=PromptOptions(**cfg["prompt"]),
        reward=RewardOptions(**cfg["reward"]),
        verifier=cfg["verifier"],
        cache=Path(cfg["cache"]),
        server=ServerOptions(**of_this_run(snakemake, "server")) if cfg["server"] else None,
        shard=shard - 1,
        shards=shards,
        out=out,
        state=out.with_suffix(".state"),
        fingerprint=fingerprint(snakemake),
        seed=int(snakemake.wildcards.seed),
        threads=snakemake.threads,
    )
