"""Somebody's released weights, made into a directory of safetensors that loads.

The authors' zips hold an adapter in the folder itself (`sft/train.py`) or, after PPO, in
`best_peft/policy_adapter` beside that of the value model (`fgrlhf/ppo.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.models.load import check_trained, load_tokenizer, load_trainable
from citepipe.models.save import publish, save_model, system_errors
from citepipe.models.torch_file import read_tensors
from citepipe.options import ModelOptions
from citepipe.progress import summary
from citepipe.sources import is_archive, link, unpack

_POLICY = Path("best_peft") / "policy_adapter"
_OF_VALUES = re.compile(r"(^|_)value(_|$)")
_PART = re.compile(r"-\d+-of-0*(\d+)\.")
_DEEPEST = 8
_SHOWN = 8
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
_WHOLE = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
)
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "*.model", "vocab*")
_OTHERS = ("config.json", "generation_config.json", "merges.txt", "chat_template*")


def find_weights(directory: Path) -> Path:
    """The folder of the adapter or model in an unpacked archive.

    It is the folder itself, its `best_peft/policy_adapter`, or the only one of these in the folders
    below; the adapter of a value model is none that answers.

    Raises:
        InputError: there is none, or there are several.
    """
    for folder in (directory, directory / _POLICY):
        if _has_weights(folder):
            return folder
    found = [folder for folder in _folders(directory) if _has_weights(folder)]
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
    names = ", ".join(str(folder.relative_to(directory)) for folder in sorted(chosen)[:_SHOWN])
    raise InputError(f"{directory}: expected one adapter or model, there are several: {names}")


def prepare(source: Path, out: Path) -> str:
    """Make a directory of safetensors of somebody's weights.

    Files that can stay as they are become hard links where that works; pickled weights are read
    without unpickling and written as safetensors. `released.json` says what was what.

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
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _unpacked(source, partial.with_name(f"{partial.name}.unpacked")) as folder:
            weights = find_weights(folder)
            partial.mkdir(parents=True)
            with system_errors(partial):
                taken = _take(weights, partial)
                if _is_adapter(weights):
                    _write_adapter_config(weights / "adapter_config.json", partial)
                record = {
                    "source": str(source),
                    "found": str(weights.relative_to(folder)),
                    "files": [dataclasses.asdict(file) for file in taken],
                }
                write_json(partial / "released.json", record)
            try:
                check_trained(partial)
            except InputError as error:
                raise InputError(str(error).replace(str(partial), str(weights))) from None
        publish(partial, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    converted = sum(file.converted for file in taken)
    kind = "adapter" if (out / "adapter_config.json").exists() else "model"
    return summary("weights", {"kind": kind, "files": len(taken), "converted": converted})


def write_untrained(options: ModelOptions, out: Path) -> str:
    """Write an adapter that adds nothing (or the base's weights, where all are trained).

    With it the base as it is goes through every stage that a trained model does.

    Raises:
        InputError: there is no base, or not as `options` say.
    """
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        tokenizer = load_tokenizer(options)
        save_model(load_trainable(options, None), partial)
        tokenizer.save_pretrained(partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary("weights", {"untrained, on": options.base})


@dataclasses.dataclass(frozen=True, slots=True)
class _Taken:
    """A file of weights that was taken over."""

    name: str
    sha256: str
    converted: bool


@contextmanager
def _unpacked(source: Path, room: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    if not is_archive(source):
        raise InputError(f"{source}: expected a folder, or a zip or tar archive of one")
    try:
        unpack(source, room)
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _folders(directory: Path, depth: int = 0) -> Iterator[Path]:
    if depth < _DEEPEST and directory.is_dir():
        for path in sorted(directory.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield path
                yield from _folders(path, depth + 1)


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _weights_of(folder: Path) -> list[Path]:
    """The files of weights: safetensors if there are any, else pickles."""
    patterns = _ADAPTER if _is_adapter(folder) else _WHOLE
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found
    return []


def _has_weights(folder: Path) -> bool:
    is_value_model = _OF_VALUES.search(folder.name) is not None
    configured = _is_adapter(folder) or (folder / "config.json").is_file()
    return configured and not is_value_model and bool(_weights_of(folder))


def _take(weights: Path, out: Path) -> list[_Taken]:
    """Put the weights into `out`, as safetensors, with what belongs to them."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    paths = _weights_of(weights)
    _check_parts(weights, paths)
    taken: list[_Taken] = []
    shards: dict[str, str] = {}
    for path in paths:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        pickled = path.suffix != ".safetensors"
        # One name for all of a model's files, in parts or not: that of its safetensors.
        name = path.name
        if pickled:
            name = name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"
            tensors = {key: tensor.contiguous() for key, tensor in read_tensors(path).items()}
            save_file(tensors, out / name, metadata={"format": "pt"})
            del tensors
        else:
            link(path, out / name)
        taken.append(_Taken(path.name, digest, pickled))
        try:
            with safe_open(out / name, framework="np") as opened:
                shards |= dict.fromkeys(opened.keys(), name)
        except SafetensorError as error:
            raise InputError(f"{path}: expected safetensors, {error}") from None
    if len(paths) > 1:
        size = sum((out / name).stat().st_size for name in set(shards.values()))
        index = {"metadata": {"total_size": size}, "weight_map": shards}
        write_json(out / "model.safetensors.index.json", index)
    for pattern in (*_TOKENIZER, *_OTHERS):
        for path in sorted(weights.glob(pattern)):
            if path.is_file() and not (out / path.name).exists():
                link(path, out / path.name)
    return taken


def _check_parts(weights: Path, paths: list[Path]) -> None:
    """Check that a model in parts is whole.

    Raises:
        InputError: a part is missing, by the parts' names or by the index that came with them.
    """
    for path in paths:
        of = _PART.search(path.name)
        if of is not None and int(of[1]) != len(paths):
            raise InputError(f"{weights}: expected {int(of[1])} parts, there are {len(paths)}")
    stem = "model.safetensors" if paths[0].suffix == ".safetensors" else "pytorch_model.bin"
    index = weights / f"{stem}.index.json"
    if len(paths) < 2 or not index.is_file():
        return
    value = read_json(index)
    listed = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(s, str) for s in listed.values()):
        raise InputError(f"{index}: expected weight_map, the file of each tensor")
    absent = sorted(set(listed.values()) - {path.name for path in paths})
    if absent:
        raise InputError(f"{index}: {ascii(absent[0])[:80]} is not there")


def _write_adapter_config(path: Path, out: Path) -> None:
    """The adapter's configuration in the words of the PEFT that is installed.

    A key that a newer PEFT has and this one does not know is left out if it is null, false or
    empty; otherwise it would be another adapter.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    config: Any = read_json(path)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in set(PeftType):
        raise InputError(f"{path}, field peft_type: expected a kind of adapter, got {kind!r}")
    known = {
        field.name for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)])
    }
    unknown = {key: value for key, value in config.items() if key not in known and value}
    if unknown:
        key, value = next(iter(unknown.items()))
        raise InputError(
            f"{path}, field {key}: the installed PEFT does not know it, and it is set to "
            f"{json.dumps(value)[:80]}"
        )
    write_json(out / "adapter_config.json", {key: v for key, v in config.items() if key in known})
