"""Where learning curves go beside the metrics files."""

from typing import Literal

from pydantic import Field

from citepipe.options.base import Options


class TrackingOptions(Options):
    """Weights & Biases; training never needs it, and its result never depends on it."""

    wandb: Literal["off", "offline", "online", "auto"] = Field(
        "offline",
        description="offline: files that `wandb sync` uploads. online: sent while training runs. "
        "auto: online if you are logged in, else offline. WANDB_MODE overrides all but off.",
    )
    project: str = Field("citepipe", min_length=1, description="The project at wandb.")
