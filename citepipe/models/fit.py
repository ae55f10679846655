"""Whether an adapter is one for this base: PEFT loads what fits and says nothing of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.errors import InputError
from citepipe.progress import say

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

_WEIGHTS = "adapter_model.safetensors"
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")
_SAME = 0.01
"""By which share embeddings may differ that were only rounded, to 16 bits and back."""


def settings_for(base: PreTrainedModel, adapter: Path) -> dict[str, Any]:
    """What PEFT must be told to load an adapter onto this base.

    Where tokens were added to a vocabulary (the authors' code adds one for padding), PEFT saves the
    embeddings beside the adapter, trained or not. Those of another number of tokens do not fit into
    the base. If the tokens that both have are as in the base, they were not trained, and can stay
    away.

    Raises:
        InputError: the embeddings of another vocabulary were trained.
    """
    from safetensors import safe_open

    path = adapter / _WEIGHTS
    if not path.is_file():
        return {}
    found = False
    with safe_open(path, framework="pt") as stream:
        for name in stream.keys():  # noqa: SIM118  # not a dictionary
            weight = _embedding_of(base, name)
            if weight is None or list(weight.shape) == stream.get_slice(name).get_shape():
                continue
            saved = stream.get_tensor(name)
            if not _agree(saved, weight):
                raise InputError(
                    f"{adapter}: no adapter that fits the base model: it was trained with "
                    f"{len(saved)} tokens, their embeddings too, and the base has {len(weight)}; "
                    "merge it into that base, and use the merged model"
                )
            found = True
    if not found:
        return {}
    say(f"{adapter}: the embeddings of another vocabulary are left out, they were not trained")
    return {"ignore_mismatched_sizes": True}


def check_loaded(model: PeftModel, adapter: Path, name: str = "default") -> None:
    """Check that all weights of an adapter have found their place, and every place its weights.

    Architectures whose layers had other names in older versions of transformers (mostly mixtures
    of experts) are left to PEFT, which renames them.

    Raises:
        InputError: some are missing, or are for layers that the base does not have.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    path = adapter / _WEIGHTS
    if not path.is_file() or _renames(model.get_base_model()):
        return
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    placed = {key: list(tensor.shape) for key, tensor in state.items()}
    with safe_open(path, framework="pt") as stream:
        saved = {key: stream.get_slice(key).get_shape() for key in stream.keys()}  # noqa: SIM118
    for key in saved:
        if key not in placed and _embedding(key) is None:
            raise _misfit(adapter, f"it has {key}, for which the base has no place")
        if key in placed and placed[key] != saved[key]:
            raise _misfit(adapter, f"{key} is {saved[key]}, the base takes {placed[key]}")
    missing = [key for key in placed if key not in saved]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise _misfit(adapter, f"it lacks {missing[0]}{more}")


def untie(model: PeftModel) -> None:
    """Give the output layer weights of its own, if the adapter changes what it shares.

    An adapter on one of two layers that share their weights changes one of them only; merged, they
    are no longer the same.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = model.get_base_model()
    ends = base.get_input_embeddings(), base.get_output_embeddings()
    if None in ends or not any(isinstance(end, BaseTunerLayer) for end in ends):
        return
    layers = [end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends]
    first, second = (getattr(layer, "weight", None) for layer in layers)
    if first is second and isinstance(second, torch.Tensor):
        layers[1].weight = torch.nn.Parameter(second.detach().clone(), requires_grad=False)


def _renames(base: Any) -> bool:
    """Whether weights of this architecture may have older names in a file."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    renamed = getattr(base, "_checkpoint_conversion_mapping", None)
    return bool(renamed) or get_checkpoint_conversion_mapping(base.config.model_type) is not None


def _misfit(adapter: Path, said: str) -> InputError:
    return InputError(f"{adapter}: no adapter that fits the base model: {said}")


def _embedding(name: str) -> str | None:
    """What a weight of an adapter is called in the base, if it is that of embeddings themselves."""
    *above, last = name.removeprefix("base_model.model.").split(".")
    parts = [part for part in above if part not in ("base_layer", "original_module")]
    if last != "weight" or not parts or parts[-1] not in _EMBEDDINGS:
        return None
    return ".".join([*parts, last])


def _embedding_of(base: PreTrainedModel, name: str) -> torch.Tensor | None:
    """The base's own embeddings that have this name in an adapter, if it is such a name."""
    inner = _embedding(name)
    try:
        return None if inner is None else base.get_parameter(inner)
    except AttributeError:
        return None


def _agree(saved: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the tokens that both have are the same but for rounding."""
    count = min(len(saved), len(weight))
    ours, theirs = weight[:count].detach().float().cpu(), saved[:count].float()
    if ours.shape != theirs.shape:
        return False
    return float((ours - theirs).norm()) <= _SAME * float(ours.norm())
