"""Direct preference optimization on sampled answers, from a system that is also the reference."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import dpo

    with job.training() as training:
        return dpo.run(training, job.given("samples"), job.given("questions"), job.options)


run_stage(work, together=True)
