"""Files and folders at the Hugging Face hub, at Google Drive and on the web: address to local path.

What was fetched is kept for all runs in one folder, an entry per address. The workflow reads
addresses before it knows what it will run: libraries that ask the network are imported late.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from citepipe.errors import InputError
from citepipe.options import SourcesOptions
from citepipe.progress import say, summary

_DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_OTHER_FRAMEWORKS = {".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".gguf"}
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
_LARGEST_RATIO = 200
"""Of unpacked to packed bytes; text packs to a tenth, weights hardly at all."""
_DAMAGES: tuple[type[Exception], ...] = (tarfile.TarError, zipfile.BadZipFile, zlib.error)
_DAMAGES += (LZMAError, EOFError, OSError, RuntimeError, ValueError, OverflowError)


class Place(NamedTuple):
    """What an address leads to: a URL, an id at Drive, or a repository at the hub."""

    kind: Literal["web", "drive file", "drive folder", "model", "dataset"]
    target: str
    name: str = "file"
    revision: str = ""
    path: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is many files."""
        return self.kind == "drive folder" or (self.kind in ("model", "dataset") and not self.path)


def is_remote(text: str) -> bool:
    """Whether a path in a configuration is an address."""
    return re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE) is not None


def split(address: str) -> tuple[str, str]:
    """An address without its `#member`, and the member; empty if there is none."""
    plain, _, member = address.partition("#")
    return plain, unquote(member).strip("/")


def parse(address: str) -> Place:
    """What an address leads to, its member aside; InputError if it or its member cannot be read."""
    plain, member = split(address)
    if member:
        _check_member(plain, member)
    scheme, _, rest = plain.partition("://")
    if scheme.lower() == "hf":
        form = r"(datasets/|models/)?+([\w.-]+/[\w.-]+)(?:@([\w.%-]+))?((?:/(?!\.\.(?:/|$))[^/]*)*)"
        found = re.fullmatch(form, rest, re.ASCII)
        if not found or not rest.isprintable():
            raise InputError(
                f"{plain}: expected hf://datasets/OWNER/NAME[@REVISION]/PATH or "
                "hf://OWNER/NAME[@REVISION][/PATH]"
            )
        scope, repository, revision, path = found.groups(default="")
        path = re.sub("/+", "/", path).strip("/")
        kind: Literal["dataset", "model"] = "dataset" if scope == "datasets/" else "model"
        return Place(kind, repository, _fit(path or repository), unquote(revision) or "main", path)
    try:
        parts = urlsplit(plain)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{address}: expected a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        # The address is written into logs and results.
        raise InputError(f"address at {host}: expected a URL without user and password")
    if not host or scheme not in ("http", "https") or not plain.isprintable() or " " in plain:
        raise InputError(f"{address}: expected an address such as https://host/file or hf://...")
    if host not in _DRIVE_HOSTS:
        return Place("web", plain, _fit(unquote(parts.path)))
    link = re.search(r"/(file/d|folders)/([^/?]+)", parts.path)
    identity = link[2] if link else parse_qs(parts.query).get("id", [""])[0]
    if not re.fullmatch("[A-Za-z0-9_-]{10,}", identity):
        raise InputError(
            f"{address}: expected a link to a file (https://drive.google.com/file/d/ID) or a "
            "folder (https://drive.google.com/drive/folders/ID)"
        )
    return Place("drive folder" if "folder" in parts.path.lower() else "drive file", identity)


def _check_member(address: str, member: str) -> None:
    """Raises InputError unless a member is a path of printable characters below a folder."""
    parts = PurePosixPath(member).parts
    if not parts or parts[0] == "/" or ".." in parts or not member.isprintable():
        raise InputError(f"{address}: expected a path inside of it behind '#', got {member!r}")


def folder_of(address: str, root: str) -> str:
    """The folder below `root` where a run has what an address, its member aside, leads to."""
    place = parse(address)
    stem = "drive" if place.kind.startswith("drive") else place.name.partition(".")[0].rstrip("-")
    return f"{root}/{key_of(split(address)[0])}-{stem[:40]}"


def local_path(address: str, root: str, kind: Literal["file", "folder"]) -> str:
    """Where a run has the file or folder that an address names, below `root`; without a member it
    means a file or all that it leads to, as `kind` says."""
    folder, member = folder_of(address, root), split(address)[1]
    if member:
        return f"{folder}/{member}"
    return folder if kind == "folder" else f"{folder}/{parse(address).name}"


def cache_path(address: str, options: SourcesOptions) -> Path:
    """Where the file or folder at an address is kept for all runs, and may be put by hand; the
    member counts only of folders: archives are kept packed."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(options.cache or Path(home) / "citepipe" / "sources").expanduser()
    (plain, member), place = split(address), parse(address)
    if member and place.is_folder:
        return root / f"{key_of(f'{plain}#{member}')}-{PurePosixPath(member).name}"
    return root / f"{key_of(plain)}-{place.name}"


def key_of(address: str) -> str:
    """What an address is called in the names of files."""
    return hashlib.sha256(address.encode()).hexdigest()[:8]


def _fit(path: str) -> str:
    """The last part of a path, made fit for the name of a file."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.rpartition("/")[2]).strip("-.")
    return name[-128:] or "file"


def fetch(address: str, out: Path, options: SourcesOptions, members: Collection[str] = ()) -> str:
    """Make a folder of what an address leads to, and return a line that sums it up.

    Args:
        address: of a file, an archive or many files; its `#member` counts as one of the members.
        out: the folder, not there yet; it appears when it is complete.
        options: the cache, known digests, and how patiently the network is used.
        members: what is wanted, as paths below the folder; none means all. A single file gets the
            name of its only member.

    Raises:
        InputError: it cannot be had, has another digest, or has no such member.
    """
    (plain, member), place = split(address), parse(address)
    wanted = list(dict.fromkeys([*members, *([member] if member else [])]))
    for path in wanted:
        _check_member(plain, path)
    digests = {split(k)[1]: v for k, v in options.sha256.items() if split(k)[0] == plain}
    if ("" in digests) if place.is_folder else len(set(digests.values())) > 1:
        raise InputError(f"sources.sha256 {plain}: expected one of a file, or ADDRESS#FILE of each")
    if out.exists():
        raise InputError(f"{out}: is there already; remove it to have it fetched")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for path in (wanted or [""]) if place.is_folder else [""]:
            entry = _entry(plain, path, place, options, resume=bool(digests))
            if place.is_folder:
                link(entry, partial / path)
        for path, digest in digests.items():
            file = partial / path if place.is_folder else entry
            if file.is_file() and (found := sha256_of(file)) != digest:
                raise InputError(f"{plain}: expected content of sha256 {digest}, got {found}")
        if not place.is_folder:
            if is_archive(entry):
                unpack(entry, partial)
            elif entry.name.lower().endswith(_ARCHIVES):
                raise InputError(
                    f"{plain}: expected an archive; remove {entry} to have it fetched anew"
                )
            elif len(wanted) > 1:
                names = ", ".join(wanted)
                raise InputError(f"{plain}: expected one name, it is a single file: {names}")
            else:
                link(entry, partial / (wanted or [place.name])[0])
        files = sorted(str(p.relative_to(partial)) for p in partial.rglob("*") if p.is_file())
        for path in wanted:
            _below(plain, path, files)
        partial.rename(out)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary("fetch", {"files": len(files), "of": plain})


def _entry(address: str, path: str, place: Place, options: SourcesOptions, resume: bool) -> Path:
    """What is wanted of an address, in the cache: fetched if it is not there, whole or absent. What
    a killed run has begun is gone on with only if a digest shows that it has not changed since."""
    from filelock import FileLock
    from gdown.exceptions import DownloadError

    entry = cache_path(f"{address}#{path}" if path else address, options)
    put = f"put {path or ('its files' if place.is_folder else 'it')} at {entry}"
    flags = (os.environ.get(name, "") for name in ("CITEPIPE_OFFLINE", "HF_HUB_OFFLINE"))
    is_offline = options.offline or any(flag.lower() in ("1", "true", "yes") for flag in flags)
    if not entry.exists() and is_offline:
        raise InputError(f"{address}: not here, and this is offline: {put}")
    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{entry}.lock"):
        if entry.exists():
            return entry
        room = entry.with_name(f"{entry.name}.partial")
        room.mkdir(exist_ok=True)
        say(f"{address}: fetching {path}".rstrip())
        try:
            found = _download(address, path, place, room, options, resume)
        except (OSError, ValueError, DownloadError) as error:
            line = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(f"{address}: cannot be fetched: {line} (or {put})") from None
        for file in (found, *found.rglob("*")):
            # Runs have it under other names, and must not change it there.
            file.chmod(0o755 if file.is_dir() else 0o444)
        found.rename(entry)
        shutil.rmtree(room, ignore_errors=True)
    return entry


def _download(
    address: str, path: str, place: Place, room: Path, options: SourcesOptions, resume: bool
) -> Path:
    """Fetch a file, or what is wanted of a folder, into `room`; returns where it is."""
    import gdown
    import huggingface_hub as hub

    if place.kind in ("model", "dataset"):
        repository: dict[str, Any] = {"repo_id": place.target, "repo_type": place.kind}
        info: Any = hub.HfApi().repo_info(**repository, revision=place.revision)
        names = [file.rfilename for file in info.siblings or [] if file.rfilename[:4] != ".git"]
        if place.kind == "model" and place.is_folder:
            # The same weights for other programs, and as pickles, stay away.
            has_safe = any(name.endswith(".safetensors") for name in names)
            skipped = _OTHER_FRAMEWORKS | (_PICKLED if has_safe else set())
            names = [name for name in names if PurePosixPath(name).suffix not in skipped]
        wanted = [glob.escape(name) for name in _below(address, path or place.path, names)]
        repository |= {"revision": info.sha, "local_dir": room, "allow_patterns": wanted}
        hub.snapshot_download(**repository)
        shutil.rmtree(room / ".cache", ignore_errors=True)
        return room / (path or place.path)
    settings: dict[str, Any] = {"timeout": options.timeout, "use_cookies": False}
    links: dict[str, Any] = {"file": {"url" if place.kind == "web" else "id": place.target}}
    if place.kind == "drive folder":
        listed: list[Any] = gdown.download_folder(
            id=place.target, output=str(room), skip_download=True, quiet=True, **settings
        )
        links = {file.path: {"id": file.id} for file in listed}
        if len(links) < len(listed):
            raise ValueError("expected each name once, two files have the same")
    settings |= {"retries": options.retries, "resume": resume, "quiet": not sys.stderr.isatty()}
    for name in _below(address, path, list(links)):
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        gdown.download(**links[name], output=str(room / name), **settings)
    if place.kind == "web" and not place.name.endswith((".html", ".htm")):
        with (room / "file").open("rb") as stream:
            if stream.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html")):
                (room / "file").unlink()
                raise ValueError("it sent a web page where a file was expected")
    return room / path if place.is_folder else room / "file"


def _below(address: str, path: str, names: Sequence[str]) -> list[str]:
    """The files that a path is or has below it, all of them for no path; InputError if there are
    none, or one would lie elsewhere."""
    found = [name for name in names if not path or name == path or name.startswith(f"{path}/")]
    if not found:
        shown = ", ".join(map(ascii, names[:10])) + (", ..." if names[10:] else "")
        raise InputError(f"{address}: expected {path or 'files'} in it, it has {shown or 'none'}")
    for name in found:
        _check_member(address, name)
    return found


def sha256_of(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def link(source: Path, target: Path) -> None:
    """Place a file, or all files of a folder, without writing over any: hard links where they work;
    what a symbolic link leads to is copied, so that nothing written later reaches it."""
    if source.is_dir():
        for path in source.iterdir():
            link(path, target / path.name)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            if not source.is_symlink():
                os.link(source, target)
        if not target.exists():
            shutil.copyfile(source, target)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive by its content; checkpoints of torch are zip too."""
    try:
        if not zipfile.is_zipfile(path):
            return tarfile.is_tarfile(path)
        with zipfile.ZipFile(path) as packed:
            return not any(name.endswith("/data.pkl") for name in packed.namelist()[:5])
    except _DAMAGES:
        return False


def unpack(archive: Path, out: Path) -> None:
    """Unpack a zip or tar archive into a folder that is not there yet; InputError if it is damaged,
    has links or paths that lead elsewhere, or would be more than 200 times as large (and than
    64 MiB), or than the disk has room for."""
    is_zip = zipfile.is_zipfile(archive)
    out.mkdir(parents=True)
    room = max(2**26, _LARGEST_RATIO * archive.stat().st_size)
    room = min(room, shutil.disk_usage(out).free)
    try:
        with (zipfile.ZipFile if is_zip else tarfile.open)(archive) as opened:
            packed: Any = opened
            for member in packed.infolist() if is_zip else packed:
                room -= member.file_size if is_zip else member.size
                if room < 0:
                    raise ValueError("it would be larger than it may, or than the disk")
                if not is_zip and not (member.isreg() or member.isdir()):
                    raise ValueError(f"{member.name!r} is a link or device, no file")
        # Paths that lead out of the folder are refused here, in a zip archive passed over.
        shutil.unpack_archive(
            archive, out, "zip" if is_zip else "tar", filter=None if is_zip else "data"
        )
    except _DAMAGES as error:
        shutil.rmtree(out)
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{archive}: expected an archive that unpacks: {line}") from None
