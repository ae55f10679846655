"""Supervised fine-tuning on the teacher's answers or on selected samples."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import sft

    with job.training() as training:
        return sft.run(training, job.given("train"), job.given("dev"), job.options)


run_stage(work, together=True)
