"""What rewards are worth."""

from pydantic import Field

from citepipe.options.base import Options


class RewardOptions(Options):
    """The size of each reward, given as + for right and - for wrong; 0 switches it off."""

    citation_recall: float = Field(0.2, ge=0, description="Per statement: supported or not.")
    citation_precision: float = Field(0.2, ge=0, description="Per citation: right or wrong.")
    correctness: float = Field(0.2, ge=0, description="Per gold answer: hit or missed.")
    at_most_citations: int = Field(
        3, ge=1, description="Citations of a statement that count, in the order of the text."
    )
    expected_list_items: int = Field(
        5, ge=1, description="QAMPARI: answers expected; misses beyond them cost nothing."
    )
    splitter: str = Field("punkt-rules", description="Sentence splitter: punkt-rules or punkt.")
