"""The table of all systems, all scores in tidy form, the learning curves and other figures."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.report import figures, files

    runs = [(name, seed) for name, seed, _ in job.cfg["runs"]]
    trained = [(name, seed) for name, seed, is_trained in job.cfg["runs"] if is_trained]
    models = [(*run, path) for run, path in zip(trained, job.all_given("models"), strict=True)]
    if models:
        from citepipe.report import curves

        figure, _, points = map(Path, job.snakemake.output["curves"])
        curves.run([(*run, path / "metrics.jsonl") for *run, path in models], figure, points)
    scores = [(*run, path) for run, path in zip(runs, job.all_given("scores"), strict=True)]
    starts, table = dict(job.cfg["starts"]), job.made("table")
    line = files.run(
        scores,
        starts,
        job.cfg["against"],
        job.config.score,
        table,
        job.made("scores"),
    )
    figures.run(table, scores, job.samples, models, starts, job.out.parent / "figures")
    return line


run_stage(work)
