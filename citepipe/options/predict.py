"""Prediction: one answer per test question."""

from pydantic import Field

from citepipe.options.base import Options


class PredictOptions(Options):
    """How long answers are; they end at the first newline."""

    max_new_tokens: int = Field(200, ge=1, description="Tokens per answer, at most.")
    batch_size: int | None = Field(
        None, ge=1, description="Answers generated at once; null for what memory allows."
    )
