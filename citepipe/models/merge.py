"""A trained adapter and its base as one model, with a card that says how it was made."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json, read_jsonl
from citepipe.errors import InputError
from citepipe.models.load import (
    LOST_AT_MOST,
    check_trained,
    is_whole,
    load_base,
    load_tokenizer,
    load_whole,
    load_with_adapter,
    share_kept_by_merging,
    untie,
)
from citepipe.models.pretrained import read_config
from citepipe.models.save import partial_directory, publish, system_errors
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
    """Write a whole model with its tokenizer and a model card.

    The adapter is added to each layer's weights by PEFT in 32 bits, and the sum rounded once to the
    dtype of `options`. The base is in memory in its own dtype; there is no second copy of it.

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
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not out.name or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise InputError(f"{out}: expected the name of a new or empty directory")
    check_trained(trained)
    metrics = dict(_metrics(read_json(scores))) if scores is not None else {}
    if scores is not None and not metrics:
        raise InputError(f"{scores}: expected a score file, it has no metrics")
    tokenizer = load_tokenizer(options)
    dtype: torch.dtype = getattr(torch, options.dtype)
    kept = 1.0
    if is_whole(trained):
        model: Any = load_whole(trained, options, options.dtype)
    else:
        wrapped = load_with_adapter(load_base(options, dtype_of(options)), trained)
        kept = share_kept_by_merging(wrapped, dtype)
        untie(wrapped)
        for layer in wrapped.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.get_base_layer().float()
                layer.merge()
                layer.get_base_layer().to(dtype)
        model = wrapped.merge_and_unload()
        if abs(1 - kept) > LOST_AT_MOST:
            say(
                f"{out}: rounded to {options.dtype}, {kept:.0%} of the adapter is left; float32 "
                "keeps all of it"
            )
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
            if not torch.isfinite(parameter.data).all():
                raise InputError(f"{trained}: its sum with the base is not finite in {dtype}")
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if None not in ends and ends[0].weight is not ends[1].weight:
        model.config.get_text_config().tie_word_embeddings = False
        model.config.tie_word_embeddings = False
        # What transformers ties when it saves is listed here.
        model.all_tied_weights_keys = {}
    model.config.dtype = dtype
    card = _card(options, trained, source, kept, metrics, licence, out.name, record)
    partial = partial_directory(out)
    try:
        with system_errors(partial):
            model.save_pretrained(partial, max_shard_size="5GB")
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
    return dtype if dtype in ("float32", "bfloat16", "float16") else "float32"


def _metrics(value: Any, label: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, float]]]:
    """The metrics in a score file, each group by the verifier and dataset that it is of."""
    if not isinstance(value, dict):
        return
    if isinstance(value.get("metrics"), dict):
        numbers = {k: v for k, v in value["metrics"].items() if isinstance(v, int | float)}
        yield ", ".join(label), numbers
    else:
        for key, inner in value.items():
            yield from _metrics(inner, (*label, key))


def _card(
    options: ModelOptions,
    trained: Path,
    source: str,
    kept: float,
    scores: Mapping[str, Mapping[str, float]],
    licence: str | None,
    name: str,
    record: Mapping[str, object] | None,
) -> str:
    from huggingface_hub import ModelCardData

    front = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        license=licence or "unknown",
        tags=["citepipe", "citations"],
        # The hub takes its own names here, no paths.
        base_model=None if Path(options.base).exists() else options.base,
    )
    rows: dict[str, object] = {
        "base": options.base,
        "revision of the base": options.revision,
        "trained weights": source,
        "precision": options.dtype,
    }
    path = trained / "adapter_config.json"
    if path.is_file():
        config = read_json(path)
        rows |= {
            "adapter": config.get("peft_type"),
            "rank": config.get("r"),
            "alpha": config.get("lora_alpha"),
            "adapter left after rounding": f"{kept:.1%}",
        }
    lines = ["---", front.to_yaml(), "---", "", f"# {name}", ""]
    lines.append("A language model that answers questions from documents and cites them as")
    lines += ["`[1][2]`, made with citepipe.", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in rows.items() if value is not None]
    lines += ["", "## Training", "", *_training(trained)]
    if record:
        lines += ["", "```json", json.dumps(record, indent=1, ensure_ascii=False), "```"]
    if scores:
        lines += ["", "## Scores", "", "Percent, by ALCE's names.", ""]
    for label, metrics in scores.items():
        numbers = ", ".join(f"{_cell(metric)} {value:.1f}" for metric, value in metrics.items())
        lines.append(f"- {_cell(label) + ': ' if label else ''}{numbers}")
    versions = [f"{package} {importlib.metadata.version(package)}" for package in _PACKAGES]
    return "\n".join([*lines, "", "## Versions", "", ", ".join(versions), ""])


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
