"""A base model made from nothing, where no pretrained one is at hand."""

from pydantic import Field

from citepipe.options.base import Options


class ScratchOptions(Options):
    """A small Llama with a BPE tokenizer, trained as a language model on given texts."""

    texts: list[str] = Field(description="Files of examples; their documents and answers are read.")
    vocabulary: int = Field(8000, ge=300, description="Tokens of the byte-level BPE tokenizer.")
    layers: int = Field(4, ge=1)
    hidden: int = Field(256, ge=8, description="Width of the model.")
    heads: int = Field(4, ge=1)
    context: int = Field(2048, ge=16, description="Longest prompt with answer (tokens).")
    steps: int = Field(300, ge=1, description="Optimizer steps.")
    batch_tokens: int = Field(4096, ge=64, description="Tokens per optimizer step.")
    learning_rate: float = Field(2e-3, gt=0)
    copying: bool = Field(
        False,
        description="Start with attention heads that are prepared to copy, drill them, and train "
        "on sentences of the documents and human answers behind prompts, rather than on running "
        "text: a model that quotes comes out in minutes.",
    )
    drill_steps: int = Field(80, ge=0, description="copying: steps on random words before `steps`.")
    seed: int = 0
