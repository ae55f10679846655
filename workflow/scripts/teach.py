"""The cited answers that are distilled: given, attributed by the verifier, or asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

from stage import of_this_run, run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.options import RewardOptions, TeacherOptions
    from citepipe.teach.teacher import teach

    cfg = snakemake.params.cfg
    told = dict(cfg["teacher"])
    if "endpoint" in told:
        told["endpoint"] = of_this_run(snakemake, "teacher")["endpoint"] | told["endpoint"]
    return teach(
        train=Path(snakemake.input.train),
        dev=Path(snakemake.input.dev),
        options=TeacherOptions(**told),
        verifier=cfg["verifier"] or "lexical",
        reward=RewardOptions(**(cfg["reward"] or {})),
        cache=Path(cfg["cache"]),
        journal=Path(cfg["journal"]),
        out_train=Path(snakemake.output.train),
        out_dev=Path(snakemake.output.dev),
    )


run_stage(snakemake, work)
