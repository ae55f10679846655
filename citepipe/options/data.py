"""Where questions come from, and how they are mixed."""

from typing import Literal

from pydantic import Field

from citepipe.options.base import Options

Dataset = Literal["asqa", "qampari", "eli5", "expertqa"]


class DataOptions(Options):
    """The files with questions, and how many rows of each dataset are taken."""

    train: list[str] = Field(description="Files with training rows (JSON list or JSONL).")
    dev: list[str] = Field(description="Files with development rows.")
    test: dict[Dataset, str] = Field(description="A test file per dataset.")
    train_size: dict[Dataset, int] | None = Field(
        None, description="Rows taken per dataset, by the seed; null for all."
    )
    dev_size: dict[Dataset, int] | None = Field(None, description="The same for dev.")
    test_size: dict[Dataset, int] | None = Field(None, description="The same for test.")
    documents: int = Field(
        5, ge=1, description="Documents kept per question, from the front of its list."
    )
    seed: int = Field(42, description="Seed of the selection and of the order.")
