"""From an address to a folder with what it leads to, through the cache."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from citepipe.data.files import read_json, write_json
from citepipe.errors import InputError
from citepipe.options import SourcesOptions
from citepipe.progress import summary
from citepipe.sources import drive, hub
from citepipe.sources.address import Drive, Hub, Web, check_member, file_name, parse, split
from citepipe.sources.archive import DamagedError, is_archive, is_named_archive, unpack
from citepipe.sources.cache import Blob, Cache, place
from citepipe.sources.download import Downloader

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
            out: the folder, not there yet; it appears when it is complete.
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
        for one in wanted:
            check_member(plain, one)
        partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
        try:
            with self.cache.held(plain):
                _begin(out)
                if isinstance(place_there, Drive) and place_there.is_folder:
                    count = self._drive_folder(plain, place_there, partial, wanted)
                elif isinstance(place_there, Hub) and not place_there.path:
                    count = self._snapshot(plain, place_there, partial, wanted)
                else:
                    count = self._single(plain, place_there, partial, wanted)
                _check_members(plain, partial, wanted)
                partial.rename(out)
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise InputError(f"{error.filename or out}: {said}") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            self.downloader.close()
        return summary("fetch", {"files": count, "of": plain})

    def _single(
        self, address: str, source: Web | Drive | Hub, out: Path, wanted: Collection[str]
    ) -> int:
        blob = self._blob(address, source, self._digest(address))
        try:
            if is_archive(blob.path):
                return unpack(blob.path, out, address)
            if is_named_archive(file_name(source)):
                raise DamagedError(f"{address}: expected an archive, by its name")
        except DamagedError as error:
            # It may have been damaged on the way.
            self.cache.forget(address)
            raise InputError(f"{error}; the next run fetches it anew") from None
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
            return {path: f"{file.id} {file.key}".strip() for path, file in found.items()}

        def file(path: str, found: str) -> Drive:
            identity, _, key = found.partition(" ")
            return Drive(identity, False, Path(path).name, key)

        return self._many(address, source, out, wanted, listed, file)

    def _snapshot(self, address: str, source: Hub, out: Path, wanted: Collection[str]) -> int:
        def listed() -> dict[str, str]:
            there, names = hub.files_of(self.downloader, source)
            return dict.fromkeys(names, there.revision)

        def file(path: str, commit: str) -> Hub:
            return Hub(source.kind, source.repository, commit, path)

        return self._many(address, source, out, wanted, listed, file)

    def _many(
        self,
        address: str,
        source: Drive | Hub,
        out: Path,
        wanted: Collection[str],
        listed: Callable[[], dict[str, str]],
        source_of: Callable[[str, str], Drive | Hub],
    ) -> int:
        """Fetch the wanted files of a folder, or all of them.

        Args:
            address: of the folder.
            source: what it leads to.
            out: where the files go.
            wanted: paths, of files or of folders.
            listed: asks for the list: a key that leads to each file, by its path.
            source_of: from path and key to what is asked for.
        """
        if address in self.options.sha256:
            raise InputError(
                f"sources.sha256 {address}: a folder; expected ADDRESS#FILE, of a file"
            )
        missing: dict[str, Path] = {}
        for path in wanted or [""]:
            inner = f"{address}#{path}" if path else address
            name = file_name(source_of(path, "") if path else source)
            by_hand = self.cache.by_hand(inner, name)
            if by_hand.is_dir():
                shutil.copytree(by_hand, out / path, dirs_exist_ok=True)
            elif path and (blob := self._known(inner, name, self._digest(address, path))):
                place(blob, out / path)
            else:
                missing[path] = by_hand
        if missing:
            files = self._list(address, listed, missing)
            absent = [path for path in missing if not any(_is_below(f, path) for f in files)]
            if absent:
                raise InputError(_lacking(address, absent[0], list(files)))
            for path, key in files.items():
                if any(_is_below(path, m) for m in missing) and not (out / path).exists():
                    digest = self._digest(address, path)
                    place(self._blob(f"{address}#{path}", source_of(path, key), digest), out / path)
        return sum(path.is_file() for path in out.rglob("*"))

    def _list(
        self, address: str, listed: Callable[[], dict[str, str]], by_hand: Mapping[str, Path]
    ) -> Mapping[str, str]:
        """The files of a folder; as they were when it was first asked for.

        Args:
            address: of the folder.
            listed: asks for the list.
            by_hand: where what is wanted of it may be put; with an empty path all of it.
        """
        known = self.cache.find(address)
        if known is None:
            path, where = next(iter(by_hand.items()))
            wanted = f"put {path} at" if path else "put its files into the folder"
            if self.is_offline:
                raise InputError(f"{address}: not here, and this is offline: {wanted} {where}")
            partial = self.cache.partial(address)
            try:
                write_json(partial, listed())
            except InputError as error:
                raise InputError(f"{error}; got in another way, {wanted} {where}") from None
            known = self.cache.take(partial, address, "list.json")
        files = read_json(known.path)
        if not isinstance(files, dict) or not all(map(_is_inside, files)):
            raise InputError(f"{known.path}: expected a list of files, remove it to fetch it anew")
        return files

    def _digest(self, address: str, path: str | None = None) -> str | None:
        """The digest that is known of a file: one in a folder, or with no path the address's own,
        which may stand there with any member."""
        digests = {
            digest
            for known, digest in self.options.sha256.items()
            if split(known)[0] == address and path in (None, split(known)[1])
        }
        if len(digests) > 1:
            raise InputError(f"sources.sha256 {address}: expected one digest of a single file")
        return digests.pop() if digests else None

    def _known(self, address: str, name: str, expected: str | None) -> Blob | None:
        """What an address led to before, or what somebody has put there by hand."""
        return self.cache.find(address, expected) or self.cache.adopt(address, name, expected)

    def _blob(self, address: str, source: Web | Drive | Hub, expected: str | None) -> Blob:
        """What a file's address leads to, from the cache, by hand or from the network."""
        name = file_name(source)
        found = self._known(address, name, expected)
        if found is not None:
            return found
        by_hand = self.cache.by_hand(address, name)
        if self.is_offline:
            raise InputError(f"{address}: not here, and this is offline: put the file at {by_hand}")
        partial = self.cache.partial(address)
        try:
            said = self._download(address, source, partial)
        except InputError as error:
            raise InputError(f"{error}; got in another way, it may lie at {by_hand}") from None
        if said is not None and expected not in (None, said):
            partial.unlink()
            raise InputError(
                f"{address}: expected content of sha256 {expected}, its host says {said}"
            )
        return self.cache.take(partial, address, name, expected or said)

    def _download(self, address: str, source: Web | Drive | Hub, partial: Path) -> str | None:
        if isinstance(source, Web):
            return self.downloader.file(source.url, partial, address)
        if isinstance(source, Hub):
            url = hub.file_url(source, source.path)
            with hub.token_wanted():
                return self.downloader.file(url, partial, address, hub.headers())
        base = self.drive_bases.downloads
        return self.downloader.file(
            drive.file_url(source, base),
            partial,
            address,
            on_page=lambda page: drive.leads_on(address, page, base),
        )


def _begin(out: Path) -> None:
    """Make room for a folder, and remove what killed runs have left of it; no other run that
    fetches the same is under way."""
    if out.exists():
        raise InputError(f"{out}: is there already; remove it to have it fetched")
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def _is_below(path: str, folder: str) -> bool:
    """Whether a file is in a folder or is what is called so; with no folder any is."""
    return not folder or path == folder or path.startswith(f"{folder}/")


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
    shown = "".join(c if c.isprintable() else "?" for c in shown)
    return f"{address}: expected {member} in it, it has {shown} (name one behind '#')"
