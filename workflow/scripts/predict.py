"""A system's answer to every test question: the likeliest one, a searched or a copied one."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.sample import extract, predict, segment_search

    config, folder = job.config, job.out.parent
    outs = {Path(path).stem: Path(path) for path in job.snakemake.output}
    tests = dict(zip(outs, job.all_given("tests"), strict=True))
    if "splitter" in job.cfg:
        return extract.run(tests, outs, job.cfg["splitter"])
    answering = job.answering(folder.with_name(f"{folder.name}.state"), job.system)
    if job.cfg["search"] is None:
        return predict.run(answering, config.predict, tests, outs)
    return segment_search.run_prediction(
        answering, config.predict, tests, outs, config.segment_search
    )


run_stage(work)
