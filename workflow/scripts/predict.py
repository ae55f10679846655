"""A system's answer to every test question: the likeliest one, or one that is searched."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.generate import predict as greedy
    from citepipe.sample import predict as search

    config, folder = job.config, job.out.parent
    outs = [Path(path) for path in job.snakemake.output]
    answering = greedy.PredictJob(
        tests=dict(zip([out.stem for out in outs], job.all_given("tests"), strict=True)),
        model=config.model,
        prompt=config.prompt,
        options=config.predict,
        adapter=Path(job.cfg["adapter"]),
        server=config.server,
        outs={out.stem: out for out in outs},
        state=folder.with_name(f"{folder.name}.state"),
        fingerprint=job.fingerprint,
        seed=job.seed,
        threads=job.threads,
    )
    if job.cfg["search"] is None:
        return greedy.run(answering)
    # Test questions have no gold answers to be rewarded for.
    return search.run(
        answering, config.segment_search, config.reward, config.verifiers.train, job.cache
    )


run_stage(work)
