"""From addresses to folders: files, archives, Drive, the hub, the cache, offline."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.options import SourcesOptions
from citepipe.sources.fetch import Fetcher
from tests.sources.web import Handler, Web

Make = Callable[..., Fetcher]
ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"
OTHER = "1ZyXwVuTsRqPoNmLkJiHgFeDcBa543210"


def _zip(**files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_json", ".json"), text)
    return packed.getvalue()


def _paths(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_an_archive_is_unpacked_whatever_its_name(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/data"] = _zip(a_json="[1]", inner__b_json="[2]")
    said = make().fetch(f"{web.url}/data#inner/b.json", tmp_path / "out")
    assert said == f"fetch: files 2, of {web.url}/data"
    assert _paths(tmp_path / "out") == {"a.json": "[1]", "inner/b.json": "[2]"}


def test_a_member_that_is_not_there(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/data.zip"] = _zip(a_json="[1]", inner__b_json="[2]")
    with pytest.raises(InputError) as caught:
        make().fetch(f"{web.url}/data.zip", tmp_path / "out", ["b.json"])
    assert str(caught.value) == (
        f"{web.url}/data.zip: expected b.json in it, it has a.json, inner/b.json "
        "(name one behind '#')"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_a_single_file_gets_the_name_that_is_asked_for(
    web: Web, make: Make, tmp_path: Path
) -> None:
    web.files["/x"] = b"[]"
    make().fetch(f"{web.url}/x#asqa_test.json", tmp_path / "out")
    assert _paths(tmp_path / "out") == {"asqa_test.json": "[]"}


def test_a_truncated_archive(web: Web, make: Make, tmp_path: Path) -> None:
    whole = _zip(a_json="[1]" * 5000)
    web.files["/a.zip"] = whole[: len(whole) // 2]
    with pytest.raises(InputError, match="a damaged archive: File is not a zip file"):
        make().fetch(f"{web.url}/a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_fetched_is_not_fetched_again(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/x.json"] = b"[]"
    for name in ("one", "two"):
        make().fetch(f"{web.url}/x.json", tmp_path / name)
    assert len(web.seen) == 1
    one, two = (tmp_path / name / "x.json" for name in ("one", "two"))
    assert one.samefile(two)


def test_a_blob_that_was_cut_is_fetched_again(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/x.json"] = b"[1, 2]"
    make().fetch(f"{web.url}/x.json", tmp_path / "one")
    [blob] = (p for p in (tmp_path / "cache" / "blobs").rglob("*") if p.is_file())
    blob.chmod(0o644)
    blob.write_bytes(b"[1")
    make().fetch(f"{web.url}/x.json", tmp_path / "two")
    assert (tmp_path / "two" / "x.json").read_bytes() == b"[1, 2]"


def test_a_digest_that_is_known_is_checked(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/x.json"] = b"[]"
    address = f"{web.url}/x.json"
    right, wrong = (hashlib.sha256(data).hexdigest() for data in (b"[]", b"[1]"))
    with pytest.raises(InputError) as caught:
        make(sha256={address: wrong}).fetch(address, tmp_path / "out")
    assert str(caught.value) == f"{address}: expected content of sha256 {wrong}, got {right}"
    assert not list((tmp_path / "cache").glob("blobs/*/*"))
    make(sha256={address: right}).fetch(address, tmp_path / "out")
    assert (tmp_path / "out" / "x.json").read_bytes() == b"[]"


def test_offline_says_where_to_put_what_is_missing(web: Web, make: Make, tmp_path: Path) -> None:
    address = f"{web.url}/data/x.json"
    fetcher = make(offline=True)
    by_hand = fetcher.cache.by_hand(address, "x.json")
    with pytest.raises(InputError) as caught:
        fetcher.fetch(address, tmp_path / "out")
    assert str(caught.value) == (
        f"{address}: not here, and this is offline: put the file at {by_hand}"
    )
    by_hand.parent.mkdir(parents=True)
    by_hand.write_text("[3]")
    fetcher.fetch(address, tmp_path / "out")
    assert _paths(tmp_path / "out") == {"x.json": "[3]"}
    assert by_hand.exists()
    assert web.seen == []


def test_a_part_of_a_folder_may_be_put_there_by_hand(web: Web, make: Make, tmp_path: Path) -> None:
    address = f"https://drive.google.com/drive/folders/{ID}"
    fetcher = make(offline=True)
    by_hand = fetcher.cache.by_hand(f"{address}#in/a.json", "a.json")
    with pytest.raises(InputError) as caught:
        fetcher.fetch(f"{address}#in/a.json", tmp_path / "out")
    assert str(caught.value) == (
        f"{address}: not here, and this is offline: put in/a.json at {by_hand}"
    )
    by_hand.parent.mkdir(parents=True)
    by_hand.write_text("[4]")
    fetcher.fetch(f"{address}#in/a.json", tmp_path / "out")
    assert _paths(tmp_path / "out") == {"in/a.json": "[4]"}


@pytest.mark.parametrize("name", ["CITEPIPE_OFFLINE", "HF_HUB_OFFLINE"])
def test_the_environment_says_offline(
    name: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    assert make().is_offline
    monkeypatch.setenv(name, "0")
    assert not make().is_offline


def _confirm(handler: Handler) -> None:
    page = (
        '<html><form id="download-form" action="/download" method="get">'
        f'<input type="hidden" name="id" value="{ID}">'
        '<input type="hidden" name="confirm" value="t&amp;1"></form></html>'
    )
    handler.send(200, page.encode(), {"Content-Type": "text/html"})


def test_a_large_file_at_drive_is_confirmed(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/download"] = b"[]"
    web.scripted["/download"] = [_confirm]
    link = f"https://drive.google.com/file/d/{ID}/view?usp=sharing"
    make().fetch(f"{link}#train.json", tmp_path / "out")
    assert _paths(tmp_path / "out") == {"train.json": "[]"}
    assert web.seen[1][0] == f"/download?id={ID}&confirm=t%261"


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("Quota exceeded", "fetched too often of late; Drive gives it out again in a day"),
        ("You need access", "it is not shared with everyone"),
        ("Sorry, the file does not exist.", "there is no such file"),
        ("Hello", "Drive sent a page where a file was expected"),
    ],
)
def test_pages_of_drive_are_read(
    page: str, reason: str, web: Web, make: Make, tmp_path: Path
) -> None:
    web.scripted["/download"] = [lambda h: h.send(200, f"<html>{page}</html>".encode())]
    address = f"https://drive.google.com/file/d/{ID}/view"
    with pytest.raises(InputError) as caught:
        make().fetch(address, tmp_path / "out")
    assert str(caught.value).startswith(f"{address}: {reason}; got in another way")


def _folder(handler: Handler) -> None:
    inner = "inner" in handler.path or OTHER in handler.path
    links = (
        f'<a href="https://drive.google.com/file/d/{OTHER}x/view?usp=x"><div>c.json</div></a>'
        if inner
        else f'<a href="https://drive.google.com/file/d/{ID}a/view"><div>a.json</div></a>'
        f'<a href="https://drive.google.com/file/d/{ID}b/view"><div>../b.json</div></a>'
        f'<a href="https://drive.google.com/drive/folders/{OTHER}">more</a>'
        '<a href="https://support.google.com/">Help</a>'
    )
    handler.send(200, f"<html><title>t</title>{links}</html>".encode())


def test_a_folder_at_drive(web: Web, make: Make, tmp_path: Path) -> None:
    web.scripted["/embeddedfolderview"] = [_folder] * 2
    web.scripted["/download"] = [
        lambda h: h.send(200, h.path.partition("id=")[2].partition("&")[0].encode())
    ] * 3
    address = f"https://drive.google.com/drive/folders/{ID}?usp=drive_link"
    make().fetch(f"{address}#a.json", tmp_path / "one")
    assert _paths(tmp_path / "one") == {"a.json": f"{ID}a"}
    make().fetch(address, tmp_path / "all")
    assert _paths(tmp_path / "all") == {
        "a.json": f"{ID}a",
        "..-b.json": f"{ID}b",
        "more/c.json": f"{OTHER}x",
    }
    with pytest.raises(InputError, match=r"expected d\.json in it, it has a\.json, \.\.-b\.json"):
        make().fetch(f"{address}#d.json", tmp_path / "none")


def _repository(web: Web, names: list[str]) -> None:
    listing = {"sha": "c0ffee", "siblings": [{"rfilename": name} for name in names]}
    web.files["/api/models/a/b/revision/v1"] = json.dumps(listing).encode()
    for name in names:
        web.files[f"/a/b/resolve/c0ffee/{name}"] = name.encode()


def test_a_model_repository_comes_without_pickles(web: Web, make: Make, tmp_path: Path) -> None:
    names = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", ".gitattr"]
    _repository(web, [*names, "best_peft/adapter_config.json"])
    make().fetch("hf://a/b@v1", tmp_path / "all")
    assert sorted(_paths(tmp_path / "all")) == [
        "best_peft/adapter_config.json",
        "config.json",
        "model.safetensors",
    ]
    make().fetch("hf://a/b@v1", tmp_path / "part", ["best_peft"])
    assert sorted(_paths(tmp_path / "part")) == ["best_peft/adapter_config.json"]


def test_a_hub_that_lists_files_outside(web: Web, make: Make, tmp_path: Path) -> None:
    _repository(web, ["../../evil"])
    with pytest.raises(InputError, match=r"expected names of files below the repository"):
        make().fetch("hf://a/b@v1", tmp_path / "out")


def test_a_file_of_the_hub_is_checked_against_its_digest(
    web: Web, make: Make, tmp_path: Path
) -> None:
    claimed = hashlib.sha256(b"right").hexdigest()
    path = "/datasets/a/b/resolve/main/x.json"
    web.files["/stored"] = b"wrong"
    headers = {"Location": "/stored", "X-Linked-Etag": f'"{claimed}"'}
    web.scripted[path] = [lambda h: h.send(302, b"", headers)] * 2
    with pytest.raises(InputError, match=f"expected content of sha256 {claimed}"):
        make().fetch("hf://datasets/a/b/x.json", tmp_path / "out")
    web.files["/stored"] = b"right"
    make().fetch("hf://datasets/a/b/x.json", tmp_path / "out")
    assert _paths(tmp_path / "out") == {"x.json": "right"}


def test_a_private_repository_without_a_token(web: Web, make: Make, tmp_path: Path) -> None:
    web.scripted["/datasets/a/b/resolve/main/x.json"] = [lambda h: h.send(401, b"")]
    with pytest.raises(InputError, match=r"wants a login \(401\), HF_TOKEN is not set"):
        make().fetch("hf://datasets/a/b/x.json", tmp_path / "out")


def _fetch(options: dict[str, str], address: str, out: str) -> None:
    Fetcher(SourcesOptions.model_validate(options)).fetch(address, Path(out))


def test_processes_that_want_the_same_fetch_it_once(web: Web, tmp_path: Path) -> None:
    web.files["/x.bin"] = b"x" * 2_000_000
    context = multiprocessing.get_context("fork")
    options = {"cache": str(tmp_path / "cache")}
    workers = [
        context.Process(target=_fetch, args=(options, f"{web.url}/x.bin", str(tmp_path / str(n))))
        for n in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(web.seen) == 1
    assert {(tmp_path / str(n) / "x.bin").stat().st_size for n in range(4)} == {2_000_000}
