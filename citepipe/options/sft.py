"""Supervised fine-tuning: distillation from the teacher, and on selected samples."""

from pydantic import Field

from citepipe.options.training import TrainingOptions


class SupervisedOptions(TrainingOptions):
    """Passes over a fixed set of answers or pairs of answers."""

    epochs: float = Field(10, gt=0, description="Passes over the training answers.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides epochs.")
    batch_size: int = Field(
        2, ge=1, description="Answers (or pairs) per optimizer step, over all devices."
    )
    schedule: str = Field("cosine", description="A transformers learning-rate schedule.")
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps that warm up.")
    max_output_tokens: int = Field(200, ge=1, description="Longer answers are cut (tokens).")
    evaluations: int = Field(
        10, ge=1, description="How often, over the run, the dev loss is computed."
    )


class SFTOptions(SupervisedOptions):
    """Supervised fine-tuning on cited answers, loss on the answer only."""

    fsdp: bool = Field(
        False, description="Shard weights and optimizer over the devices (all weights trained)."
    )
