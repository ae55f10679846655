"""Progress on stderr: at most a line every few seconds, and where things stand at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping


class Progress:
    """Counts work done and now and then says so: share, rate, time left, and given figures.

    Args:
        label: what is being done, in front of every line.
        total: units of work in all.
        unit: the name of a unit, plural.
        done: units that were already done before (a resumed run).
        every: seconds between two lines.
    """

    def __init__(
        self, label: str, total: int, unit: str, done: int = 0, every: float = 5.0
    ) -> None:
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.done = self.first = done
        self.started = time.monotonic()
        self._said = self.started if done == 0 else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since this was made."""
        return time.monotonic() - self.started

    def advance(self, units: int = 1, **figures: float) -> None:
        """Count `units` more; figures (losses, rates) are shown with the next line."""
        self.done += units
        now = time.monotonic()
        if now - self._said < self.every and self.done < self.total:
            return
        self._said = now
        rate = (self.done - self.first) / max(self.elapsed, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        shown = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        say(
            f"{self.label}: {self.done}/{self.total} {self.unit}, {rate:.3g}/s, "
            f"{left:.0f} s left{shown}"
        )


def say(line: str) -> None:
    """One line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


def summary(label: str, figures: Mapping[str, object]) -> str:
    """The one line a stage ends with: `label: name value, name value`."""
    shown = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )
    return f"{label}: {shown}"
