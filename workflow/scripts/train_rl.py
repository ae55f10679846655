"""PPO, GRPO or RLOO from a system's model, which is also the KL reference."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import rl
    from citepipe.train.job import Job as Training

    told = job.training()
    options = told.pop("options")
    with job.tracker() as tracker:
        return rl.run(
            Training(**told, tracker=tracker),
            train=job.given("train"),
            dev=job.given("dev"),
            method=job.cfg["method"],
            options=options,
            reward=job.config.reward,
            placement=job.cfg["placement"],
            verifier=job.cfg["verifier"],
            cache=job.cache,
        )


run_stage(work, together=True)
