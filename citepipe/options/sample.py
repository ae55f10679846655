"""Rejection sampling: best-of-n, and segment-level beam search."""

from pydantic import Field

from citepipe.options.base import Options


class BestOfNOptions(Options):
    """Whole answers are sampled and the one with the highest summed reward is kept."""

    questions: int | None = Field(None, ge=1, description="Train questions used; null for all.")
    n: int = Field(16, ge=1, description="Samples per question.")
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(50, ge=0, description="Sample among the k likeliest tokens; 0 for all.")
    max_new_tokens: int = Field(200, ge=1)
    batch_size: int | None = Field(
        None, ge=1, description="Sequences generated at once; null for what memory allows."
    )


class SegmentSearchOptions(Options):
    """Answers grow segment by segment; the beams with the highest reward so far are kept."""

    questions: int | None = Field(None, ge=1, description="Train questions used; null for all.")
    beams: int = Field(8, ge=1, description="Beams kept after each segment.")
    samples_per_beam: int = Field(2, ge=1, description="Continuations drawn from each beam.")
    depth: int = Field(5, ge=1, description="Segments per answer, at most.")
    depth_list: int = Field(10, ge=1, description="The same for list answers (QAMPARI).")
    drop_parent: float = Field(
        0.5,
        ge=0,
        le=1,
        description="QAMPARI: probability that a beam's unextended parent is dropped at the first "
        "segment, falling linearly to 0 at the last; it forces progress.",
    )
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(50, ge=0, description="Sample among the k likeliest tokens; 0 for all.")
    max_new_tokens: int = Field(200, ge=1, description="Tokens of a whole answer, at most.")
    batch_size: int | None = Field(
        None, ge=1, description="Sequences generated at once; null for what memory allows."
    )
    split_at_every_stop: bool = Field(
        False,
        description="End a segment at every '.', as the paper's code does, also inside 'U.S.'.",
    )
