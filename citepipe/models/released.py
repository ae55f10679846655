"""Somebody's released weights, made into a directory of safetensors that loads.

The authors' zips hold an adapter in the folder itself (`sft/train.py`) or, after PPO, in
`best_peft/policy_adapter` beside that of the value model (`fgrlhf/ppo.py`).
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.models.load import load_tokenizer, load_trainable
from citepipe.models.save import partial_directory, publish, save_model, system_errors
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
    r"(generation_)?config\.json|chat_template.*"
)
_LARGEST_RATIO = 4
"""Of all tensors' bytes to the file's: tied weights are there twice, hardly anything more often."""


def find_weights(directory: Path) -> Path:
    """The folder of the adapter or model in an unpacked archive.

    It is the folder itself, its `best_peft/policy_adapter`, or the only one of these in the folders
    below; the adapter of a value model is none that answers.

    Raises:
        InputError: there is none, or there are several.
    """
    configured = {path.parent for name in _WEIGHTS for path in sorted(directory.rglob(name))}
    found = sorted(
        folder
        for folder in configured
        if _weights_of(folder) and not re.search(r"(^|_)value(_|$)", folder.name)
    )
    for folder in (directory, directory / _POLICY):
        if folder in found:
            return folder
    policies = [folder for folder in found if folder.parts[-2:] == _POLICY.parts]
    # What was saved on the way to the end is beside or below it.
    chosen = policies or [
        folder for folder in found if not any(other in folder.parents for other in found)
    ]
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise InputError(
            f"{directory}: expected an adapter (adapter_config.json with its weights) or a model "
            "(config.json with its weights), there is none"
        )
    names = ", ".join(str(folder.relative_to(directory)) for folder in chosen[:8])
    raise InputError(f"{directory}: expected one adapter or model, there are several: {names}")


def prepare(source: Path, out: Path) -> str:
    """Make a directory of safetensors of somebody's weights.

    Files that can stay as they are become hard links where that works; pickled weights are read as
    tensors only and written as safetensors. `released.json` says what was what.

    Args:
        source: an unpacked folder, or an archive.
        out: the directory; it appears when it is complete.

    Returns:
        the line that sums it up.

    Raises:
        InputError: there are no weights, or none that can be read safely.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or directory")
    if source.is_file() and not is_archive(source):
        raise InputError(f"{source}: expected a folder, or a zip or tar archive of one")
    unpacked = out.with_name(f".{out.name}.unpacked")
    partial = unpacked
    try:
        shutil.rmtree(unpacked, ignore_errors=True)
        if source.is_file():
            unpack(source, unpacked)
        folder = source if source.is_dir() else unpacked
        weights = find_weights(folder)
        partial = partial_directory(out)
        with system_errors(partial):
            files = _take(weights, partial)
            if (weights / "adapter_config.json").is_file():
                _write_adapter_config(weights / "adapter_config.json", partial)
            found = str(weights.relative_to(folder))
            record = {"source": str(source), "found": found, "files": files}
            write_json(partial / "released.json", record)
        publish(partial, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        for left in (unpacked, partial):
            shutil.rmtree(left, ignore_errors=True)
    converted = sum(bool(file["converted"]) for file in files)
    kind = "adapter" if (out / "adapter_config.json").exists() else "model"
    return summary("weights", {"kind": kind, "files": len(files), "converted": converted})


def write_untrained(options: ModelOptions, out: Path) -> str:
    """Write an adapter that adds nothing (or the base's weights, where all are trained).

    With it the base as it is goes through every stage that a trained model does.

    Raises:
        InputError: there is no base, or not as `options` say.
    """
    tokenizer = load_tokenizer(options)
    model = load_trainable(options, None)
    partial = partial_directory(out)
    save_model(model, partial)
    tokenizer.save_pretrained(partial)
    publish(partial, out)
    return summary("weights", {"untrained, on": options.base})


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of `torch.save`, by name, each in memory of its own.

    `weights_only` lets a pickle make tensors and plain values, and nothing else.

    Raises:
        InputError: the file is none of tensors, is damaged, or would be far larger in memory.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            # Read in place, a file's own sums are not checked.
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"{bad!r} is damaged")
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        value = value.get("state_dict", value)
        tensors = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if not tensors or size > max(2**26, _LARGEST_RATIO * path.stat().st_size):
            raise ValueError("there are none, or more than the file has numbers")
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
    parts = re.search(r"-\d+-of-0*(\d+)\.", paths[0].name)
    if parts is not None and int(parts[1]) != len(paths):
        raise InputError(f"{weights}: expected {parts[1]} parts, there are {len(paths)}")
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


def _write_adapter_config(path: Path, out: Path) -> None:
    """The adapter's configuration in the words of the PEFT that is installed.

    A key that a newer PEFT has and this one does not know is left out if it is null, false or
    empty; otherwise it would be another adapter.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    config: Any = read_json(path)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise InputError(f"{path}, field peft_type: expected a kind of adapter, got {kind!r}")
    fields = dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])  # type: ignore[index]
    known = {field.name for field in fields}
    for key, value in config.items():
        if key not in known and value:
            raise InputError(
                f"{path}, field {key}: the installed PEFT does not know it, and it is set to "
                f"{json.dumps(value)[:80]}"
            )
    write_json(out / "adapter_config.json", {key: v for key, v in config.items() if key in known})
