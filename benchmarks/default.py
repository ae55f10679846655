"""How long the embedded default takes, and where its seconds go: its jobs, by stage.

    python benchmarks/default.py

The workflow runs as `make table` runs it, in a clone of what is committed, in the environment of
this interpreter. Bar: under six minutes on two cores.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Report, argument_parser, verdict

BAR = 360
ROOT = Path(__file__).parents[1]
TARGETS = ["results/table.csv", "results/report.html"]


def main() -> None:
    """Run the workflow, then read what Snakemake noted of its jobs."""
    arguments = argument_parser(__doc__, "default.txt").parse_args()
    report = Report(arguments.out, "snakemake", "torch", "transformers")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        cores = len(os.sched_getaffinity(0))
        command = [sys.executable, "-m", "snakemake", *TARGETS, "--cores", "all"]
        command += ["--max-threads", "1", "--resources", f"gpu={cores}", "--quiet", "all"]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": folder}, check=True)
        seconds = time.perf_counter() - began
        records = Path(folder, ".snakemake", "metadata").iterdir()
        notes = [json.loads(path.read_text(encoding="utf-8")) for path in records]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    # There is a record of each of a job's files; its log is its own.
    jobs = {n["log"][0]: (n["rule"], n["starttime"], n["endtime"]) for n in notes}.values()
    report(
        f"{seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} of processors;"
        f" under {BAR} s: {verdict(seconds < BAR)}"
    )
    report(f"{'stage':18}{'jobs':>6}{'seconds':>9}  of each")
    for rule in dict.fromkeys(name for name, *_ in sorted(jobs, key=lambda job: job[1])):
        each = [ended - began for name, began, ended in jobs if name == rule]
        told = " ".join(f"{s:.0f}" for s in each)
        report(f"{rule:18}{len(each):6}{sum(each):9.0f}  {told}")
    busy = sum(ended - began for _, began, ended in jobs)
    report(f"jobs side by side on average: {busy / seconds:.2f} of {cores}")


if __name__ == "__main__":
    main()
