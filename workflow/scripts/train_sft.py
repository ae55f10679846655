"""Supervised fine-tuning on the teacher's answers or on selected samples."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import sft

    with job.tracker() as tracker:
        return sft.run(
            train=job.given("train"), dev=job.given("dev"), tracker=tracker, **job.training()
        )


run_stage(work, together=True)
