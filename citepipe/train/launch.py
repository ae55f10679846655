"""Starting the processes of one training job on one machine, and what they leave behind."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from citepipe.errors import InputError

FOLDER = "CITEPIPE_TOGETHER"
"""Names the folder in which every process leaves its last line."""


def is_launched() -> bool:
    """Whether this process is one of several that `launch` has started."""
    return FOLDER in os.environ


def launch(processes: int, threads: int) -> str:
    """Run this program (`sys.argv`) in several processes, which share so many threads.

    Returns:
        the line that the first one leaves.

    Raises:
        InputError: one of them failed, which ends the others; with its line.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    own: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "run_id": "0"}
    settings = LaunchConfig(1, 1, processes, max_restarts=0, monitor_interval=0.1, **own)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {FOLDER: folder, "OMP_NUM_THREADS": str(max(1, threads // processes))}
        try:
            elastic_launch(settings, sys.executable)(*sys.argv)
        except Exception as error:
            failed = sorted(Path(folder).glob("failed-*"))
            if not failed:
                raise InputError(f"one of {processes} processes died: {error}") from None
            rank = failed[0].name.removeprefix("failed-")
            line = failed[0].read_text(encoding="utf-8").strip()
            raise InputError(f"process {rank} of {processes}: {line}") from None
        return Path(folder, "0").read_text(encoding="utf-8")


def run_launched(work: Callable[[], str], complaint: Callable[[Exception], str | None]) -> None:
    """Do the work as one of several processes, leave the line that it returns, end the process.

    `complaint` returns the line for an error that is a user's, else None.
    """
    rank = os.environ["RANK"]
    if rank != "0":
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        line, name = work(), rank
    except Exception as error:
        line, name = complaint(error) or traceback.format_exc(), f"failed-{rank}"
    Path(os.environ[FOLDER], name).write_text(line, encoding="utf-8")
    # One that failed leaves others waiting in a collective call, which never returns.
    os._exit(0 if name == rank else 1)
