"""Supervised fine-tuning: distillation from the teacher, and on selected samples."""

from pydantic import Field

from citepipe.options.base import Options


class SFTOptions(Options):
    """Supervised fine-tuning on cited answers, loss on the answer only."""

    epochs: float = Field(10, gt=0, description="Passes over the training answers.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides epochs.")
    batch_size: int = Field(2, ge=1, description="Answers per optimizer step and device.")
    accumulate: int = Field(1, ge=1, description="Micro-batches per optimizer step.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate (AdamW).")
    schedule: str = Field("cosine", description="A transformers learning-rate schedule.")
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps that warm up.")
    max_grad_norm: float = Field(0.3, gt=0, description="Gradient clipping (norm).")
    max_output_tokens: int = Field(200, ge=1, description="Longer answers are cut (tokens).")
    evaluations: int = Field(
        10, ge=1, description="How often, over the run, the dev loss is computed and state saved."
    )
