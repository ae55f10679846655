"""Adapters on the tiny base, and the logits that tell one model from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from citepipe.options import ModelOptions


def options(base: Path, **settings: Any) -> ModelOptions:
    return ModelOptions.model_validate({"base": str(base), "dtype": "float32", **settings})


def loaded(path: Path, **settings: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(path, **settings)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.tensor([[3, 5, 7, 9]])).logits
    return found.float()


def lora(**settings: Any) -> peft.LoraConfig:
    values: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": "all-linear"}
    return peft.LoraConfig(**values | settings)


def adapted(
    base: Path, out: Path, config: peft.PeftConfig | None = None, size: float = 0.3, tokens: int = 0
) -> torch.Tensor:
    """Save an adapter on the base, resized to a number of tokens, with all of its weights moved at
    random; the logits with it."""
    model = loaded(base, dtype=torch.float32)
    if tokens:
        model.resize_token_embeddings(tokens)
    wrapped = peft.get_peft_model(model, config or lora())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(str(out))
    return logits(wrapped)
