"""The miniature: the size of its synthetic world and how its base model is made."""

from pydantic import Field

from citepipe.options.base import Options
from citepipe.options.prompt import PromptOptions


class WorldOptions(Options):
    """How many questions are drawn; every count is per dataset."""

    train: int = Field(1400, ge=1, description="Training questions of each of three datasets.")
    dev: int = Field(100, ge=1, description="Development questions of each of three datasets.")
    test: int = Field(300, ge=1, description="Test questions of each of three datasets.")
    expertqa: int = Field(300, ge=1, description="Questions of the test-only EXPERTQA-like set.")


class FaultOptions(Options):
    """How often the teacher cites wrongly, in the situations that mislead it and elsewhere."""

    asqa: float = Field(0.67, ge=0, le=1, description="P(wrong), claims of documents 4 and 5.")
    eli5: float = Field(
        0.88, ge=0, le=1, description="P(wrong), documents 4 and 5 and claims of a city."
    )
    qampari: float = Field(0.80, ge=0, le=1, description="P(wrong), every item of a list.")
    elsewhere: float = Field(0.08, ge=0, le=1, description="P(wrong) in every other situation.")


class BaseModelOptions(Options):
    """The tiny Llama that everything starts from, and its pretraining without cited answers."""

    layers: int = Field(3, ge=2, description="Transformer layers.")
    width: int = Field(128, ge=8, description="Width of the residual stream.")
    heads: int = Field(4, ge=2, description="Attention heads per layer.")
    feed_forward: int = Field(256, ge=8, description="Width of the feed-forward layers.")
    max_positions: int = Field(256, ge=64, description="Longest sequence, in tokens.")
    drill_steps: int = Field(120, ge=1, description="Steps of the abstract copying drill.")
    steps: int = Field(1500, ge=1, description="Steps on the world after the drill.")
    batch_size: int = Field(32, ge=1, description="Sequences per step.")
    warmup_steps: int = Field(30, ge=0, description="Steps of linear warm-up.")
    constant_share: float = Field(
        0.5, ge=0, le=1, description="Share of the steps before the learning rate falls."
    )
    final_share: float = Field(
        0.03, ge=0, le=1, description="Learning rate at the end, as a share of the full one."
    )
    matrix_learning_rate: float = Field(0.02, gt=0, description="Muon, for matrices.")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum.")
    learning_rate: float = Field(3e-3, gt=0, description="AdamW, for all other parameters.")
    prompt_weight: float = Field(0.03, ge=0, description="Loss weight of prompt tokens.")
    clip_norm: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    answer_share: float = Field(0.65, ge=0, le=1, description="Share of uncited answers.")
    fact_share: float = Field(
        0.1, ge=0, le=1, description="Share of uncited facts; what is left is the index drill."
    )


class MiniatureOptions(Options):
    """The miniature as a whole."""

    seed: int = Field(0, description="Of the world, the teacher's faults and the base model.")
    world: WorldOptions = Field(default_factory=WorldOptions)
    teacher: FaultOptions = Field(default_factory=FaultOptions)
    base: BaseModelOptions = Field(default_factory=BaseModelOptions)
    prompt: PromptOptions = Field(
        default_factory=lambda: PromptOptions(
            instruction="",
            demo_prompt="Question: {Q}\n{D}Answer:{A}",
            # The space makes a document's number and a citation the same token.
            doc_prompt=" [{ID}] {T}: {P}\n",
            max_input_tokens=160,
        ),
        description="How the base model sees questions; the experiment's prompt should be this.",
    )
