"""Answers sampled from a system, the best by reward kept: whole answers, or grown by segments."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.sample import best_of_n, segment_search
    from citepipe.sample.job import Job as SampleJob
    from citepipe.sample.job import Share

    config = job.config
    shard, shards = map(int, job.snakemake.wildcards.scatteritem.split("-of-"))
    sampling = SampleJob(
        model=config.model,
        adapter=Path(job.cfg["adapter"]),
        prompt=config.prompt,
        server=config.server,
        state=job.out.with_suffix(".state"),
        fingerprint=job.fingerprint,
        seed=job.seed,
        threads=job.threads,
        reward=config.reward,
        verifier=config.verifiers.train,
        cache=job.cache,
    )
    share = Share(job.given("questions"), shard - 1, shards, job.out)
    if job.cfg["method"] == "best_of_n":
        return best_of_n.run(sampling, share, config.best_of_n)
    return segment_search.run(sampling, share, config.segment_search)


run_stage(work)
