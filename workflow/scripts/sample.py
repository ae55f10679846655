"""Answers sampled from a system, the best by reward kept: whole answers, or grown by segments."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.sample import best_of_n, segment_search
    from citepipe.sample.record import Job as SampleJob

    config = job.config
    shard, shards = map(int, job.snakemake.wildcards.scatteritem.split("-of-"))
    sampling = SampleJob(
        questions=job.given("questions"),
        model=config.model,
        adapter=Path(job.cfg["adapter"]),
        prompt=config.prompt,
        reward=config.reward,
        verifier=config.verifiers.train,
        cache=job.cache,
        server=config.server,
        shard=shard - 1,
        shards=shards,
        out=job.out,
        state=job.out.with_suffix(".state"),
        fingerprint=job.fingerprint,
        seed=job.seed,
        threads=job.threads,
    )
    if job.cfg["method"] == "best_of_n":
        return best_of_n.run(sampling, config.best_of_n)
    return segment_search.run(sampling, config.segment_search)


run_stage(work)
