"""Loading tokenizers, base models and adapters; saving adapters with what is needed to use them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.models.fit import check_loaded, settings_for, untie
from citepipe.models.memory import is_out_of_memory
from citepipe.options import ModelOptions
from citepipe.progress import say

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOST_AT_MOST = 0.02
"""Of an adapter, by which share it may become less (or more) when it is merged into 16 bits."""


def device() -> torch.device:
    """This process' GPU (the first that it sees, or the one of its rank), else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if rank >= torch.cuda.device_count():
        raise InputError(
            f"devices: expected at most {torch.cuda.device_count()}, as many GPUs are visible"
        )
    return torch.device("cuda", rank)


def load_tokenizer(options: ModelOptions) -> PreTrainedTokenizerBase:
    """The base model's tokenizer; a missing padding token becomes the end-of-sequence token.

    Raises:
        InputError: there is no tokenizer at `options.base`, or it has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    _check_directory(options.base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            options.base, revision=options.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(f"model.base {options.base}: no tokenizer there: {_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise InputError(f"model.base {options.base}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(options: ModelOptions, dtype: str | None = None) -> PreTrainedModel:
    """The base model, on the device, in evaluation mode.

    Args:
        options: the base model.
        dtype: the precision of its weights, by default `options.dtype`.

    Raises:
        InputError: there is no causal language model at `options.base`, or not as asked for.
    """
    return _load(f"model.base {options.base}", options.base, options.revision, options, dtype)


def load_trainable(
    options: ModelOptions, start: Path | None, seed: int = 0, name: str = "default"
) -> PeftModel | PreTrainedModel:
    """The base with one trainable adapter, or all of its weights trainable.

    Weights that are all trained are kept in float32, whatever `options.dtype` they are computed
    in (`computing`): the steps of an optimizer are lost in the rounding of 16 bits.

    Args:
        options: the base model, and the shape of a new adapter; without one all weights train.
        start: the directory to go on from, an adapter or a whole model as `options` have it; None
            for a new adapter, or the base.
        seed: of a new adapter's random matrices.
        name: what the adapter is called inside the model.

    Raises:
        InputError: no such base or start, or they do not go together.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    if options.adapter is None and options.quantization != "none":
        raise InputError(
            "model.quantization: weights in 4bit take an adapter, model.adapter is null"
        )
    if start is not None:
        check_start(start, options)
    if options.adapter is None:
        model = load_base(options, "float32") if start is None else load_whole(start, options)
        if options.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return model.requires_grad_(True)
    base = load_base(options)
    if options.quantization == "4bit":
        from peft import prepare_model_for_kbit_training

        base = prepare_model_for_kbit_training(
            base,
            use_gradient_checkpointing=options.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    elif options.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    if start is not None:
        return load_with_adapter(base, start, adapter_name=name, is_trainable=True)
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


def load_whole(directory: Path, options: ModelOptions, dtype: str = "float32") -> PreTrainedModel:
    """A whole trained model of this workflow, on the device, in evaluation mode."""
    return _load(str(directory), str(directory), None, options, dtype)


def load_for_inference(options: ModelOptions, trained: Path | None) -> PreTrainedModel:
    """The model that answers: the base with the adapter merged in, if that loses nothing of it.

    Weights in 4 bits cannot be added to. In 16 bits a sum is rounded to the next number that there
    is, and an adapter that adds less than half the way to it adds nothing: then it is kept apart,
    which takes more time and is said.

    Args:
        options: the base model.
        trained: a directory with an adapter or a whole model, or None for the bare base.
    """
    import torch

    if trained is None:
        return load_base(options)
    check_trained(trained)
    if is_whole(trained):
        return load_whole(trained, options, options.dtype)
    model = load_with_adapter(load_base(options), trained)
    if options.quantization == "none":
        kept = 1.0 if options.dtype == "float32" else share_kept_by_merging(model)
        if abs(1 - kept) <= LOST_AT_MOST:
            untie(model)
            return model.merge_and_unload().eval()
        say(
            f"{trained}: kept apart from the base, {kept:.0%} of it would be left if it were "
            f"merged in {options.dtype}"
        )
    for name, parameter in model.named_parameters():
        if "lora_" in name and device().type == "cuda":
            # PEFT holds them in float32, and computes in it: that is for training.
            parameter.data = parameter.data.to(getattr(torch, options.dtype))
    return model.eval()  # type: ignore[return-value]


def share_kept_by_merging(model: PeftModel) -> float:
    """How much of an adapter is left when it is added to the base's weights and rounded.

    With D what it adds and M what the rounded sum differs by from the base, over all layers: the
    sum of M D by the sum of D D. 1 if nothing is lost (or nothing added), 0 if all rounds away.
    Errors of rounding that are not in the adapter's direction cancel; they are those that 16 bits
    have in every product.
    """
    from peft.tuners.lora import LoraLayer

    found = whole = 0.0
    for layer in model.modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight = layer.get_base_layer().weight.data
        for adapter in set(layer.active_adapters) & set(layer.lora_A):
            added = layer.get_delta_weight(adapter).detach()  # type: ignore[operator]
            merged = (weight + added.to(weight.dtype)).float() - weight.float()
            found += float((merged * added).sum())
            whole += float((added.float() ** 2).sum())
    return found / whole if whole else 1.0


def language_model_of(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """The causal language model itself, with its adapters but without PEFT's wrapper."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model  # type: ignore[return-value]


def computing(options: ModelOptions) -> AbstractContextManager[object]:
    """A context in which products are computed in `options.dtype`, on GPUs.

    Adapters, and weights that are all trained, are kept in float32. Without this PEFT would
    compute adapters in it too, at a fraction of the speed.
    """
    import torch

    dtype = getattr(torch, options.dtype)
    on = device().type == "cuda" and dtype != torch.float32
    return torch.autocast(device().type, dtype, enabled=on) if on else nullcontext()


@contextmanager
def folded(model: PeftModel | PreTrainedModel, adapter: str) -> Iterator[None]:
    """Run the block with an adapter added into the base's weights: it is quicker to read with.

    PEFT's layers are taken out meanwhile. The weights that were there are put back, not computed
    back, so nothing is lost in rounding. In 16 bits most of what an adapter adds would be lost, and
    4 bits cannot be added to: there, and in a model without adapters, nothing is done.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    layers: list[tuple[torch.nn.Module, str, Any]] = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, LoraLayer)
    ]
    # Of a model in 4 bits all else is in float32, so only the weights themselves tell.
    if any(layer.get_base_layer().weight.dtype != torch.float32 for _, _, layer in layers):
        yield
        return
    kept: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    try:
        for parent, name, layer in layers:
            base = layer.get_base_layer()
            if adapter in layer.lora_A:
                kept.append((base.weight, base.weight.data))
                base.weight.data = base.weight.data + layer.get_delta_weight(adapter)
            setattr(parent, name, base)
        yield
    finally:
        for weight, data in kept:
            weight.data = data
        for parent, name, layer in layers:
            setattr(parent, name, layer)


def without_dropout(model: PreTrainedModel | PeftModel) -> None:
    """Switch dropout off for good, in training mode too."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def is_whole(trained: Path) -> bool:
    """Whether a directory holds a whole model and not an adapter."""
    return (trained / "config.json").is_file() and not (trained / "adapter_config.json").is_file()


def is_ready(path: Path) -> bool:
    """Whether weights load as they are: a directory with safetensors, no archive, none below."""
    configured = any((path / name).is_file() for name in ("adapter_config.json", "config.json"))
    return configured and any(path.glob("*.safetensors"))


def check_start(start: Path, options: ModelOptions) -> None:
    """Check that training with these options can go on from a directory.

    Raises:
        InputError: it holds no model, or a whole one where adapters are trained, or the reverse.
    """
    check_trained(start)
    if is_whole(start) and options.adapter is not None:
        raise InputError(
            f"{start}: a whole model, but model.adapter says that adapters are trained"
        )
    if not is_whole(start) and options.adapter is None:
        raise InputError(f"{start}: an adapter, but model.adapter is null, so whole models are")


def check_trained(path: Path) -> None:
    """Check that a directory holds a PEFT adapter or a whole model, in safetensors.

    Raises:
        InputError: it does not.
    """
    if is_whole(path):
        if not any(path.glob("*.safetensors")):
            raise InputError(f"{path}: expected a model, its weights (*.safetensors) are missing")
    else:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if not (path / name).is_file():
                raise InputError(f"{path}: expected a PEFT adapter, {name} is missing")
        if not isinstance(read_json(path / "adapter_config.json"), dict):
            raise InputError(f"{path}/adapter_config.json: expected an object")
    _check_weights(path)


def load_with_adapter(base: PreTrainedModel, adapter: Path, **settings: Any) -> PeftModel:
    """The base with a trained adapter.

    Raises:
        InputError: the adapter does not fit the base.
    """
    from peft import PeftModel

    settings = settings_for(base, adapter) | settings
    try:
        model = PeftModel.from_pretrained(base, adapter, **settings)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        # The first line only says that something does not fit, the second what.
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{adapter}: no adapter that fits the base model: {line}") from None
    check_loaded(model, adapter, settings.get("adapter_name", "default"))
    return model


def _load(
    what: str, target: str, revision: str | None, options: ModelOptions, dtype: str | None
) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    # PEFT still asks by the old name, and the new one is not there in all versions that will do.
    for name in ("is_gradient_checkpointing", "gradient_checkpointing_enable"):
        warnings.filterwarnings("ignore", f"`{name}` is deprecated", FutureWarning)
    _check_directory(target)
    settings: dict[str, Any] = {
        "dtype": getattr(torch, dtype or options.dtype),
        # Pickled weights can run code when they are read.
        "use_safetensors": True,
        # Nor is a repository's own code run, or the user asked whether to.
        "trust_remote_code": False,
    }
    if options.attention is not None:
        settings["attn_implementation"] = options.attention
    if options.quantization == "4bit":
        settings["quantization_config"] = _four_bit(options)
        settings["device_map"] = {"": device()}
    try:
        model = AutoModelForCausalLM.from_pretrained(target, revision=revision, **settings)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise InputError(
                f"{what}: its weights do not fit into memory; model.quantization: 4bit, "
                "model.dtype: bfloat16 or a smaller model may do"
            ) from None
        if options.attention is not None and "attn" in f"{error} {options.attention}".lower():
            said = f"model.attention {options.attention}, or no model at {target}"
            raise InputError(f"{said}: {_line(error)}") from None
        line = _line(error)
        if "ignore_mismatched_sizes" in line:
            line = "its weights have other shapes than its config.json says"
        raise InputError(f"{what}: no model there: {line}") from None
    if options.quantization == "none":
        model.to(device())  # type: ignore[arg-type]  # transformers wraps the method
    return model.eval()


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
