"""The rows of all splits, chosen from the files that the configuration names."""

from functools import partial

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.data.mixture import mix

    options, retrieval = job.config.data, job.config.retrieval
    find_documents = None
    if retrieval is not None:
        from citepipe.retrieve import Retriever, read_passages

        retriever = Retriever(read_passages(retrieval), retrieval)
        find_documents = partial(retriever.find_documents, k=options.documents)
    return mix(options, job.out.parent, find_documents)


run_stage(work)
