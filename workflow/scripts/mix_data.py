"""The rows of all splits, chosen from the files that the configuration names."""

from functools import partial

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.data.mixture import mix

    options, retrieval = job.config.data, job.config.retrieval
    if retrieval is None:
        return mix(options, job.out.parent)
    from citepipe.retrieve import Retriever, nearest_parts, read_passages

    if retrieval.passages is None:
        return mix(options, job.out.parent, cut_documents=partial(nearest_parts, options=retrieval))
    retriever = Retriever(read_passages(retrieval), retrieval)
    return mix(options, job.out.parent, partial(retriever.find_documents, k=options.documents))


run_stage(work)
