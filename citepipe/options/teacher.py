"""Where the cited answers that are distilled come from."""

from typing import Literal

from pydantic import Field

from citepipe.options.base import Options


class TeacherOptions(Options):
    """Where the cited answers that are distilled come from."""

    citations: Literal["given", "attribute"] = Field(
        "given",
        description="given: `output` of the rows. attribute: rows without one get their human "
        "answer, each sentence citing the smallest set of documents that the training verifier "
        "finds to support it.",
    )
    at_most: int = Field(3, ge=1, description="attribute: citations per sentence, at most.")
    keep_uncited: bool = Field(
        False, description="attribute: keep sentences that no set of documents supports."
    )
