"""PPO, GRPO or RLOO from a system's model, which is also the KL reference."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import rl

    with job.training() as training:
        return rl.run(
            training,
            train=job.given("train"),
            dev=job.given("dev"),
            method=job.cfg["method"],
            options=job.options,
            reward=job.config.reward,
            placement=job.cfg["placement"],
            verifier=job.cfg["verifier"],
            watch=job.cfg["watch"],
            cache=job.cache,
        )


run_stage(work, together=True)
