"""From an address to a folder with what it leads to, through the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.options.sources import SourcesOptions
from citepipe.progress import summary
from citepipe.sources import drive, hub
from citepipe.sources.address import Drive, Hub, Web, file_name, parse, split
from citepipe.sources.archive import is_archive, unpack
from citepipe.sources.cache import Blob, Cache, place
from citepipe.sources.download import Downloader, Got

_SHOWN = 10


class DriveBases(NamedTuple):
    """Where Google Drive is."""

    downloads: str = drive.DOWNLOADS
    pages: str = drive.PAGES


class Fetcher:
    """Fetches addresses, each at most once for all runs that share a cache.

    Args:
        options: the cache, and how patiently the network is asked.
        downloader: asks it; by default one of its own.
        drive_bases: where Google Drive is.
    """

    def __init__(
        self,
        options: SourcesOptions,
        downloader: Downloader | None = None,
        drive_bases: DriveBases | None = None,
    ) -> None:
        self.options = options
        self.cache = Cache(options)
        self.downloader = downloader or Downloader(options)
        self.drive_bases = drive_bases or DriveBases()
        flags = (os.environ.get(name, "") for name in ("CITEPIPE_OFFLINE", "HF_HUB_OFFLINE"))
        self.is_offline = options.offline or any(f.lower() in ("1", "true", "yes") for f in flags)

    def fetch(self, address: str, out: Path, members: Collection[str] = ()) -> str:
        """Make a folder of what an address leads to: a file, an unpacked archive, many files.

        Args:
            address: its `#member` counts as one of the members.
            out: the folder; it appears when it is complete.
            members: what is wanted of it, as paths below the folder; none means all. A single file
                gets the name of its only member.

        Returns:
            the line that sums it up.

        Raises:
            InputError: it cannot be had, or a member is not among it.
        """
        plain, member = split(address)
        wanted = list(dict.fromkeys([*members, *([member] if member else [])]))
        place_there = parse(plain)
        partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.cache.held(plain):
                if isinstance(place_there, Drive) and place_there.is_folder:
                    count = self._drive_folder(plain, place_there, partial, wanted)
                elif isinstance(place_there, Hub) and not place_there.path:
                    count = self._snapshot(plain, place_there, partial, wanted)
                else:
                    count = self._single(plain, place_there, partial, wanted)
            _check_members(plain, partial, wanted)
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            self.downloader.close()
        return summary("fetch", {"files": count, "of": plain})

    def _single(
        self, address: str, source: Web | Drive | Hub, out: Path, wanted: Collection[str]
    ) -> int:
        blob = self._blob(address, source)
        if is_archive(blob.path):
            return unpack(blob.path, out, address)
        names = list(wanted) or [file_name(source)]
        if len(names) > 1:
            raise InputError(
                f"{address}: a single file, from which {len(names)} are wanted: "
                f"{', '.join(names[:_SHOWN])}"
            )
        place(blob, out / names[0])
        return 1

    def _drive_folder(self, address: str, source: Drive, out: Path, wanted: Collection[str]) -> int:
        def listed() -> dict[str, str]:
            pages = self.drive_bases.pages
            found = drive.files_of(self.downloader, source, address, pages)
            return {path: file.id for path, file in found.items()}

        return self._many(
            address, out, wanted, listed, lambda path, key: Drive(key, False, Path(path).name)
        )

    def _snapshot(self, address: str, source: Hub, out: Path, wanted: Collection[str]) -> int:
        def listed() -> dict[str, str]:
            there, names = hub.files_of(self.downloader, source)
            return dict.fromkeys(names, there.revision)

        return self._many(
            address,
            out,
            wanted,
            listed,
            lambda path, commit: Hub(source.kind, source.repository, commit, path),
        )

    def _many(
        self,
        address: str,
        out: Path,
        wanted: Collection[str],
        listed: Callable[[], dict[str, str]],
        source_of: Callable[[str, str], Drive | Hub],
    ) -> int:
        """Fetch the wanted files of a folder, or all of them.

        Args:
            address: of the folder.
            out: where the files go.
            wanted: paths, of files or of folders.
            listed: asks for the list: a key that leads to each file, by its path.
            source_of: from path and key to what is asked for.
        """
        known = {path: self._known(f"{address}#{path}", Path(path).name) for path in wanted}
        if wanted and all(known.values()):
            for path, blob in known.items():
                assert blob is not None
                place(blob, out / path)
            return len(known)
        files = self._list(address, listed, [path for path in known if known[path] is None])
        chosen = [
            path
            for path in files
            if not wanted or any(path == w or path.startswith(f"{w}/") for w in wanted)
        ]
        missing = [w for w in wanted if not any(p == w or p.startswith(f"{w}/") for p in chosen)]
        if missing:
            raise InputError(_lacking(address, missing[0], list(files)))
        for path in chosen:
            blob = self._blob(f"{address}#{path}", source_of(path, files[path]))
            place(blob, out / path)
        return len(chosen)

    def _list(
        self, address: str, listed: Callable[[], dict[str, str]], wanted: Sequence[str]
    ) -> Mapping[str, str]:
        """The files of a folder; as they were when it was first asked for."""
        known = self.cache.find(address)
        if known is None:
            if self.is_offline:
                by_hand = [self.cache.by_hand(f"{address}#{w}", Path(w).name) for w in wanted]
                where = f"put {wanted[0]} at {by_hand[0]}" if wanted else "fetch it where there is"
                raise InputError(
                    f"{address}: what is in it is not known, and this is offline: {where}"
                    + ("" if wanted else f" a network, and bring {self.cache.root} here")
                )
            partial = self.cache.partial(address)
            write_json(partial, listed())
            known = self.cache.take(partial, address, "list.json")
        files = read_json(known.path)
        if not isinstance(files, dict) or not all(map(_is_inside, files)):
            raise InputError(f"{known.path}: expected a list of files, remove it to fetch it anew")
        return files

    def _known(self, address: str, name: str) -> Blob | None:
        """What an address led to before, or what somebody has put there by hand."""
        expected = self.options.sha256.get(address)
        return self.cache.find(address, expected) or self.cache.adopt(address, name, expected)

    def _blob(self, address: str, source: Web | Drive | Hub) -> Blob:
        """What a file's address leads to, from the cache, by hand or from the network."""
        expected = self.options.sha256.get(address)
        name = file_name(source)
        found = self._known(address, name)
        if found is not None:
            return found
        by_hand = self.cache.by_hand(address, name)
        if self.is_offline:
            raise InputError(f"{address}: not here, and this is offline: put the file at {by_hand}")
        partial = self.cache.partial(address)
        try:
            got = self._download(address, source, partial)
        except InputError as error:
            raise InputError(f"{error}; got in another way, it may lie at {by_hand}") from None
        if got.sha256 is not None and expected not in (None, got.sha256):
            raise InputError(
                f"{address}: expected content of sha256 {expected}, its host says {got.sha256}"
            )
        return self.cache.take(partial, address, got.name or name, expected or got.sha256)

    def _download(self, address: str, source: Web | Drive | Hub, partial: Path) -> Got:
        if isinstance(source, Web):
            return self.downloader.file(source.url, partial, address)
        if isinstance(source, Hub):
            url, headers = hub.file_url(source, source.path), hub.headers()
            try:
                return self.downloader.file(url, partial, address, headers)
            except InputError as error:
                hint = "" if headers or "login" not in str(error) else ", HF_TOKEN is not set"
                raise InputError(f"{error}{hint}") from None
        base = self.drive_bases.downloads
        return self.downloader.file(
            drive.file_url(source, base),
            partial,
            address,
            on_page=lambda page: drive.leads_on(address, page, base),
        )


def _is_inside(path: object) -> bool:
    parts = PurePosixPath(str(path)).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts


def _check_members(address: str, folder: Path, wanted: Collection[str]) -> None:
    for member in wanted:
        if not (folder / member).exists():
            there = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            raise InputError(_lacking(address, member, there))


def _lacking(address: str, member: str, there: list[str]) -> str:
    shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" * (len(there) > _SHOWN))
    return f"{address}: expected {member} in it, it has {shown} (name one behind '#')"
