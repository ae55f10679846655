"""What an address leads to: a file, an unpacked archive, or many files, in a folder of its own; of
a model in GGUF the base model that is made of it."""

from stage import Job, run_stage


def work(job: Job) -> str:
    address, options = job.cfg["address"], job.config.sources
    if "dtype" in job.cfg:
        from citepipe.models.gguf import prepare_base

        return prepare_base(address, job.out, job.cfg["dtype"], options)
    from citepipe.sources import fetch

    return fetch(address, job.out, options, job.cfg["members"])


run_stage(work)
