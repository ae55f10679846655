"""The page that shows the table, figures and every answer with its verdicts."""

from pathlib import Path

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.data.files import read_json
    from citepipe.report import page
    from citepipe.scoring.results import Scored

    files = [
        Scored(system, seed, path, read_json(path))
        for (system, seed, _), path in zip(job.cfg["runs"], job.all_given("scores"), strict=True)
    ]
    curves = job.all_given("curves")
    models = zip(job.cfg["reinforced"], job.all_given("models"), strict=True)
    report = page.gather(
        files,
        map(Path, job.cfg["answers"]),
        dict(job.cfg["starts"]),
        job.cfg["against"],
        job.config.score,
        trained=[system for system, _, is_trained in job.cfg["runs"] if is_trained],
        curves=curves[0] if curves else None,
        samples=job.samples,
        models=[(*own, model) for own, model in models],
    )
    return page.write(report, job.out)


run_stage(work)
