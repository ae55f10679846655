"""Where questions come from, and how they are mixed."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from citepipe.options.base import Options

Dataset = Literal["asqa", "qampari", "eli5", "expertqa"]


class DataOptions(Options):
    """The files with questions, and how many rows of each dataset are taken."""

    train: list[str] = Field(description="Files with training rows (JSON list or JSONL).")
    dev: list[str] = Field(description="Files with development rows.")
    test: dict[Dataset, str] = Field(description="A test file per dataset.")
    datasets: list[Dataset] | None = Field(
        None,
        description="The datasets whose rows are trained and developed on, of files that have "
        "others too; null for all.",
    )
    own_as: Dataset = Field(
        "eli5",
        description="The dataset as which rows count that name none and are in a file that names "
        "none: it decides how statements are split and what counts as correct.",
    )
    train_size: dict[Dataset, int] | int | None = Field(
        None,
        description="Rows taken by the seed: per dataset, or one number that is spread over the "
        "datasets in proportion to the rows they have; null for all.",
    )
    dev_size: dict[Dataset, int] | int | None = Field(None, description="The same for dev.")
    test_size: dict[Dataset, int] | int | None = Field(None, description="The same for test.")
    repetitions: Literal["rows", "questions", "keep"] = Field(
        "rows",
        description="What is left out of a split. rows: rows with the question and the documents "
        "of an earlier one. questions: rows with the question of an earlier one. keep: nothing. "
        "What is in another split is left out in any case.",
    )
    without_documents: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="What becomes of a file with rows that have no documents, where `retrieval` "
        "does not find them any: it is refused, or those rows are left out.",
    )
    documents: int = Field(
        5, ge=1, description="Documents kept per question, from the front of its list."
    )
    shorter: Literal["summary", "extraction"] | None = Field(
        None,
        description="Documents are chosen by this shorter text of theirs, as in ALCE: those that "
        "it calls irrelevant are passed over.",
    )
    seed: int = Field(42, description="Seed of the selection and of the order.")

    @field_validator("train_size", "dev_size", "test_size", mode="before")
    @classmethod
    def _check_size(cls, value: Any) -> Any:
        """Both forms at once, so that a complaint is about the one that was meant."""
        names = get_args(Dataset)
        if isinstance(value, Mapping):
            for name, size in value.items():
                if name not in names:
                    raise ValueError(f"expected datasets ({', '.join(names)}), got {name!r}")
                if not _is_number(size):
                    raise ValueError(f"expected a whole number from 0 for {name}, got {size!r}")
        elif value is not None and not _is_number(value):
            raise ValueError(
                "expected rows per dataset, such as {asqa: 1000}, or one whole number from 0, got "
                f"{value!r}"
            )
        return value

    @model_validator(mode="after")
    def _check_datasets(self) -> "DataOptions":
        if self.datasets is None:
            return self
        if not self.datasets:
            raise ValueError("datasets: expected at least one, or null for all, got none")
        for key in ("train_size", "dev_size"):
            sizes = getattr(self, key)
            for name in sizes if isinstance(sizes, dict) else ():
                if name not in self.datasets:
                    raise ValueError(
                        f"{key}: expected datasets of data.datasets "
                        f"({', '.join(self.datasets)}), got {name!r}"
                    )
        return self


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
