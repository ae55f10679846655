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
    load_with_adapter,
    share_kept_by_merging,
    untie,
)
from citepipe.models.pretrained import read_config
from citepipe.models.save import building
from citepipe.options import ModelOptions
from citepipe.progress import say, summary

_PACKAGES = ("citepipe", "torch", "transformers", "peft")
_Scores = Mapping[str, Mapping[str, str]]


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
    metrics = dict(_metrics(read_json(scores))) if scores is not None else {}
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
        made |= _kept(trained, read_json(about))
    with building(out) as partial:
        if about.is_file():
            shutil.copy(about, partial)
        model.save_pretrained(partial, max_shard_size="5GB")
        tokenizer.save_pretrained(partial)
        card = _card(out.name, options.base, licence, made, metrics)
        (partial / "README.md").write_text(card, encoding="utf-8")
    size = sum(path.stat().st_size for path in out.iterdir())
    return summary("merge", {"written": str(out), "GB": size / 1e9, "adapter kept": f"{kept:.1%}"})


def _kept(trained: Path, about: Mapping[str, Any]) -> dict[str, object]:
    """For the card of a system that was trained here: its prompt, and the figures on dev of the
    step that was kept."""
    rows = [row for row in read_jsonl(trained / "metrics.jsonl") if row["step"] == about["step"]]
    figures = {name: x for row in rows for name, x in row.items() if name[:4] in ("dev_", "eval")}
    return {"kept step": {"step": about["step"], **figures}, "prompt": about["prompt"]}


def dtype_of(options: ModelOptions) -> str:
    """The precision that a base's weights are stored in, by its configuration; else float32."""
    config = read_config(options.base, options.revision, "model.base")
    dtype = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return dtype if dtype in ("float32", "bfloat16", "float16") else "float32"


def _metrics(value: Any, label: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """The metrics in a score file with their intervals, each group by the verifier and dataset that
    it is of."""
    if not isinstance(value, dict):
        return
    if isinstance(value.get("metrics"), dict):
        bounds = value.get("intervals", {})
        yield (
            ", ".join(label),
            {
                name: f"{x:.1f}" + (" [{:.1f}, {:.1f}]".format(*own) if own else "")
                for name, x in value["metrics"].items()
                if isinstance(x, int | float)
                for own in [bounds.get(name)]
            },
        )
    else:
        for key, inner in value.items():
            yield from _metrics(inner, (*label, key))


def _card(
    name: str, base: str, licence: str | None, made: Mapping[str, object], scores: _Scores
) -> str:
    from huggingface_hub import ModelCardData

    front = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        license=licence or "unknown",
        tags=["citepipe", "citations"],
        # The hub takes its own names here, no paths.
        base_model=None if Path(base).exists() else base,
    )
    known = {key: value for key, value in made.items() if value is not None}
    lines = ["---", front.to_yaml(), "---", "", f"# {name}", ""]
    lines += ["A language model that answers questions from documents and cites them as `[1][2]`,"]
    lines += [
        "made with citepipe. To ask it about documents of your own, each sentence checked:",
        "",
    ]
    lines += [f'    citepipe ask "QUESTION" --docs FOLDER --model {name}', "", "```json"]
    lines += [json.dumps(known, indent=1, ensure_ascii=False), "```"]
    if scores:
        lines += ["", "## Scores", "", "Percent, by ALCE's names.", ""]
    for label, metrics in scores.items():
        numbers = ", ".join(f"{metric} {value}" for metric, value in metrics.items())
        lines.append(f"- {label}: {numbers}" if label else f"- {numbers}")
    return "\n".join([*lines, ""])
