"""Loading tokenizers, base models and adapters."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter

from citepipe.data.files import read_json
from citepipe.data.validate import validated
from citepipe.errors import InputError
from citepipe.models.pretrained import (
    first_line,
    four_bit,
    is_out_of_memory,
    precision,
    read_model,
    read_tokenizer,
)
from citepipe.options import ModelOptions, PromptOptions
from citepipe.progress import say

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOST_AT_MOST = 0.02
"""By which share an adapter may become less (or more) when it is merged into 16 bits."""

_SAME = 0.01
"""By which share embeddings may differ that were only rounded, to 16 bits and back."""


def device() -> torch.device:
    """This process' GPU (the first that it sees, or the one of its rank), else the CPU."""
    import torch

    rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if gpus and rank >= gpus:
        raise InputError(f"devices: expected at most {gpus}, as many GPUs are visible")
    return torch.device("cuda", rank) if gpus else torch.device("cpu")


def load_tokenizer(options: ModelOptions) -> PreTrainedTokenizerBase:
    """The base model's tokenizer; a missing padding token becomes the end-of-sequence token."""
    tokenizer = read_tokenizer(options.base, options.revision, "model.base")
    if tokenizer.eos_token_id is None:
        raise InputError(f"model.base {options.base}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(
    options: ModelOptions, dtype: str | None = None, whole: Path | None = None
) -> PreTrainedModel:
    """The base model, or a whole trained one, on the device, in evaluation mode.

    Its weights are in `dtype`, or else in `options.dtype`.
    """
    import torch

    dtype = precision(dtype or options.dtype, device())
    # PEFT still uses names that transformers gives up.
    warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
    settings: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if options.attention is not None:
        settings["attn_implementation"] = options.attention
    if options.quantization == "4bit":
        if device().type != "cuda":
            raise InputError("model.quantization: 4bit needs a GPU, none is visible")
        compute = torch.bfloat16 if dtype == "float32" else settings["dtype"]
        settings = four_bit(compute, device()) | settings
    what, target, revision = "model.base", options.base, options.revision
    if whole is not None:
        what, target, revision = "model", str(whole), None
    return read_model(target, revision, "AutoModelForCausalLM", what, device(), **settings)


def load_trainable(
    options: ModelOptions, start: Path | None, seed: int = 0, name: str = "default"
) -> PeftModel | PreTrainedModel:
    """The base with one trainable adapter, or all of its weights trainable.

    Weights that are all trained are kept in float32, whatever `options.dtype` they are computed
    in (`computing`): the steps of an optimizer are lost in the rounding of 16 bits.

    It goes on from `start`; for None an adapter is new, its random matrices drawn by the seed.
    """
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if options.adapter is None and options.quantization != "none":
        raise InputError(
            "model.quantization: weights in 4bit take an adapter, model.adapter is null"
        )
    if start is not None:
        check_start(start, options)
    checkpointing = {"use_reentrant": False}
    if options.adapter is None:
        model = load_base(options, "float32", start)
        if options.gradient_checkpointing:
            model.gradient_checkpointing_enable(checkpointing)
        return model.requires_grad_(True)
    base = load_base(options)
    if options.quantization == "4bit":
        base = prepare_model_for_kbit_training(
            base, options.gradient_checkpointing, gradient_checkpointing_kwargs=checkpointing
        )
    elif options.gradient_checkpointing:
        base.gradient_checkpointing_enable(checkpointing)
        base.enable_input_require_grads()
    if start is not None:
        return load_with_adapter(base, start, name, is_trainable=True)
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.adapter.r,
        lora_alpha=options.adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=options.adapter.dropout,
        target_modules=options.adapter.target_modules,
    )
    try:
        return get_peft_model(base, config, adapter_name=name)
    except ValueError as error:
        raise InputError(f"model.adapter.target_modules: {first_line(error)}") from None


def load_for_inference(options: ModelOptions, trained: Path | None) -> PreTrainedModel:
    """The model that answers: a whole one, or the base with the adapter merged in.

    Weights in 4 bits cannot be added to. In 16 bits a sum is rounded to the next number that there
    is, and an adapter that adds less than half the way to it adds nothing: then it is kept apart,
    which takes more time and is logged.
    """
    import torch

    if trained is None:
        return load_base(options)
    check_trained(trained)
    if is_whole(trained):
        return load_base(options, whole=trained)
    model = load_with_adapter(load_base(options), trained)
    dtype = precision(options.dtype, device())
    if options.quantization == "none":
        kept = 1.0 if dtype == "float32" else share_kept_by_merging(model)
        if abs(1 - kept) <= LOST_AT_MOST:
            untie(model)
            return model.merge_and_unload().eval()
        say(
            f"{trained}: kept apart from the base, {kept:.0%} of it would be left if it were "
            f"merged in {dtype}"
        )
    for name, parameter in model.named_parameters():
        if "lora_" in name and device().type == "cuda":
            # PEFT holds them in float32, and computes in it: that is for training.
            parameter.data = parameter.data.to(getattr(torch, dtype))
    return model.eval()  # type: ignore[return-value]


def share_kept_by_merging(model: PeftModel, dtype: torch.dtype | None = None) -> float:
    """How much of an adapter is left when it is added to the base's weights and rounded to `dtype`.

    With D what it adds and M what the rounded sum differs by from the rounded base, over all
    layers: the sum of M D by the sum of D D. 1 if nothing is lost (or nothing added), 0 if all
    rounds away.
    """
    from peft.tuners.lora import LoraLayer

    found = whole = 0.0
    for layer in model.modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight: Any = layer.get_base_layer().weight.data
        target = dtype or weight.dtype
        for adapter in set(layer.active_adapters) & set(layer.lora_A):
            added = layer.get_delta_weight(adapter).detach().float()  # type: ignore[operator]
            merged = (weight.float() + added).to(target).float() - weight.to(target).float()
            found += float((merged * added).sum())
            whole += float((added**2).sum())
    return found / whole if whole else 1.0


def language_model_of(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """The causal language model itself, with its adapters but without PEFT's wrapper."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model  # type: ignore[return-value]


def computing(options: ModelOptions) -> torch.autocast:
    """A context in which products are computed in `options.dtype`, also those of adapters and
    trained weights, which are kept in float32."""
    import torch

    kind, dtype = device().type, precision(options.dtype, device())
    return torch.autocast(kind, getattr(torch, dtype), enabled=dtype != "float32")


@contextmanager
def folded(model: PeftModel | PreTrainedModel, adapter: str) -> Iterator[None]:
    """Run the block with an adapter added into the base's weights: it is quicker to read with.

    The weights that were there are put back, not computed back, so a run that goes on from a
    checkpoint computes the same. In fewer than 32 bits, and without adapters, nothing is done.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    weights = [weight for layer in layers for weight in layer.get_base_layer().parameters()]
    if not isinstance(model, PeftModel) or any(w.dtype != torch.float32 for w in weights):
        yield
        return
    kept = [weight.data for weight in weights]
    try:
        # Of a layer with `safe_merge` the sum is a new tensor; the old one stays as it is.
        model.merge_adapter([adapter], safe_merge=True)
        yield
    finally:
        for weight, data in zip(weights, kept, strict=True):
            weight.data = data
        for layer in layers:
            layer.merged_adapters.clear()


def without_dropout(model: PreTrainedModel | PeftModel) -> None:
    """Switch dropout off for good, in training mode too."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def is_whole(trained: Path) -> bool:
    """Whether a directory holds a whole model and not an adapter."""
    return (trained / "config.json").is_file() and not (trained / "adapter_config.json").is_file()


class _Trained(BaseModel):
    """What `citepipe.json` of a model directory says of it."""

    step: int | None
    model: ModelOptions
    prompt: PromptOptions


def trained_with(
    trained: Path, given: Path | None = None
) -> tuple[ModelOptions, PromptOptions | None]:
    """The base of an adapter and, of a system that was trained here, its prompt. A whole model is
    its own base. A relative path leads on from the current folder, or from one above the adapter
    (above `given`, where it was unpacked from); InputError if it is not there, or none is named.
    """
    given = given or trained
    path, prompt = trained / "citepipe.json", None
    options = ModelOptions(base=str(trained), dtype="auto")
    if path.is_file():
        about = validated(TypeAdapter(_Trained), read_json(path), str(path))
        options, prompt = about.model, about.prompt
    if is_whole(trained):
        return options.model_copy(update={"base": str(trained), "revision": None}), prompt
    check_trained(trained)
    named = read_json(trained / "adapter_config.json").get("base_model_name_or_path")
    base = options.base if prompt else named
    if not base:
        raise InputError(f"{given}: it names no base model; say --base (citepipe merge)")
    places = [folder / base for folder in (Path(), *given.resolve().parents)]
    found = next((str(place) for place in places if place.exists()), None)
    if not found and (base.startswith((".", "/", "~")) or base.count("/") > 1):
        raise InputError(
            f"{given}: it was trained on {base!r}, which is not on this machine; say --base "
            "(citepipe merge)"
        )
    return options.model_copy(update={"base": found or base}), prompt


def is_ready(path: Path) -> bool:
    """Whether weights load as they are: a directory with safetensors, no archive, none below."""
    configured = any((path / name).is_file() for name in ("adapter_config.json", "config.json"))
    return configured and any(path.glob("*.safetensors"))


def check_start(start: Path, options: ModelOptions) -> None:
    """Check that a directory holds what training with these options can go on from."""
    check_trained(start)
    kinds, expected = ("an adapter", "a whole model"), options.adapter is None
    if is_whole(start) != expected:
        found = kinds[is_whole(start)]
        raise InputError(f"{start}: {found}, expected {kinds[expected]}, see model.adapter")


def check_trained(path: Path) -> None:
    """Check that a directory holds a PEFT adapter or a whole model, in safetensors."""
    names = ("adapter_config.json", "adapter_model.safetensors")
    for name in () if is_whole(path) else names:
        if not (path / name).is_file():
            raise InputError(f"{path}: expected a PEFT adapter, {name} is missing")


def load_with_adapter(
    base: PreTrainedModel, adapter: Path, name: str = "default", is_trainable: bool = False
) -> PeftModel:
    """The base with a trained adapter; InputError if it does not fit the base in every weight."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from safetensors import SafetensorError

    try:
        leave_out = _is_of_other_vocabulary(base, adapter)
        if leave_out:
            say(f"{adapter}: embeddings of another vocabulary are left out, they were not trained")
        with warnings.catch_warnings():
            # What was not loaded is an error here.
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(
                base, adapter, name, is_trainable, ignore_mismatched_sizes=leave_out
            )
            kind = str(model.peft_config[name].peft_type).rpartition(".")[2]
            if not isinstance(model.base_model, BaseTuner):
                raise ValueError(f"it is {kind}, expected one that is added to weights")
            for key, value in read_json(adapter / "adapter_config.json").items():
                # PEFT leaves out what only a later version of it knows.
                if value and not hasattr(model.peft_config[name], key):
                    raise ValueError(f"the installed PEFT does not know {key} in its configuration")
            add_adapter(model, adapter, name, is_trainable)
    except (RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        # The first line only says that something does not fit, the second what.
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{adapter}: no adapter that fits the base model: {line}") from None
    return model


def add_adapter(model: PeftModel, adapter: Path, name: str, is_trainable: bool = False) -> None:
    """Load an adapter under a name that is new, or again over one of that name; ValueError if
    some of its weights have no place in the model, or places no weights."""
    leave_out = _is_of_other_vocabulary(model.get_base_model(), adapter)
    report = model.load_adapter(
        str(adapter), name, is_trainable=is_trainable, ignore_mismatched_sizes=leave_out
    )
    for said, keys in (("has", report.unexpected_keys), ("lacks", report.missing_keys)):
        if keys:
            more = f" and {len(keys) - 1} more" if keys[1:] else ""
            raise ValueError(f"it {said} {keys[0]}{more}, the base has other layers")


def untie(model: PeftModel) -> None:
    """Give the output layer weights of its own, if an adapter changes the ones that it shares with
    the embeddings: merged, they are no longer the same."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = model.get_base_model()
    ends: list[Any] = [base.get_input_embeddings(), base.get_output_embeddings()]
    layers: list[Any] = [
        end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends
    ]
    if layers != ends and None not in ends and layers[0].weight is layers[1].weight:
        weight = layers[1].weight.detach().clone()
        layers[1].weight = torch.nn.Parameter(weight, requires_grad=False)


def _is_of_other_vocabulary(base: Any, adapter: Path) -> bool:
    """Whether an adapter has embeddings beside it that do not fit and are to be left out.

    Where tokens were added to a vocabulary (the authors' code adds one for padding), PEFT saves the
    embeddings beside the adapter, trained or not. If the tokens that both have are as in the base,
    they were not trained, and can stay away; otherwise the adapter is refused.
    """
    from safetensors import safe_open

    own: dict[str, torch.Tensor] = base.state_dict()
    found = False
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as stream:
        for key in stream.keys():  # noqa: SIM118  # not a dictionary
            weight = own.get(key.removeprefix("base_model.model.").replace("base_layer.", ""))
            if weight is None or list(weight.shape) == stream.get_slice(key).get_shape():
                continue
            saved = stream.get_tensor(key).float()
            both = min(len(saved), len(weight))
            ours, theirs = weight[:both].float().cpu(), saved[:both]
            if ours.shape != theirs.shape or (ours - theirs).norm() > _SAME * ours.norm():
                raise InputError(
                    f"{adapter}: no adapter that fits the base model: it was trained with "
                    f"{len(saved)} tokens, their embeddings too, and the base has {len(weight)}; "
                    "merge it into that base, and use the merged model"
                )
            found = True
    return found
