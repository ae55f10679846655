"""What every training stage receives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from citepipe.options import ModelOptions, PromptOptions
from citepipe.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training run: of what model, from where, to where."""

    model: ModelOptions
    prompt: PromptOptions
    start: Path | None
    """The adapter or model that training starts from; None for a new adapter, or the base."""
    out: Path
    """The directory of the trained model."""
    state: Path
    """The folder of what a run that was cut off goes on from."""
    fingerprint: str
    """Of everything the result depends on; a state with another one is discarded."""
    seed: int
    threads: int
    """CPU threads."""
    tracker: Tracker = field(default_factory=Tracker)
