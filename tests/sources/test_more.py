"""Fetching that is killed at any moment, and archives that were changed anywhere."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.options import SourcesOptions
from citepipe.sources.archive import is_archive, unpack
from citepipe.sources.download import Downloader
from citepipe.sources.fetch import DriveBases, Fetcher
from tests.sources.web import Handler, Web

# Each byte tells where it was, so that parts put together wrongly do not look right.
BODY = random.Random(0).randbytes(600_000)
FILES = {"a.json": BODY[:1000], "inner/b.bin": BODY}
ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"
CONTEXT = multiprocessing.get_context("fork")


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


TAR = _tar()


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _fetch(address: str, web_url: str, cache: Path, out: Path) -> None:
    options = SourcesOptions(cache=str(cache), timeout=5.0, retries=2)
    downloader = Downloader(options, lambda seconds: None)
    Fetcher(options, downloader, DriveBases(web_url, web_url)).fetch(address, out)


def _killed(after: int, address: str, web_url: str, cache: Path, out: Path) -> None:
    """Fetch, and kill this process when it next opens, moves, removes ... a file `after` times."""
    left = after + 1

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if arguments and str(cache.parent) in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    _fetch(address, web_url, cache, out)


def _serve(web: Web) -> None:
    """An archive that breaks off in the middle the first time, and a folder of two files."""
    web.files["/a.tar.gz"] = TAR
    web.scripted["/a.tar.gz"] = [lambda handler: handler.send_file(TAR, cut=len(TAR) // 2)]
    links = "".join(
        f'<a href="https://drive.google.com/file/d/{ID}{n}/view">{n}.bin</a>' for n in (1, 2)
    )
    web.files["/embeddedfolderview"] = f"<html>{links}</html>".encode()
    web.files["/download"] = BODY


WHAT: dict[str, tuple[Callable[[Web], str], dict[str, bytes], int]] = {
    "archive": (lambda web: f"{web.url}/a.tar.gz", FILES, 1),
    "folder": (
        lambda web: f"https://drive.google.com/drive/folders/{ID}",
        {"1.bin": BODY, "2.bin": BODY},
        3,
    ),
}


@pytest.mark.parametrize(("address", "files", "step"), WHAT.values(), ids=WHAT)
def test_killed_at_any_access_to_files_a_rerun_finishes(
    address: Callable[[Web], str], files: dict[str, bytes], step: int, web: Web, tmp_path: Path
) -> None:
    # Which access is the last.
    killed = 0
    while True:
        _serve(web)
        folder = tmp_path / str(killed)
        cache, out = folder / "cache", folder / "out"
        folder.mkdir()
        given = (address(web), web.url, cache, out)
        process = CONTEXT.Process(target=_killed, args=(killed, *given))
        process.start()
        process.join()
        # What is there is whole, at every moment.
        assert not out.exists() or _contents(out) == files
        for blob in cache.glob("blobs/*/*"):
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += step
        if not out.exists():
            _fetch(*given)
        assert _contents(out) == files
        assert sorted(path.name for path in folder.iterdir()) == ["cache", "out"]
    assert killed > 30


@pytest.mark.parametrize("sent", [0, 1, 1000, 150_000, 400_000, 599_999])
def test_killed_while_bytes_come_a_rerun_goes_on(sent: int, web: Web, tmp_path: Path) -> None:
    web.files["/x.bin"] = BODY
    processes: list[multiprocessing.process.BaseProcess] = []

    def kill(handler: Handler) -> None:
        handler.send_file(BODY, cut=sent)
        handler.wfile.flush()
        processes[0].kill()
        processes[0].join()

    web.scripted["/x.bin"] = [kill]
    cache, out = tmp_path / "cache", tmp_path / "out"
    arguments = (f"{web.url}/x.bin", web.url, cache, out)
    for exit_code in (-signal.SIGKILL, 0):
        process = CONTEXT.Process(target=_fetch, args=arguments)
        processes.insert(0, process)
        process.start()
        process.join()
        assert process.exitcode == exit_code
        assert out.exists() == (exit_code == 0)
    assert _contents(out) == {"x.bin": BODY}
    begins = [int(h["range"][6:-1]) for _, h in web.seen if "range" in h]
    assert all(0 < begin <= sent for begin in begins)


def test_who_waits_for_a_killed_one_goes_on_in_its_place(web: Web, tmp_path: Path) -> None:
    web.files["/x.bin"] = BODY
    address, cache = f"{web.url}/x.bin", tmp_path / "cache"
    processes = [
        CONTEXT.Process(target=_fetch, args=(address, web.url, cache, tmp_path / str(n)))
        for n in range(2)
    ]

    def kill(handler: Handler) -> None:
        handler.send_file(BODY, cut=300_000)
        processes[1].start()
        processes[0].kill()

    web.scripted["/x.bin"] = [kill]
    processes[0].start()
    processes[0].join()
    processes[1].join()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0]
    assert _contents(tmp_path / "1") == {"x.bin": BODY}


def _changed(data: bytes, draw: random.Random) -> bytes:
    """The same with some bytes changed, or cut off."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 2, 8])):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed[: draw.randrange(9, len(changed))] if draw.random() < 0.1 else changed)


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:xz"])
def test_archives_changed_anywhere_give_a_line_or_files_inside(kind: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
            for number in range(3):
                zipped.writestr(f"d{number}/é.json", BODY[:50] + b"x" * 200)
    else:
        with tarfile.open(fileobj=packed, mode=kind, format=tarfile.PAX_FORMAT) as tarred:  # type: ignore[call-overload]
            for number in range(3):
                info = tarfile.TarInfo(f"d{number}/{'é' * 80}")
                info.size = 600
                tarred.addfile(info, io.BytesIO(BODY[:600]))
    draw = random.Random(kind)
    archive, out = tmp_path / "archive", tmp_path / "deep" / "out"
    lines = set()
    for _ in range(300):
        archive.write_bytes(_changed(packed.getvalue(), draw))
        if not is_archive(archive):
            continue
        try:
            unpack(archive, out)
        except InputError as error:
            lines.add(str(error))
            assert not out.exists()
        else:
            shutil.rmtree(out)
        assert {path.name for path in tmp_path.iterdir()} <= {"archive", "deep"}
        assert not list((tmp_path / "deep").glob("*"))
    assert lines
    assert not any("\n" in line for line in lines)
