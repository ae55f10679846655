"""Direct preference optimization on sampled answers, from a system that is also the reference."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import dpo

    with job.tracker() as tracker:
        return dpo.run(
            samples=job.given("samples"),
            questions=job.given("questions"),
            tracker=tracker,
            **job.training(),
        )


run_stage(work, together=True)
