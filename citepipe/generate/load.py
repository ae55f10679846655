"""The generator that a configuration asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from citepipe.generate.completion import Generator
from citepipe.options import ModelOptions, ServerOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_generator(
    model: ModelOptions,
    trained: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    end_id: int,
    batch_size: int | None,
    server: ServerOptions | None,
) -> Generator:
    """A model that answers, in this process or on a server.

    Args:
        model: the base model.
        trained: a directory with an adapter or a whole model, or None for the bare base.
        tokenizer: the base model's.
        end_id: the token that ends an answer.
        batch_size: sequences decoded at once in this process; None for what memory allows.
        server: where the model is served; None to load it here.

    Raises:
        InputError: a model, an adapter or the server is not what it should be.
    """
    if server is not None:
        from citepipe.generate.server import ServerGenerator

        return ServerGenerator(server, model.base, trained, tokenizer, end_id)
    from citepipe.generate.local import HuggingFaceGenerator
    from citepipe.models.load import load_for_inference

    return HuggingFaceGenerator(load_for_inference(model, trained), tokenizer, batch_size, end_id)
