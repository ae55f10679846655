"""A trained adapter and its base as one model, with a card that says how it was made."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.models.card import kept_step, metrics_of, write_card
from citepipe.models.load import (
    LOST_AT_MOST,
    check_trained,
    is_whole,
    load_base,
    load_tokenizer,
    load_with_adapter,
    share_kept_by_merging,
    untie,
)
from citepipe.models.pretrained import read_config
from citepipe.models.save import building
from citepipe.options import ModelOptions
from citepipe.progress import say, summary

_PACKAGES = ("citepipe", "torch", "transformers", "peft")


def export(
    options: ModelOptions,
    trained: Path,
    out: Path,
    source: str,
    scores: Path | None = None,
    licence: str | None = None,
    record: Mapping[str, object] | None = None,
) -> str:
    """Write a whole model with its tokenizer and a model card; returns a line that sums it up.

    The adapter is added to each layer's weights by PEFT in 32 bits, and the sum rounded once to the
    dtype of `options`. The base is in memory in its own dtype; there is no second copy of it.

    Args:
        options: the base, and the dtype of what is written.
        trained: a PEFT adapter on that base, or a whole model.
        out: a directory that is not there, or empty; it appears when it is complete.
        source, scores, licence, record: for the card: where the weights are from, a score file, an
            identifier, and how the weights were made (system, seed, data, options).
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not out.name or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise InputError(f"{out}: expected the name of a new or empty directory")
    check_trained(trained)
    metrics = dict(metrics_of(read_json(scores))) if scores is not None else {}
    if scores is not None and not metrics:
        raise InputError(f"{scores}: expected a score file, it has no metrics")
    tokenizer = load_tokenizer(options)
    dtype: torch.dtype = getattr(torch, options.dtype)
    kept = 1.0
    if is_whole(trained):
        model: Any = load_base(options, whole=trained)
    else:
        wrapped = load_with_adapter(load_base(options, dtype_of(options)), trained)
        kept = share_kept_by_merging(wrapped, dtype)
        untie(wrapped)
        for layer in wrapped.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.get_base_layer().float()
                layer.merge()
                layer.get_base_layer().to(dtype)
        model = wrapped.merge_and_unload().to(dtype)
        if abs(1 - kept) > LOST_AT_MOST:
            say(
                f"{out}: rounded to {options.dtype}, {kept:.0%} of the adapter is left; float32 "
                "keeps all of it"
            )
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise InputError(f"{trained}: its sum with the base is not finite in {dtype}")
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if None not in ends and ends[0].weight is not ends[1].weight:
        model.config.get_text_config().tie_word_embeddings = False
        model.config.tie_word_embeddings = False
        # What transformers ties when it saves is listed here.
        model.all_tied_weights_keys = {}
    model.config.dtype = dtype
    made: dict[str, object] = {"base": options.base, "revision": options.revision}
    made |= {"trained weights": source, "precision": options.dtype}
    if not is_whole(trained):
        config = read_json(trained / "adapter_config.json")
        made["adapter"] = {key: config.get(key) for key in ("peft_type", "r", "lora_alpha")}
        made["adapter left after rounding"] = f"{kept:.1%}"
    made["versions"] = {name: importlib.metadata.version(name) for name in _PACKAGES}
    made["training"] = record
    about = trained / "citepipe.json"
    if about.is_file():
        made |= kept_step(trained)
    with building(out) as partial:
        if about.is_file():
            shutil.copy(about, partial)
        model.save_pretrained(partial, max_shard_size="5GB")
        tokenizer.save_pretrained(partial)
        write_card(partial, out.name, options.base, made, licence, metrics)
    size = sum(path.stat().st_size for path in out.iterdir())
    return summary("merge", {"written": str(out), "GB": size / 1e9, "adapter kept": f"{kept:.1%}"})


def dtype_of(options: ModelOptions) -> str:
    """The precision that a base's weights are stored in, by its configuration; else float32."""
    config = read_config(options.base, options.revision, "model.base")
    dtype = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return dtype if dtype in ("float32", "bfloat16", "float16") else "float32"
