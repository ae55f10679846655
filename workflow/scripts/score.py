"""ALCE's scores of a system's answers, by every verifier that reports."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.scoring import files

    answers = {dataset: Path(path) for dataset, path in job.cfg["answers"]}
    return files.run(answers, dict(job.cfg["verifiers"]), job.config.score, job.cache, job.out)


run_stage(work)
