"""The sampled answers of all shards, put together."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.sample.merge import merge

    return merge(
        questions=job.given("questions"),
        count=job.cfg["questions"],
        min_reward=job.cfg["min_reward"],
        seed=job.seed,
        parts=job.all_given("parts"),
        out_answers=job.made("answers"),
        out_candidates=job.made("candidates"),
    )


run_stage(work)
