"""A trained adapter and its base as one model, with a card that says how it was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.data.files import atomic_writer, read_json, read_jsonl
from citepipe.errors import InputError
from citepipe.models.load import (
    LOST_AT_MOST,
    check_trained,
    is_whole,
    load_base,
    load_tokenizer,
    load_whole,
    load_with_adapter,
)
from citepipe.models.save import publish
from citepipe.options.model import ModelOptions
from citepipe.progress import say, summary

if TYPE_CHECKING:
    from peft import PeftModel

_PACKAGES = ("citepipe", "torch", "transformers", "peft")


def export(
    options: ModelOptions,
    trained: Path,
    out: Path,
    source: str,
    scores: Path | None = None,
    licence: str | None = None,
) -> str:
    """Write a whole model with its tokenizer and a model card.

    The adapter is added to each layer's weights in 32 bits, and the sum rounded once to the dtype
    of `options`; no second copy of the model is in memory.

    Args:
        options: the base, and the dtype of what is written.
        trained: a PEFT adapter on that base, or a whole model.
        out: a directory that is not there, or empty; it appears when it is complete.
        source: where the weights are from, for the card.
        scores: a score file of this system, for the card.
        licence: an identifier for the card; without one the card names none.

    Returns:
        the line that sums it up.

    Raises:
        InputError: no such model, adapter or score file, they do not go together, or `out` is
            taken.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: expected a new or empty directory, something is there")
    check_trained(trained)
    told = _scores(scores)
    config = _adapter_config(trained)
    tokenizer = load_tokenizer(options)
    if is_whole(trained):
        model, kept = load_whole(trained, options, options.dtype), 1.0
    else:
        wrapped = load_with_adapter(load_base(options), trained)
        kept = merge(wrapped)
        model = wrapped.unload()
        if abs(1 - kept) > LOST_AT_MOST:
            say(
                f"{out}: rounded to {options.dtype}, {kept:.0%} of the adapter is left; float32 "
                "keeps all of it"
            )
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        with atomic_writer(partial / "README.md") as card:
            card.write(_card(options, trained, source, config, kept, told, licence, out.name))
        publish(partial, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(path.stat().st_size for path in out.iterdir())
    return summary("merge", {"written": str(out), "GB": size / 1e9, "adapter kept": f"{kept:.1%}"})


def merge(model: PeftModel) -> float:
    """Add an adapter to the weights of its layers, in place; `unload` then takes the layers off.

    Returns:
        how much of it is left after rounding, as `share_kept_by_merging` has it.
    """
    from peft.tuners.lora import LoraLayer

    found = whole = 0.0
    for layer in model.modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight: Any = layer.get_base_layer().weight
        for adapter in set(layer.active_adapters) & set(layer.lora_A):
            before = weight.data.float()
            added: Any = layer.get_delta_weight(adapter)  # type: ignore[operator]
            added = added.detach().float()
            weight.data = (before + added).to(weight.dtype)
            found += float(((weight.data.float() - before) * added).sum())
            whole += float((added**2).sum())
    return found / whole if whole else 1.0


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
        if isinstance(value.get("metrics"), dict):
            found[", ".join(label)] = value["metrics"]
            return
        for key, inner in value.items():
            look(inner, (*label, key))

    look(read_json(path), ())
    if not found:
        raise InputError(f"{path}: expected a score file, it has no metrics")
    return found


def _card(
    options: ModelOptions,
    trained: Path,
    source: str,
    config: Mapping[str, Any],
    kept: float,
    scores: Mapping[str, Mapping[str, float]],
    licence: str | None,
    name: str,
) -> str:
    front: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": options.base,
        "tags": ["citepipe", "citations"],
    }
    if licence is not None:
        front["license"] = licence
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {name}", "", "A language model that answers questions from documents and cites "]
    lines[-1] += "them as `[1][2]`, made with citepipe."
    lines += ["", "| | |", "|---|---|", f"| base | `{options.base}` |"]
    rows: dict[str, object] = {
        "revision of the base": options.revision,
        "trained weights": f"`{source}`",
        "LoRA": f"r {config['r']}, alpha {config.get('lora_alpha')}" if "r" in config else None,
        "precision": options.dtype,
        "adapter left after rounding": f"{kept:.1%}" if config else None,
    }
    lines += [f"| {key} | {value} |" for key, value in rows.items() if value is not None]
    lines += ["", "## Training", "", *_training(trained)]
    if scores:
        lines += ["", "## Scores", "", "Percent, by ALCE's names.", ""]
        for label, metrics in scores.items():
            shown = ", ".join(f"{metric} {value:.1f}" for metric, value in metrics.items())
            lines.append(f"- {label + ': ' if label else ''}{shown}")
    lines += ["", "## Versions", ""]
    lines.append(", ".join(f"{package} {_version(package)}" for package in _PACKAGES))
    return "\n".join(lines) + "\n"


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
