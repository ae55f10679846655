"""The rows of all splits, chosen from the files that the configuration names."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stage import run_stage

if TYPE_CHECKING:
    from snakemake.script import snakemake


def work() -> str:
    from citepipe.data.mixture import mix
    from citepipe.options import DataOptions, RetrievalOptions

    cfg = snakemake.params.cfg
    options = DataOptions(**cfg["data"])
    find_documents = None
    if cfg["retrieval"] is not None:
        from citepipe.retrieve.bm25 import Retriever
        from citepipe.retrieve.passages import read_passages

        retrieval = RetrievalOptions(**cfg["retrieval"])
        retriever = Retriever(read_passages(retrieval).documents, retrieval)
        find_documents = partial(retriever.find_documents, k=options.documents)
    return mix(options, Path(snakemake.output.train).parent, find_documents)


run_stage(snakemake, work)
