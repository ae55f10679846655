"""A trained adapter and its base as one model, with a card that says how it was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.data.files import read_json, read_jsonl
from citepipe.errors import InputError
from citepipe.models.fit import untie
from citepipe.models.load import (
    LOST_AT_MOST,
    check_trained,
    is_whole,
    load_base,
    load_tokenizer,
    load_whole,
    load_with_adapter,
)
from citepipe.models.pretrained import read_config
from citepipe.models.save import publish, system_errors
from citepipe.options import ModelOptions
from citepipe.progress import say, summary

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

_SHARD = "5GB"
_DTYPES = ("float32", "bfloat16", "float16")
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
    """Write a whole model with its tokenizer and a model card.

    The adapter is added to each layer's weights in 32 bits, and the sum rounded once to the dtype
    of `options`. The base is in memory in its own dtype; there is no second copy of the model.

    Args:
        options: the base, and the dtype of what is written.
        trained: a PEFT adapter on that base, or a whole model.
        out: a directory that is not there, or empty; it appears when it is complete.
        source: where the weights are from, for the card.
        scores: a score file of this system, for the card.
        licence: an identifier for the card; without one the card says that it is unknown.
        record: what else the card tells of how the weights were made (system, seed, data, options).

    Returns:
        the line that sums it up.

    Raises:
        InputError: no such model, adapter or score file, they do not go together, or `out` is
            taken.
    """
    import torch

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: expected a new or empty directory, something is there")
    check_trained(trained)
    told = _scores(scores)
    config = _adapter_config(trained)
    training = _training(trained)
    tokenizer = load_tokenizer(options)
    dtype: torch.dtype = getattr(torch, options.dtype)
    if is_whole(trained):
        model, kept = load_whole(trained, options, options.dtype), 1.0
    else:
        wrapped = load_with_adapter(load_base(options, dtype_of(options)), trained)
        try:
            kept = merge(wrapped, dtype)
        except InputError as error:
            raise InputError(f"{trained}: {error}") from None
        with warnings.catch_warnings():
            # That all is merged already.
            warnings.simplefilter("ignore")
            model = wrapped.merge_and_unload()
        if abs(1 - kept) > LOST_AT_MOST:
            say(
                f"{out}: rounded to {options.dtype}, {kept:.0%} of the adapter is left; float32 "
                "keeps all of it"
            )
    _finish(model, dtype)
    card = _card(options, source, config, kept, told, licence, out.name, training, record)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with system_errors(partial):
            model.save_pretrained(partial, max_shard_size=_SHARD)
            tokenizer.save_pretrained(partial)
            (partial / "README.md").write_text(card, encoding="utf-8")
        publish(partial, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(path.stat().st_size for path in out.iterdir())
    return summary("merge", {"written": str(out), "GB": size / 1e9, "adapter kept": f"{kept:.1%}"})


def dtype_of(options: ModelOptions) -> str:
    """The precision that a base's weights are stored in, by its configuration; else float32."""
    config = read_config(options.base, options.revision, "model.base")
    dtype = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return dtype if dtype in _DTYPES else "float32"


def merge(model: PeftModel, dtype: torch.dtype) -> float:
    """Add an adapter of any kind to the weights of its layers, in place, and round them once.

    Each layer is merged by PEFT's own rule, in 32 bits, and is then of `dtype`. PEFT's layers are
    still there, and know that they are merged.

    Returns:
        how much of it is left after rounding, as `share_kept_by_merging` has it.

    Raises:
        InputError: the adapter adds nothing to weights (soft prompts), or is not finite.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

    if not isinstance(model.base_model, BaseTuner):
        kind = str(model.peft_config[model.active_adapter].peft_type).rpartition(".")[2]
        raise InputError(f"expected an adapter that is added to weights, this one is {kind}")
    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    untie(model)
    found = whole = 0.0
    for layer in layers:
        if not hasattr(layer, "merge"):
            continue
        base: Any = layer.get_base_layer()
        base.float()
        before = [parameter.detach().clone() for parameter in base.parameters()]
        layer.merge()
        for parameter, old in zip(base.parameters(), before, strict=True):
            added = parameter.data - old
            parameter.data = parameter.data.to(dtype)
            if not torch.isfinite(parameter.data).all():
                raise InputError(f"its sum with the base is not finite in {dtype}")
            # Rounding the base itself is not a loss of the adapter's.
            found += float(((parameter.data.float() - old.to(dtype).float()) * added).sum())
            whole += float((added**2).sum())
    return found / whole if whole else 1.0


def _finish(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """All weights in one precision, and a configuration that tells the truth about them."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if inputs is not None and outputs is not None:
        tied = inputs.weight is outputs.weight
        text = model.config.get_text_config()
        if getattr(text, "tie_word_embeddings", False) and not tied:
            text.tie_word_embeddings = model.config.tie_word_embeddings = False
            # What transformers ties when it saves is listed here.
            model.all_tied_weights_keys = {}
    model.config.dtype = dtype


def _adapter_config(trained: Path) -> dict[str, Any]:
    path = trained / "adapter_config.json"
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _scores(path: Path | None) -> dict[str, Mapping[str, float]]:
    """The metrics of a score file, by the verifier and dataset that they are of."""
    if path is None:
        return {}
    found: dict[str, Mapping[str, float]] = {}

    def look(value: Any, label: tuple[str, ...]) -> None:
        if not isinstance(value, dict):
            return
        metrics = value.get("metrics")
        if isinstance(metrics, dict):
            where = ", ".join(label)
            found[where] = {name: number for name, number in metrics.items() if number is not None}
            for name, number in found[where].items():
                if not isinstance(number, int | float) or isinstance(number, bool):
                    at = f" of {where}" if where else ""
                    raise InputError(f"{path}, metric {name}{at}: expected a number")
            return
        for key, inner in value.items():
            look(inner, (*label, key))

    look(read_json(path), ())
    if not found:
        raise InputError(f"{path}: expected a score file, it has no metrics")
    return found


def _card(
    options: ModelOptions,
    source: str,
    config: Mapping[str, Any],
    kept: float,
    scores: Mapping[str, Mapping[str, float]],
    licence: str | None,
    name: str,
    training: list[str],
    record: Mapping[str, object] | None,
) -> str:
    front: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": licence or "unknown",
        "tags": ["citepipe", "citations"],
    }
    # The hub takes its own names here, no paths.
    if not Path(options.base).exists():
        front["base_model"] = options.base
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {name}", "", "A language model that answers questions from documents and cites "]
    lines[-1] += "them as `[1][2]`, made with citepipe."
    rows: dict[str, object] = {
        "base": f"`{_cell(options.base)}`",
        "revision of the base": options.revision,
        "trained weights": f"`{_cell(source)}`",
        "adapter": _cell(config["peft_type"]) if "peft_type" in config else None,
        "LoRA": f"r {_cell(config['r'])}, alpha {_cell(config.get('lora_alpha'))}"
        if "r" in config
        else None,
        "precision": options.dtype,
        "adapter left after rounding": f"{kept:.1%}" if config else None,
    }
    shown = [(key, value) for key, value in rows.items() if value is not None]
    lines += ["", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in shown)]
    lines += ["", "## Training", "", *training]
    if record:
        lines += ["", "```json", json.dumps(record, indent=1, ensure_ascii=False), "```"]
    if scores:
        lines += ["", "## Scores", "", "Percent, by ALCE's names.", ""]
        for label, metrics in scores.items():
            numbers = ", ".join(f"{_cell(metric)} {value:.1f}" for metric, value in metrics.items())
            lines.append(f"- {_cell(label) + ': ' if label else ''}{numbers}")
    lines += ["", "## Versions", ""]
    lines.append(", ".join(f"{package} {_version(package)}" for package in _PACKAGES))
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    """A value for a cell of a table: one line, and no end of the cell."""
    return " ".join(str(value).split()).replace("|", "/").replace("`", "'")


def _training(trained: Path) -> list[str]:
    """What the learning curve says: steps, and the first and last figures on dev questions."""
    curve = trained / "metrics.jsonl"
    records = [r for r in read_jsonl(curve) if isinstance(r, dict)] if curve.is_file() else []
    steps = [record["step"] for record in records if isinstance(record.get("step"), int)]
    if not steps:
        return ["Trained elsewhere; nothing more is known of it."]
    lines = [f"{max(steps)} steps. On dev questions, from the start to the end:", ""]
    for name in dict.fromkeys(key for record in records for key in record if key[:3] == "dev"):
        values = [record[name] for record in records if isinstance(record.get(name), float)]
        if values:
            lines.append(f"- {name} from {values[0]:.4g} to {values[-1]:.4g}")
    return lines


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
