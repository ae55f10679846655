"""The cited answers that are distilled: given, attributed by the verifier, or from an endpoint."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.teach.teacher import teach

    config = job.config
    return teach(
        train=job.given("train"),
        dev=job.given("dev"),
        options=config.teacher,
        verifier=config.verifiers.train,
        reward=config.reward,
        cache=job.cache,
        journal=job.cache.with_name("teacher.jsonl"),
        out_train=job.made("train"),
        out_dev=job.made("dev"),
    )


run_stage(work)
