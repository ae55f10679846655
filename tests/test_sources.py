"""Addresses and what they lead to. No network: a web server on this machine, stubs of the rest."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import re
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gdown
import huggingface_hub
import pytest
import requests
import yaml

from citepipe.cli import main
from citepipe.config import load_config
from citepipe.errors import InputError
from citepipe.inputs import localise
from citepipe.options import SourcesOptions
from citepipe.sources import (
    Place,
    cache_path,
    fetch,
    folder_of,
    is_archive,
    is_remote,
    link,
    local_path,
    parse,
    unpack,
)

Patch = pytest.MonkeyPatch

ID = "16YihOAL6sIytNCKtrV7rU8SXAv8hmJVH"
FOLDER = f"https://drive.google.com/drive/folders/{ID}"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and notes what is requested."""

    seen: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        self.seen.append(self.path)


@pytest.fixture
def web(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Patch) -> Iterator[Any]:
    """A web server: its `url`, the `folder` that it serves and the paths that it has `seen`."""
    for name in ("CITEPIPE_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path_factory.mktemp("web")
    Handler.seen.clear()
    handler = partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield SimpleNamespace(url=url, folder=folder, seen=Handler.seen)
        server.shutdown()


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., SourcesOptions]:
    values = {"cache": str(tmp_path / "cache"), "timeout": 5, "retries": 0}
    return lambda **settings: SourcesOptions.model_validate({**values, **settings})


def _paths(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _zip(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return packed.getvalue()


def _tar(name: str, content: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    """An archive of one member; of a link, the content is what it leads to."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
        info.linkname = "" if info.size else content
        archive.addfile(info, io.BytesIO(content.encode()))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("https://host/a/b.json?x=1", Place("web", "https://host/a/b.json?x=1", "b.json")),
        (f"https://drive.google.com/file/d/{ID}/view?usp=sharing", Place("drive file", ID)),
        (f"https://drive.google.com/open?id={ID}", Place("drive file", ID)),
        (f"{FOLDER}?usp=drive_link", Place("drive folder", ID)),
        (f"https://drive.google.com/drive/u/0/folders/{ID}", Place("drive folder", ID)),
        ("hf://datasets/a/b@v1/d/e.json", Place("dataset", "a/b", "e.json", "v1", "d/e.json")),
        ("hf://a/b", Place("model", "a/b", "b", "main", "")),
        ("hf://a/b@refs%2Fpr%2F1/x", Place("model", "a/b", "x", "refs/pr/1", "x")),
    ],
)
def test_addresses(text: str, place: Place):
    assert parse(text) == place


BAD = """ftp://host/file https:// https://host:99999999/x https://user:secret@host/x hf://only
hf://datasets/a hf://a/b/../../c hf://a/b/c\x01 https://host/a.zip#../../etc/passwd https://host/a#b\x01c
https://drive.google.com/drive/my-drive https://drive.google.com/file/d/short https://host/a\x01"""


@pytest.mark.parametrize("text", [*BAD.split(), "https://ho st/x"])
def test_bad_addresses_are_refused_in_a_line_without_secrets(text: str):
    with pytest.raises(InputError, match="expected") as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_where_things_lie():
    assert not any(map(is_remote, ["data/a.json", "/a", "a:b", "C:/x", "lexical", "x?y=1"]))
    plain = "https://host/some%20file.tar.gz"
    folder = f"r/{_sha256(plain.encode())[:8]}-some-file"
    assert folder_of(plain, "r") == folder_of(f"{plain}#a/b.json", "r") == folder
    assert local_path(f"{plain}#a/b.json", "r", "file") == f"{folder}/a/b.json"
    assert local_path(plain, "r", "folder") == folder
    assert local_path(plain, "r", "file") == f"{folder}/some-file.tar.gz"
    drive = f"https://drive.google.com/file/d/{ID}/view"
    assert local_path(drive, "r", "file") == f"r/{_sha256(drive.encode())[:8]}-drive/file"


def test_a_file_is_fetched_once_for_all_runs(web: Any, options: Any, tmp_path: Path):
    (web.folder / "x").write_bytes(b"[]")
    address = f"{web.url}/x"
    assert fetch(address, tmp_path / "one", options()) == f"fetch: files 1, of {address}"
    fetch(f"{address}#asqa_test.json", tmp_path / "two", options(offline=True))
    assert _paths(tmp_path / "two") == {"asqa_test.json": "[]"}
    assert len(web.seen) == 1
    assert not os.access(tmp_path / "one" / "x", os.W_OK) or os.getuid() == 0


def test_an_archive_is_unpacked_whatever_its_name(web: Any, options: Any, tmp_path: Path):
    (web.folder / "data").write_bytes(_zip({"a.json": "[1]", "inner/b.json": "[2]"}))
    address = f"{web.url}/data"
    fetch(f"{address}#inner/b.json", tmp_path / "out", options())
    assert _paths(tmp_path / "out") == {"a.json": "[1]", "inner/b.json": "[2]"}
    with pytest.raises(InputError, match=r"data: expected b\.json in it, it has 'a\.json', 'inn"):
        fetch(address, tmp_path / "none", options(), ["b.json"])
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("path", "content", "line"),
    [
        ("/absent.json", None, "cannot be fetched: 404 .* \\(or put it at .*absent.json\\)"),
        ("/x.json", b"\n<!DOCTYPE html>Log in", "sent a web page where a file was expected"),
        ("/a.zip", _zip({"a": "x" * 900})[:100], "expected an archive; remove .* fetched anew"),
        ("/a.tgz", _tar("a", "xyz" * 999)[:-40], "expected an archive; remove"),
        ("/a.zip#../x", None, "expected a path inside of it"),
    ],
    ids=["absent", "a web page", "half a zip", "half a tar", "a way out"],
)
def test_what_cannot_be_fetched(
    path: str, content: bytes | None, line: str, web: Any, options: Any, tmp_path: Path
):
    if content is not None:
        (web.folder / path[1:]).write_bytes(content)
    with pytest.raises(InputError, match=line) as caught:
        fetch(f"{web.url}{path}", tmp_path / "out", options())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_digest_is_checked_with_or_without_member(
    web: Any, options: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    packed = _zip({"a.json": "[1]"})
    (web.folder / "a.zip").write_bytes(packed)
    address, wrong = f"{web.url}/a.zip", "0" * 64
    line = f"{address}: expected content of sha256 {wrong}, got {_sha256(packed)}"
    for key in (address, f"{address}#a.json"):
        with pytest.raises(InputError, match=f"^{re.escape(line)}$"):
            fetch(address, tmp_path / "out", options(sha256={key: wrong}))
    both = {address: wrong, f"{address}#a.json": _sha256(packed)}
    with pytest.raises(InputError, match=r"^sources\.sha256 .*: expected one of a file"):
        fetch(address, tmp_path / "out", options(sha256=both))
    given = ["fetch", address, str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main([*given, "--sha256", wrong]) == 1
    assert capsys.readouterr().err.endswith(f"citepipe: {line}\n")
    assert main([*given, "--sha256", _sha256(packed)]) == 0


@pytest.mark.parametrize("digest", ["", _sha256(b"12")])
def test_a_begun_file_is_gone_on_with_where_a_digest_is_known(
    digest: str, options: Any, tmp_path: Path, monkeypatch: Patch
):
    def download(url: str, output: str, resume: bool, **_: Any) -> None:
        begun = Path(f"{output}.part")
        if not begun.exists():
            begun.write_text("1")
            raise requests.ConnectionError("cut off")
        Path(output).write_text(begun.read_text() * resume + "2")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(gdown, "download", download)
    given = options(sha256={"https://host/x": digest} if digest else {})
    with pytest.raises(InputError, match=r"^https://host/x: cannot be fetched: cut off \(or put"):
        fetch("https://host/x", tmp_path / "out", given)
    fetch("https://host/x", tmp_path / "out", given)
    # The rest of a file that may have changed since is not put behind its old first half.
    assert _paths(tmp_path / "out") == {"x": "12" if digest else "2"}


def test_processes_that_want_the_same_fetch_it_once(web: Any, options: Any, tmp_path: Path):
    (web.folder / "x.bin").write_bytes(bytes(2**20))
    (tmp_path / ".0.partial" / "of-a-killed-run").mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    given = [(f"{web.url}/x.bin", tmp_path / str(n), options()) for n in range(3)]
    workers = [context.Process(target=fetch, args=one) for one in given]
    for step in (context.Process.start, context.Process.join):
        for worker in workers:
            step(worker)
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert len(web.seen) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "cache"]


@pytest.mark.parametrize(
    ("address", "put", "variable"),
    [
        ("https://host/data/x.json", "it", ""),
        (f"{FOLDER}#in/a.json", "in/a.json", "CITEPIPE_OFFLINE"),
        ("hf://a/b@v1#in", "in", "HF_HUB_OFFLINE"),
        ("hf://a/b@v1", "its files", ""),
    ],
)
def test_offline_says_where_to_put_what_is_missing(
    address: str, put: str, variable: str, web: Any, options: Any, tmp_path: Path,
    monkeypatch: Patch,
):  # fmt: skip
    given = options(offline=not variable)
    by_hand = cache_path(address, given)
    monkeypatch.setenv(variable or "UNUSED", "1")
    plain, _, member = address.partition("#")
    line = f"{plain}: not here, and this is offline: put {put} at {by_hand}"
    with pytest.raises(InputError, match=f"^{re.escape(line)}$"):
        fetch(address, tmp_path / "out", given)
    path = by_hand if by_hand.suffix == ".json" else by_hand / "deep" / "c.json"
    path.parent.mkdir(parents=True)
    path.write_text("[3]")
    fetch(address, tmp_path / "out", given)
    assert list(_paths(tmp_path / "out").values()) == ["[3]"]
    assert (tmp_path / "out" / member).exists()


def test_drive(web: Any, options: Any, tmp_path: Path, monkeypatch: Patch):
    listed = [SimpleNamespace(id=f"{n}", path=path) for n, path in enumerate(["a", "in/b", "in/c"])]
    fetched: list[str] = []

    def download(id: str, output: str, **_: Any) -> None:
        fetched.append(id)
        Path(output).write_text(id)

    monkeypatch.setattr(gdown, "download", download)
    monkeypatch.setattr(gdown, "download_folder", lambda **_: listed)
    fetch(f"https://drive.google.com/file/d/{ID}/view#t.json", tmp_path / "file", options())
    assert _paths(tmp_path / "file") == {"t.json": ID}
    fetch(FOLDER, tmp_path / "part", options(), ["in", "in/c"])
    assert _paths(tmp_path / "part") == {"in/b": "1", "in/c": "2"}
    fetch(FOLDER, tmp_path / "all", options())
    assert _paths(tmp_path / "all") == {"a": "0", "in/b": "1", "in/c": "2"}
    assert fetched == [ID, "1", "2", "2", "0", "1", "2"]
    with pytest.raises(InputError, match="expected d in it, it has 'a', 'in/b', 'in/c'"):
        fetch(f"{FOLDER}#d", tmp_path / "none", options())
    listed.append(SimpleNamespace(id="3", path="a"))
    with pytest.raises(InputError, match="expected each name once"):
        fetch(f"{FOLDER}#in/b/", tmp_path / "none", options(cache=str(tmp_path / "other")))


def test_the_hub(web: Any, options: Any, tmp_path: Path, monkeypatch: Patch):
    names = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", ".gitattr"]
    names += ["best_peft/adapter_config.json"]
    asked: list[tuple[str, str]] = []

    def info(_: Any, repo_id: str, repo_type: str, revision: str) -> Any:
        asked.append((repo_type, revision))
        return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=n) for n in names])

    def snapshot(repo_id: str, revision: str, local_dir: Path, allow_patterns: Any, **_: Any):
        assert (repo_id, revision) == ("a/b", "c0ffee")
        for name in [*allow_patterns, ".cache/huggingface/x"]:
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / name).write_text(name)

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    fetch("hf://a/b@v1", tmp_path / "all", options())
    expected = {"config.json", "model.safetensors", "best_peft/adapter_config.json"}
    assert set(_paths(tmp_path / "all")) == expected
    fetch("hf://a/b#best_peft", tmp_path / "part", options())
    assert set(_paths(tmp_path / "part")) == {"best_peft/adapter_config.json"}
    fetch("hf://datasets/a/b/pytorch_model.bin", tmp_path / "file", options())
    assert set(_paths(tmp_path / "file")) == {"pytorch_model.bin"}
    assert asked == [("model", "v1"), ("model", "main"), ("dataset", "main")]
    digests = {"hf://a/b#config.json": "0" * 64}
    with pytest.raises(InputError, match="expected content of sha256 0000"):
        fetch("hf://a/b", tmp_path / "none", options(sha256=digests))
    with pytest.raises(InputError, match="expected one of a file, or ADDRESS#FILE of each"):
        fetch("hf://a/b", tmp_path / "none", options(sha256={"hf://a/b": "0" * 64}))
    names.append("../../evil")
    with pytest.raises(InputError, match="expected a path inside"):
        fetch("hf://a/b@v2", tmp_path / "none", options())


EVIL = {
    "above, tar": (_tar("a/../../evil", "x"), "would be extracted"),
    "link": (_tar("l", "/etc", tarfile.SYMTYPE), "'l' is a link or device, no file"),
    "device": (_tar("d", "", tarfile.CHRTYPE), "'d' is a link or device, no file"),
    "bomb, zip": (_zip({"zeros": "0" * 2**27}), "it would be larger than it may"),
    "bomb, tar": (_tar("zeros", "0" * 2**27), "it would be larger than it may"),
    "changed": (_zip({"a": "a" * 50}).replace(b"K", b"L", 1)[:-9], "expected an archive"),
}


@pytest.mark.parametrize(("content", "line"), EVIL.values(), ids=EVIL)
def test_archives_that_are_refused(content: bytes, line: str, tmp_path: Path):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(InputError, match=line):
        unpack(tmp_path / "archive", tmp_path / "in" / "out")
    assert not list((tmp_path / "in").iterdir())


def test_nothing_of_a_zip_lands_outside(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(_zip({"../evil": "x", "/tmp/evil": "x", "a/b": "1"}))
    unpack(tmp_path / "a.zip", tmp_path / "in" / "out")
    assert _paths(tmp_path / "in") == {"out/a/b": "1"}
    assert not Path("/tmp/evil").exists()


def test_what_is_an_archive(tmp_path: Path):
    import torch

    torch.save({"a": torch.zeros(2)}, tmp_path / "checkpoint.zip")
    (tmp_path / "json.tar").write_text("[]")
    (tmp_path / "a").write_bytes(_tar("top/a", "1"))
    assert [is_archive(tmp_path / n) for n in ("checkpoint.zip", "json.tar", "a")] == [0, 0, 1]


def test_what_a_symbolic_link_leads_to_is_copied(tmp_path: Path):
    folder, out, secret = tmp_path / "folder", tmp_path / "out", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("x")
    (folder / "a").symlink_to(secret)
    (folder / "b").write_text("y")
    link(folder, out)
    assert (out / "b").samefile(folder / "b")
    assert (_paths(out)["a"], (out / "a").samefile(secret)) == ("x", False)


def test_digests_go_along_with_the_address_of_a_configuration():
    raw = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
    raw["model"]["base"] = "hf://a/b#part"
    digests = {"hf://a/b#part/x": "0" * 64, "hf://a/b#y": "1" * 64, "hf://a/c#x": "2" * 64}
    _, sources = localise(load_config({**raw, "sources": {"sha256": digests}}))
    [source] = sources.values()
    assert (source.address, source.members) == ("hf://a/b", ["part"])
    assert sorted(source.sha256) == ["hf://a/b#part/x", "hf://a/b#y"]
