"""What an address leads to: a file, an unpacked archive, or many files, in a folder of its own."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.sources import fetch

    return fetch(job.cfg["address"], job.out, job.config.sources, job.cfg["members"])


run_stage(work)
