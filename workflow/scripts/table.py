"""The table of all systems, all scores in tidy form, and the learning curves."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.report import files

    runs = [(name, seed) for name, seed, _ in job.cfg["runs"]]
    trained = [(name, seed) for name, seed, is_trained in job.cfg["runs"] if is_trained]
    if trained:
        from citepipe.report import curves

        models = zip(trained, job.all_given("models"), strict=True)
        figure, points = map(Path, job.snakemake.output["curves"])
        curves.run([(*run, path / "metrics.jsonl") for run, path in models], figure, points)
    scores = zip(runs, job.all_given("scores"), strict=True)
    return files.run(
        [(*run, path) for run, path in scores],
        dict(job.cfg["starts"]),
        job.cfg["against"],
        job.config.score,
        job.made("table"),
        job.made("scores"),
    )


run_stage(work)
