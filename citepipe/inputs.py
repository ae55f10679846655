"""What a configuration names that no stage of the workflow makes: files, folders, addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from citepipe.config import Config
from citepipe.errors import InputError
from citepipe.sources import folder_of, is_remote, key_of, local_path, split

Kind = Literal["file", "folder"]
GGUF = ".gguf"

_NAMED: dict[str, Kind] = {
    "data.train.*": "file",
    "data.dev.*": "file",
    "data.test.*": "file",
    "retrieval.passages.*": "folder",
    "prompt.files.*": "file",
    "teacher.prompt.files.*": "file",
    "model.base": "folder",
    "systems.*.adapter": "folder",
    "systems.*.outputs.*": "file",
    "systems.*.prompt.files.*": "file",
}
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


def absent_inputs(config: Config) -> list[str]:
    """A line for each file that a configuration names and that is neither there nor made."""
    values = config.model_dump(mode="json", by_alias=True)
    owner, *name = Path(config.model.base if config.model else "").parts or ("",)
    # A name on the hub, unless its first part is a folder here.
    is_hub = len(name) == 1 and owner not in (".", "..", "/") and not Path(owner).is_dir()
    return [
        f"{place}: no file {holder[key]} below {Path.cwd()} "
        "(the configuration file says where its inputs come from)"
        for pattern in _NAMED
        for place, holder, key in _named(values, pattern)
        if not (is_hub and place == "model.base")
        and not Path(holder[key]).is_relative_to(config.results)
        and not Path(holder[key]).exists()
    ]


def localise(config: Config) -> tuple[Config, dict[str, Source]]:
    """Put in place of every address the path where the workflow will have what it leads to.

    A base in GGUF, wherever it is, is such an address: its folder has the model made of it.

    Returns:
        the configuration with paths only; what is to be fetched, by the folder where it will lie.

    Raises:
        InputError: an address that cannot be read; with the key that names it.
    """
    values = config.model_dump(mode="json", by_alias=True)
    root = f"{config.results}/sources"
    sources: dict[str, Source] = {}
    whole: set[str] = set()
    named = [
        (kind, *found) for pattern, kind in _NAMED.items() for found in _named(values, pattern)
    ]
    for kind, place, holder, key in named:
        value = holder[key]
        plain, _ = split(value)
        known = {k: v for k, v in config.sources.sha256.items() if split(k)[0] == plain}
        if place == "model.base" and value.endswith(GGUF):
            holder[key] = f"{root}/{key_of(value)}-{Path(value).stem}"
            sources[holder[key]] = Source(value, sha256=known)
        if not is_remote(holder[key]):
            names = value.encode(errors="replace").split(b"/")
            if max(map(len, names)) > 255 or len(value) > 4000:
                raise InputError(
                    f"{place}: expected a path, an address or a name, got {value[:60]!r}"
                )
            continue
        try:
            folder, path = folder_of(value, root), local_path(value, root, kind)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        source = sources.setdefault(folder, Source(plain, sha256=known))
        member = path.removeprefix(folder).strip("/")
        if not member:
            whole.add(folder)
        elif member not in source.members:
            source.members.append(member)
        holder[key] = path
    for folder in whole:
        sources[folder].members = []
    return (Config.model_validate(values) if sources else config), sources


def _named(values: Any, pattern: str, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Of each text that a pattern leads to its place, what holds it, and its key there."""
    first, _, rest = pattern.partition(".")
    items = values.items() if isinstance(values, Mapping) else enumerate(values or ())
    for key, value in list(items):
        if first in ("*", key) and rest and not isinstance(value, str):
            yield from _named(value, rest, f"{place}{key}.")
        elif first in ("*", key) and not rest and isinstance(value, str):
            yield f"{place}{key}", values, key
