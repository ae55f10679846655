"""Model cards: what a model is, how it was made, how to ask it, and its scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json, read_jsonl


def kept_step(trained: Path) -> dict[str, object]:
    """Of a directory that training leaves the figures on dev of the step that was kept, and the
    prompt."""
    about = read_json(trained / "citepipe.json")
    rows = [row for row in read_jsonl(trained / "metrics.jsonl") if row["step"] == about["step"]]
    figures = {name: x for row in rows for name, x in row.items() if name[:4] in ("dev_", "eval")}
    return {"kept step": {"step": about["step"], **figures}, "prompt": about["prompt"]}


def metrics_of(value: Any, label: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, str]]]:
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
            yield from metrics_of(inner, (*label, key))


def write_card(
    folder: Path,
    name: str,
    base: str,
    made: Mapping[str, object],
    licence: str | None,
    scores: Mapping[str, Mapping[str, str]],
) -> None:
    """Write the card (`README.md`) of a model or adapter that is asked by a name: how it was made,
    and its scores as of `metrics_of`."""
    from huggingface_hub import ModelCardData

    front = ModelCardData(
        library_name="peft" if (folder / "adapter_config.json").exists() else "transformers",
        pipeline_tag="text-generation",
        license=licence or "unknown",
        tags=["citepipe", "citations"],
        # The hub takes its own names here, no paths.
        base_model=None if Path(base).exists() else base,
    )
    known = {key: value for key, value in made.items() if value is not None}
    lines = ["---", front.to_yaml(), "---", "", f"# {name}", ""]
    lines += ["A language model that answers questions from documents and cites them as `[1][2]`,"]
    lines += ["made with citepipe. To ask it of your own documents, each sentence checked:", ""]
    lines += [f'    citepipe ask "QUESTION" --docs FOLDER --model {name}', "", "```json"]
    lines += [json.dumps(known, indent=1, ensure_ascii=False), "```"]
    if scores:
        lines += ["", "## Scores", "", "Percent, by ALCE's names.", ""]
    for label, metrics in scores.items():
        numbers = ", ".join(f"{metric} {value}" for metric, value in metrics.items())
        lines.append(f"- {label}: {numbers}" if label else f"- {numbers}")
    (folder / "README.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
