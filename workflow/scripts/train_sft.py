"""Supervised fine-tuning on the teacher's answers or on selected samples."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import sft
    from citepipe.train.job import Job as Training

    told = job.training()
    options = told.pop("options")
    with job.tracker() as tracker:
        return sft.run(
            Training(**told, tracker=tracker),
            train=job.given("train"),
            dev=job.given("dev"),
            options=options,
        )


run_stage(work, together=True)
