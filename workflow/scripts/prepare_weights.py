"""Somebody's weights as a directory that can be loaded: unpacked, found, without pickles."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.models.released import prepare, write_untrained

    if job.cfg["adapter"] is None:
        return write_untrained(job.config.model, job.out)
    return prepare(Path(job.cfg["adapter"]), job.out)


run_stage(work)
