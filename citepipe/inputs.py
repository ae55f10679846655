"""What a configuration names that no stage of the workflow makes: files, folders, addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from citepipe.config import Config
from citepipe.errors import InputError
from citepipe.sources import folder_of, is_remote, local_path, split

Kind = Literal["file", "folder"]
Keys = tuple[str | int, ...]

_NAMED: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("data", "train", "*"), "file"),
    (("data", "dev", "*"), "file"),
    (("data", "test", "*"), "file"),
    (("retrieval", "passages", "*"), "folder"),
    (("prompt", "files", "*"), "file"),
    (("teacher", "prompt", "files", "*"), "file"),
    (("model", "base"), "folder"),
    (("systems", "*", "adapter"), "folder"),
    (("systems", "*", "outputs", "*"), "file"),
)
"""The keys that may name a path or an address, `*` standing for any key or place in a list."""


@dataclass(slots=True)
class Source:
    """What an address leads to.

    Attributes:
        address: without its `#member`.
        members: what is wanted of it, as paths below its folder; all of it if there are none.
        sha256: the digests that are known of it or of files in it, by address.
    """

    address: str
    members: list[str] = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)


def named_inputs(config: Config) -> dict[str, list[str]]:
    """The paths and addresses that a configuration names, by the key that names them."""
    found: dict[str, list[str]] = {}
    for keys, _, value in _walk(config.model_dump(mode="json", by_alias=True)):
        shown = ".".join(key for key in keys if isinstance(key, str))
        found.setdefault(shown, []).append(value)
    return found


def absent_inputs(config: Config) -> list[str]:
    """A line for each file that a configuration names and that is neither there nor made."""
    named = named_inputs(config)
    if config.model and len(Path(config.model.base).parts) == 2:
        # A name on the hub, unless its first part is a folder here.
        owner = Path(config.model.base).parts[0]
        if owner not in (".", "..", "/") and not Path(owner).is_dir():
            del named["model.base"]
    return [
        f"{key}: no file {path} below {Path.cwd()} "
        "(the configuration file says where its inputs come from)"
        for key, paths in named.items()
        for path in paths
        if not Path(path).is_relative_to(config.results) and not Path(path).exists()
    ]


def localise(config: Config) -> tuple[Config, dict[str, Source]]:
    """Put in place of every address the path where the workflow will have what it leads to.

    Returns:
        the configuration with paths only; what is to be fetched, by the folder where it will lie.

    Raises:
        InputError: an address that cannot be read; with the key that names it.
    """
    values = config.model_dump(mode="json", by_alias=True)
    root = f"{config.results}/sources"
    sources: dict[str, Source] = {}
    whole: set[str] = set()
    for keys, kind, value in list(_walk(values)):
        if not is_remote(value):
            continue
        try:
            folder, path = folder_of(value, root), local_path(value, root, kind)
        except InputError as error:
            raise InputError(f"{'.'.join(map(str, keys))}: {error}") from None
        plain, _ = split(value)
        known = {k: v for k, v in config.sources.sha256.items() if split(k)[0] == plain}
        source = sources.setdefault(folder, Source(plain, sha256=known))
        member = path.removeprefix(folder).strip("/")
        if not member:
            whole.add(folder)
        elif member not in source.members:
            source.members.append(member)
        _put(values, keys, path)
    for folder in whole:
        sources[folder].members = []
    return (Config.model_validate(values) if sources else config), sources


def _walk(values: dict[str, Any]) -> Iterator[tuple[Keys, Kind, str]]:
    for pattern, kind in _NAMED:
        for keys, value in _matching(values, pattern, ()):
            yield keys, kind, value


def _matching(value: Any, pattern: tuple[str, ...], keys: Keys) -> Iterator[tuple[Keys, str]]:
    if not pattern:
        if isinstance(value, str):
            yield keys, value
        return
    children: Mapping[Any, Any] = {}
    if isinstance(value, list):
        children = dict(enumerate(value))
    elif isinstance(value, Mapping):
        children = value
    for key, child in children.items():
        if pattern[0] in ("*", key):
            yield from _matching(child, pattern[1:], (*keys, key))


def _put(values: Any, keys: Keys, value: str) -> None:
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = value
