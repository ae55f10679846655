"""Prediction: one answer per test question."""

from pydantic import Field

from citepipe.options.base import Options


class PredictOptions(Options):
    """Greedy decoding up to the first newline."""

    max_new_tokens: int = Field(200, ge=1, description="Tokens per answer, at most.")
    batch_size: int = Field(64, ge=1, description="Questions answered at once.")
