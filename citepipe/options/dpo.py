"""Direct preference optimization on pairs of sampled answers."""

from pydantic import Field

from citepipe.options.sft import SupervisedOptions


class DPOOptions(SupervisedOptions):
    """DPO (Rafailov et al. 2023, arXiv 2305.18290); an answer is preferred for its reward."""

    epochs: float = Field(1, gt=0, description="Passes over the pairs.")
    batch_size: int = Field(8, ge=1, description="Pairs per optimizer step, over all devices.")
    learning_rate: float = Field(5e-6, gt=0, description="Peak learning rate (AdamW).")
    schedule: str = Field("linear", description="A transformers learning-rate schedule.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps that warm up.")
    beta: float = Field(0.1, gt=0, description="How strongly the start's probabilities hold.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Probability that a preference is taken to be wrong."
    )
    pairs_per_question: int = Field(
        1, ge=1, description="Best with worst answer, second best with second worst, and so on."
    )
    margin: float = Field(0.0, ge=0, description="A pair's rewards differ by more than this.")
