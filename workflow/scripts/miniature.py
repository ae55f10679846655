"""The miniature's world from its seed, or its base model, pretrained without any cited answer."""

from stage import Job, run_stage


def work(job: Job) -> str:
    if job.snakemake.rule.endswith("world"):
        from citepipe.miniature.world import write_world

        return write_world(job.config.miniature, job.out.parent)
    from citepipe.miniature.base import pretrain

    return pretrain(job.config.miniature, job.out)


run_stage(work)
