"""What all training stages are told."""

from pydantic import Field

from citepipe.options.base import Options


class TrainingOptions(Options):
    """Learning rate, memory and saving, the same for every kind of training."""

    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate (AdamW).")
    max_grad_norm: float = Field(0.3, gt=0, description="Gradient clipping (norm).")
    tokens_per_pass: int | None = Field(
        None,
        ge=1,
        description="Tokens of a forward and backward pass on a device, padding included; null for "
        "what suits the device. Less takes less memory and changes no result but by rounding.",
    )
    save_every: int = Field(50, ge=1, description="Optimizer steps between two saves of the state.")
    save_minutes: float = Field(
        10.0, gt=0, description="The state is also saved when this long has passed."
    )
