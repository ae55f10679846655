"""Progress on stderr: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm


class _Lines:
    """A stream in which every state of a bar is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self.stream.write(f"{line}\n")

    def flush(self) -> None:
        self.stream.flush()


class Progress:
    """Counts work done; shows share, rate, time left and given figures.

    Args:
        label: what is being done, in front of every line.
        total: units of work in all.
        unit: the name of a unit, plural.
        done: units that were already done before (a resumed run).
        every: seconds between two lines in a file.
        patient: nothing is shown of work that is done within `every` seconds.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        done: int = 0,
        every: float = 5.0,
        patient: bool = False,
    ) -> None:
        self.total, self.done, self.first = total, done, done
        self.started = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar: tqdm = tqdm(
            desc=label,
            total=total,
            initial=done,
            unit=f" {unit}",
            file=sys.stderr if terminal else _Lines(sys.stderr),
            position=None if terminal else 0,
            mininterval=0.2 if terminal else every,
            miniters=1,
            delay=every if patient else 0.0,
            dynamic_ncols=terminal,
            leave=not patient,
            bar_format=None
            if terminal
            else "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left{postfix}",
        )

    @property
    def elapsed(self) -> float:
        """Seconds since this was made."""
        return time.monotonic() - self.started

    def advance(self, units: int = 1, **figures: float) -> None:
        """Count `units` more; figures (losses, rates) are shown with the next line."""
        self.done += units
        if figures:
            self._bar.set_postfix_str(
                "  ".join(f"{name} {value:.4g}" for name, value in figures.items()), refresh=False
            )
        self._bar.update(units)
        if self.done >= self.total:
            self._bar.close()


def say(line: str) -> None:
    """One line on stderr, above any bar."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def summary(label: str, figures: Mapping[str, object]) -> str:
    """The one line a stage ends with: `label: name value, name value`."""
    shown = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )
    return f"{label}: {shown}"
