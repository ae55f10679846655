"""A machine's GPUs, shared out among the jobs that run side by side: Snakemake gives them none."""

import os
import random
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from citepipe.errors import InputError


def take_devices(count: int) -> dict[str, FileLock]:
    """Have this process see so many GPUs only, which no other job of this user on this machine has.

    They are chosen among those of CUDA_VISIBLE_DEVICES, by default all; nothing is done if it names
    just as many, or a scheduler has started the job.

    Returns:
        a lock per device, which the system lets go of when this process ends, however it does.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    devices = sorted(found) if named is None else [name for name in named.split(",") if name]
    given = named is not None and len(devices) == count
    if not devices or not count or given or "CITEPIPE_BEGUN" in os.environ:
        return {}
    if count > len(devices):
        raise InputError(f"{count} GPUs are asked for, see `devices`, and {len(devices)} are here")
    waits = False
    while True:
        taken: dict[str, FileLock] = {}
        for name in devices:
            lock = FileLock(Path(tempfile.gettempdir(), f"citepipe-{os.getuid()}-gpu-{name}.lock"))
            with suppress(Timeout):
                if len(taken) < count:
                    taken[name] = lock.acquire(blocking=False).lock
        if len(taken) == count:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
            return taken
        for lock in taken.values():
            lock.release()
        if not waits:
            waits = True
            print(f"waits for {count} of GPUs {', '.join(devices)}", file=sys.stderr, flush=True)
        # Two that each hold what the other one needs do not try again at the same time.
        time.sleep(random.uniform(0.1, 1))
