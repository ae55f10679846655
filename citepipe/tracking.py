"""A training run's curves at Weights & Biases; training neither needs it nor fails by it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from citepipe.progress import say

SETTINGS = {
    **dict.fromkeys(("disable_code", "disable_git", "silent"), True),
    **dict.fromkeys(("x_disable_machine_info", "x_disable_meta", "x_disable_stats"), True),
    **{"console": "off", "host": "", "symlink": False, "x_save_requirements": False},
    **{"init_timeout": 30, "finish_timeout": 300},
}
"""wandb records nothing of the machine, its user and the code, and waits so many seconds."""


class Tracker:
    """A run at wandb, which begins with its first figures and ends with its first failure.

    Args:
        key: the same key is the same run, also after a cut-off.
        settings: of `wandb.init`, with a `mode` that may also be auto (online if logged in, else
            offline) and that WANDB_MODE overrides; without any the tracker does nothing.
    """

    def __init__(self, key: str = "", **settings: Any) -> None:
        self._id = hashlib.sha256(key.encode()).hexdigest()[:16]
        self._settings, self._run = settings, None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of a step (losses, rewards, rates), for the curves."""
        self._try(lambda run: run.log({k: v for k, v in figures.items() if k != "step"}, step))

    def samples(self, step: int, rows: Sequence[Mapping[str, str | float]]) -> None:
        """Log a table of answers that were sampled at a step; all rows have the same keys."""

        def log(run: Any) -> None:
            import wandb

            table: list[Any] = [list(row.values()) for row in rows]
            run.log({"samples": wandb.Table(columns=list(rows[0]), data=table)}, step)

        if rows:
            self._try(log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._run is not None:
            self._try(lambda run: run.finish(exit_code=0 if kind is None else 1))

    def _try(self, work: Callable[[Any], None]) -> None:
        try:
            if self._settings:
                self._run = self._run or self._begin(**self._settings)
                work(self._run)
        # wandb raises errors of many kinds, of which none is worth a training run.
        except Exception as error:
            self._settings, self._run = {}, None
            say(f"wandb: {' '.join(str(error).split())}; training continues without it")

    def _begin(self, mode: str, **settings: Any) -> Any:
        import wandb

        mode = os.environ.get("WANDB_MODE") or mode
        logged_in = mode in ("auto", "online") and wandb.login(prompt=False, verify=False)
        if mode == "online" and not logged_in:
            raise RuntimeError("not logged in (`wandb login`, or WANDB_API_KEY)")
        settings["mode"] = {"auto": "online" if logged_in else "offline"}.get(mode, mode)
        own = wandb.Settings(**SETTINGS)
        return wandb.init(id=self._id, resume="allow", settings=own, **settings)
