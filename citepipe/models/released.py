"""Somebody's released weights, made into a directory of safetensors that loads.

The authors' zips hold an adapter in the folder itself (`sft/train.py`) or, after PPO, in
`best_peft/policy_adapter` beside that of the value model (`fgrlhf/ppo.py`).
"""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from citepipe.data.files import write_json
from citepipe.errors import InputError
from citepipe.models.load import load_tokenizer, load_trainable
from citepipe.models.save import building, save_model
from citepipe.options import ModelOptions
from citepipe.progress import summary
from citepipe.sources import is_archive, link, sha256_of, unpack

if TYPE_CHECKING:
    import torch

_POLICY = Path("best_peft") / "policy_adapter"
_WEIGHTS = {
    "adapter_config.json": ("adapter_model.safetensors", "adapter_model.bin"),
    "config.json": (
        "model.safetensors",
        "model-*-of-*.safetensors",
        "pytorch_model.bin",
        "pytorch_model-*-of-*.bin",
    ),
}
"""The files of weights beside each kind of configuration, those that are taken first."""
_BESIDE = re.compile(
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|.*\.model|vocab.*|merges\.txt|"
    r"(generation_|adapter_)?config\.json|chat_template.*"
)


def find_weights(directory: Path) -> Path:
    """The folder of the adapter or model in an unpacked archive.

    It is the folder itself, its `best_peft/policy_adapter`, or the only one of these in the folders
    below; the adapter of a value model is none that answers.
    """
    configured = {path.parent for name in _WEIGHTS for path in sorted(directory.rglob(name))}
    found = sorted(
        folder
        for folder in configured
        if _weights_of(folder) and not re.search(r"(^|_)value(_|$)", folder.name)
    )
    # What was saved on the way to the end is beside or below it.
    chosen = (
        [folder for folder in (directory, directory / _POLICY) if folder in found][:1]
        or [folder for folder in found if folder.parts[-2:] == _POLICY.parts]
        or [folder for folder in found if not any(other in folder.parents for other in found)]
    )
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(str(folder.relative_to(directory)) for folder in chosen[:8])
    raise InputError(
        f"{directory}: expected one adapter (adapter_config.json with its weights) or model "
        f"(config.json with its weights), there {f'are several: {names}' if names else 'is none'}"
    )


def prepare(source: Path, out: Path) -> str:
    """Make a directory of safetensors of an archive or unpacked folder; returns a summary line.

    Files that can stay as they are become hard links where that works; pickled weights are read as
    tensors only and written as safetensors. `released.json` says what was what.
    """
    if not source.is_dir() and not (source.is_file() and is_archive(source)):
        raise InputError(f"{source}: expected a folder, or a zip or tar archive of one")
    unpacked = out.with_name(f".{out.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        if source.is_file():
            unpack(source, unpacked)
        folder = source if source.is_dir() else unpacked
        weights = find_weights(folder)
        with building(out) as partial:
            files = _take(weights, partial)
            found = str(weights.relative_to(folder))
            record = {"source": str(source), "found": found, "files": files}
            write_json(partial / "released.json", record)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    converted = sum(bool(file["converted"]) for file in files)
    kind = "adapter" if (out / "adapter_config.json").exists() else "model"
    return summary("weights", {"kind": kind, "files": len(files), "converted": converted})


def write_untrained(options: ModelOptions, out: Path) -> str:
    """Write an adapter that adds nothing (or the base's weights, where all are trained).

    Training that starts from the base as it is begins with it.
    """
    tokenizer = load_tokenizer(options)
    model = load_trainable(options, None)
    with building(out) as partial:
        save_model(model, partial)
        tokenizer.save_pretrained(partial)
    return summary("weights", {"untrained, on": options.base})


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of `torch.save`, by name, each in memory of its own; InputError if it
    is damaged, or has anything but tensors and plain values."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            # Read in place, a file's own sums are not checked.
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"{bad!r} is damaged")
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        value = value.get("state_dict", value)
        tensors = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
        if not tensors:
            raise ValueError("there are none")
        contiguous = torch.contiguous_format
        return {k: v.detach().clone(memory_format=contiguous) for k, v in tensors.items()}
    # A damaged file makes the reader of pickles raise anything.
    except Exception as error:
        # Around it torch advises to load the file without this care.
        refused = re.search(r"[Uu]nsupported (.*?)(\. Please|\n|$)", str(error))
        line = f"it has {refused[1]}" if refused else " ".join(str(error).split())[:200]
        raise InputError(f"{path}: expected tensors only, by torch.save: {line}") from None


def _weights_of(folder: Path) -> list[Path]:
    """The files of weights: safetensors if there are any, else pickles."""
    for config, patterns in _WEIGHTS.items():
        if (folder / config).is_file():
            return next(filter(None, (sorted(folder.glob(pattern)) for pattern in patterns)), [])
    return []


def _take(weights: Path, out: Path) -> list[dict[str, str | bool]]:
    """Put the weights into `out`, as safetensors, with what belongs to them; what each was."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    paths = _weights_of(weights)
    taken: list[dict[str, str | bool]] = []
    shards: dict[str, str] = {}
    for path in paths:
        is_pickled = path.suffix == ".bin"
        # One name for all of a model's files, in parts or not: that of its safetensors.
        name = path.name
        if is_pickled:
            name = name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"
            save_file(read_pickled(path), out / name, metadata={"format": "pt"})
        else:
            link(path, out / name)
        taken.append({"name": path.name, "sha256": sha256_of(path), "converted": is_pickled})
        try:
            with safe_open(out / name, framework="np") as opened:
                shards |= dict.fromkeys(opened.keys(), name)
        except SafetensorError as error:
            raise InputError(f"{path}: expected safetensors, {error}") from None
    if len(paths) > 1:
        size = sum((out / name).stat().st_size for name in set(shards.values()))
        index = {"metadata": {"total_size": size}, "weight_map": shards}
        write_json(out / "model.safetensors.index.json", index)
    for path in sorted(weights.iterdir()):
        if path.is_file() and _BESIDE.fullmatch(path.name):
            link(path, out / path.name)
    return taken
