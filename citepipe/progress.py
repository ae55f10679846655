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
    """Counts units done; shows them, their rate, the time left by the work done, and given figures.

    Args:
        label: what is being done, in front of every line.
        total: units of work in all.
        unit: the name of a unit, plural.
        done: units that were already done before (a resumed run).
        every: seconds between two lines in a file.
        patient: nothing is shown of work that is done within `every` seconds.
        work: all that is to be done, in any measure, where units are no good one (a step may take
            minutes, or an evaluation may follow it); None where each unit is as much.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        done: int = 0,
        every: float = 5.0,
        patient: bool = False,
        work: float | None = None,
    ) -> None:
        self.total, self.done, self.first = total, done, done
        self._label, self._unit = label, unit
        self._work = total if work is None else work
        self._worked = self._before = self._work * done / max(total, 1)
        self.started = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar: tqdm = tqdm(
            desc=self._counted(),
            total=self._work,
            initial=self._before,
            file=sys.stderr if terminal else _Lines(sys.stderr),
            position=None if terminal else 0,
            mininterval=0.2 if terminal else every,
            miniters=1,
            delay=every if patient else 0.0,
            dynamic_ncols=terminal,
            leave=not patient,
            bar_format="{desc} |{bar}| {elapsed}{postfix}" if terminal else "{desc}{postfix}",
        )

    @property
    def elapsed(self) -> float:
        """Seconds since this was made."""
        return time.monotonic() - self.started

    def advance(self, units: int = 1, work: float | None = None, **figures: float) -> None:
        """Count `units` more, and `work` if it is measured apart; figures (losses, rates) are shown
        with the next line."""
        self.done += units
        self._worked += units if work is None else work
        if self.done >= self.total:
            self._worked = self._work
        self._bar.set_description_str(self._counted(), refresh=False)
        if figures:
            self._bar.set_postfix_str(
                "  ".join(f"{name} {value:.4g}" for name, value in figures.items()), refresh=False
            )
        if self.done < self.total:
            self._bar.update(self._worked - self._bar.n)
        else:
            self._bar.n = self._bar.total
            self._bar.close()

    def _counted(self) -> str:
        """What is done, how fast, and how long the rest takes if it goes on like this."""
        rate, worked = self.done - self.first, self._worked - self._before
        left = "?"
        # Where more has been done than was expected, nobody knows.
        if worked and (self._worked < self._work or self.done == self.total):
            seconds = self.elapsed * (self._work - self._worked) / worked
            left = tqdm.format_interval(seconds)
        shown = f"{rate / max(self.elapsed, 1e-9):.3g} {self._unit}/s, " if rate else ""
        return f"{self._label}: {self.done}/{self.total} {self._unit}, {shown}{left} left"


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
