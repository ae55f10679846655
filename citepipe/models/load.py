"""Loading tokenizers, base models and adapters; saving adapters with what is needed to use them."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError
from citepipe.options.model import ModelOptions

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def device() -> torch.device:
    """The first GPU that this process sees, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(options: ModelOptions) -> PreTrainedTokenizerBase:
    """The base model's tokenizer; a missing padding token becomes the end-of-sequence token.

    Raises:
        InputError: there is no tokenizer at `options.base`, or it has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    _check_directory(options.base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(options.base, revision=options.revision)
    except (OSError, ValueError) as error:
        raise InputError(f"model.base {options.base}: no tokenizer there: {_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise InputError(f"model.base {options.base}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(options: ModelOptions) -> PreTrainedModel:
    """The base model, on the device, in evaluation mode.

    Raises:
        InputError: there is no causal language model at `options.base`.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    # PEFT still asks by the old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    _check_directory(options.base)
    settings: dict[str, Any] = {"dtype": getattr(torch, options.dtype)}
    if options.quantization == "4bit":
        settings["quantization_config"] = _four_bit(options)
        settings["device_map"] = {"": device()}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            options.base, revision=options.revision, **settings
        )
    except (OSError, ValueError) as error:
        raise InputError(f"model.base {options.base}: no model there: {_line(error)}") from None
    if options.quantization == "none":
        model.to(device())  # type: ignore[arg-type]  # transformers wraps the method
    return model.eval()


def load_trainable(
    options: ModelOptions, start: Path | None, seed: int = 0, name: str = "default"
) -> PeftModel:
    """The base with one trainable adapter.

    Args:
        options: the base model, and the shape of a new adapter.
        start: the adapter directory to go on from, or None for a new adapter.
        seed: of a new adapter's random matrices.
        name: what the adapter is called inside the model.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    base = load_base(options)
    if options.quantization == "4bit":
        from peft import prepare_model_for_kbit_training

        base = prepare_model_for_kbit_training(
            base, use_gradient_checkpointing=options.gradient_checkpointing
        )
    elif options.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    if start is not None:
        check_adapter(start)
        return PeftModel.from_pretrained(base, start, adapter_name=name, is_trainable=True)
    adapter = options.adapter
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
    )
    try:
        return get_peft_model(base, config, adapter_name=name)
    except ValueError as error:
        raise InputError(f"model.adapter.target_modules: {_line(error)}") from None


def load_for_inference(options: ModelOptions, adapter: Path | None) -> PreTrainedModel:
    """The model that answers: the base with the adapter merged in (kept apart on a 4-bit base).

    Args:
        options: the base model.
        adapter: an adapter directory, or None for the bare base.
    """
    from peft import PeftModel

    base = load_base(options)
    if adapter is None:
        return base
    check_adapter(adapter)
    model = PeftModel.from_pretrained(base, adapter)
    if options.quantization == "none":
        return model.merge_and_unload().eval()
    return model.eval()  # type: ignore[return-value]


def check_adapter(path: Path) -> None:
    """Check that a directory holds a PEFT adapter in safetensors.

    Raises:
        InputError: it does not.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (path / name).is_file():
            raise InputError(f"{path}: expected a PEFT adapter, {name} is missing")
    _check_weights(path)


def _check_weights(directory: Path) -> None:
    """Check that the safetensors files of a directory are whole.

    Raises:
        InputError: one is cut off or is something else.
    """
    from safetensors import SafetensorError, safe_open

    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise InputError(f"{path}: expected safetensors, {error}") from None


def publish(partial: Path, out: Path) -> None:
    """Put a finished directory in its place by renaming, so that it appears whole."""
    if out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, out)


def partial_directory(out: Path) -> Path:
    """A fresh empty directory beside `out` to build it in, for `publish`."""
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    return partial


def _check_directory(base: str) -> None:
    """A base that looks like a path but is not there must not be asked of the hub."""
    path = Path(base)
    looks_local = base.startswith((".", "/", "~")) or base.count("/") != 1
    if path.exists() and not (path / "config.json").is_file():
        raise InputError(f"model.base {base}: expected a model directory, config.json is missing")
    if path.is_dir():
        _check_weights(path)
    if looks_local and "/" in base and not path.exists():
        raise InputError(f"model.base {base}: no such directory")


def _four_bit(options: ModelOptions) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if device().type != "cuda":
        raise InputError("model.quantization: 4bit needs a GPU, none is visible")
    compute = torch.bfloat16 if options.dtype == "float32" else getattr(torch, options.dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
