"""Answers sampled from a system, the best by reward kept: whole answers, or grown by segments."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.sample import best_of_n, segment_search
    from citepipe.sample.job import Share

    answering = job.answering(
        job.out.with_suffix(".state"), job.config.systems[job.system].data.from_
    )
    shard, shards = map(int, job.snakemake.wildcards.scatteritem.split("-of-"))
    share = Share(job.given("questions"), shard - 1, shards, job.out)
    if job.cfg["method"] == "best_of_n":
        return best_of_n.run(answering, share, job.config.best_of_n)
    return segment_search.run(answering, share, job.config.segment_search)


run_stage(work)
