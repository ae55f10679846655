"""Supervised fine-tuning on the teacher's answers or on selected samples."""

from stage import Job, run_stage


def work(job: Job) -> str:
    from citepipe.train import sft

    [train], dev = job.all_given("train"), job.all_given("dev")
    with job.training() as training:
        return sft.run(training, train, dev[0] if dev else None, job.options)


run_stage(work, together=True)
