"""Direct preference optimization on sampled answers, from a system that is also the reference."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import dpo
    from citepipe.train.job import Job as Training

    told = job.training()
    options = told.pop("options")
    with job.tracker() as tracker:
        return dpo.run(
            Training(**told, tracker=tracker),
            samples=job.given("samples"),
            questions=job.given("questions"),
            options=options,
        )


run_stage(work, together=True)
