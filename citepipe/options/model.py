"""Which language model is trained, and how it is held in memory."""

from typing import Literal

from pydantic import Field

from citepipe.options.base import Options


class AdapterOptions(Options):
    """A LoRA adapter (PEFT)."""

    r: int = Field(64, ge=1, description="Rank of the adapter's matrices.")
    alpha: float = Field(16, gt=0, description="Scale: the update is multiplied by alpha / r.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout in front of the adapter.")
    target_modules: str | list[str] = Field(
        "all-linear", description="Names of the modules that get an adapter, or all-linear."
    )


class ModelOptions(Options):
    """The base model that every system starts from."""

    base: str = Field(description="A model directory, or a name on the Hugging Face hub.")
    revision: str | None = Field(None, description="The hub revision (commit, tag or branch).")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="The precision of the base model's weights."
    )
    quantization: Literal["none", "4bit"] = Field(
        "none", description="4bit loads the base model in NF4 (bitsandbytes, needs a GPU)."
    )
    adapter: AdapterOptions | None = Field(
        default_factory=AdapterOptions,
        description="The shape of new adapters; null trains all weights.",
    )
    attention: str | None = Field(
        None,
        description="A transformers attention implementation (eager, sdpa, flash_attention_2, "
        "...); null for the model's own choice. Flash attention takes no padding in fine-tuning.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
