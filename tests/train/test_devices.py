"""Two processes learn what one does, up to rounding."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.files import read_jsonl
from tests.train.conftest import ADAPTER, Stage, assert_close

TWO = """
import pickle, sys
from pathlib import Path
module, call, folder, changed = pickle.loads(Path(sys.argv[1]).read_bytes())
from importlib import import_module
from tests.train.conftest import Stage
Stage(import_module(module), call).run(folder, **changed)
"""


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_two_processes_train_the_weights_of_one(
    method: str, steady: Stage, reinforced: dict[str, Stage], tmp_path: Path
) -> None:
    stage = (reinforced | {"sft": steady})[method]
    one: dict[str, Any] = {"minibatches": 1}
    two = one
    if method == "sft":
        # Three answers a step, each in a pass of its own: two of one process, one of the other.
        one = {"batch_size": 3}
        two = one | {"tokens_per_pass": 1}
    alone = stage.run(tmp_path / "alone", **one)
    job = stage.module.__name__, stage.call, tmp_path / "together", two
    (tmp_path / "job.pickle").write_bytes(pickle.dumps(job))
    (tmp_path / "two.py").write_text(TWO)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*torchrun, "--nproc-per-node", "2", tmp_path / "two.py", tmp_path / "job.pickle"],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )
    together = tmp_path / "together" / "out"
    assert_close(alone / "last" / ADAPTER, together / "last" / ADAPTER, atol=2e-4)
    expected, found = (read_jsonl(out / "metrics.jsonl") for out in (alone, together))
    for one_entry, entry in zip(expected, found, strict=True):
        assert entry == pytest.approx(one_entry, rel=1e-3, abs=1e-4)
