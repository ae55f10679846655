"""Servers, folders and names that are odder than a fault: nothing wrong passes for right."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from citepipe.cli import main
from citepipe.config import load_config
from citepipe.errors import InputError
from citepipe.inputs import localise
from citepipe.sources.address import Drive, folder_of, local_path, parse
from citepipe.sources.archive import is_archive, unpack
from citepipe.sources.drive import leads_on
from citepipe.sources.fetch import Fetcher
from tests.sources.web import Answer, Handler, Web

BODY = bytes(range(256)) * 4000
ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"
FOLDER = f"https://drive.google.com/drive/folders/{ID}"
ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., Fetcher]


def _part(first: int, last: int, total: str = str(len(BODY))) -> Answer:
    headers = {"Content-Range": f"bytes {first}-{last}/{total}", "ETag": '"v1"'}
    return lambda handler: handler.send(206, BODY[first : last + 1], headers)


def _capped(handler: Handler) -> None:
    first = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
    _part(first, first + 9_999)(handler)


def _cut(at: int, **settings: bool) -> Answer:
    return lambda handler: handler.send_file(BODY, cut=at, **settings)


def _encoded(content: bytes, encoding: str) -> Answer:
    return lambda handler: handler.send(200, content, {"Content-Encoding": encoding})


def _two_lengths(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello")
    handler.close_connection = True


PASSING: dict[str, list[Answer]] = {
    "a part that nobody asked for": [_part(0, 99)],
    "parts shorter than asked for": [_cut(5000), *[_capped] * 5],
    "a part at no place": [_cut(1000), _part(10**17, 10**17)],
    "a part of no file": [_cut(1000), _part(1000, 1005, "9" * 5000)],
    "packed, and ends early": [_encoded(gzip.compress(BODY)[:500], "gzip")],
    "packed in two pieces": [
        _encoded(gzip.compress(BODY[:77]) + gzip.compress(BODY[77:]), "x-gzip")
    ],
    "two lengths": [_two_lengths],
    "a pause for ever": [lambda handler: handler.send(503, b"", {"Retry-After": "9" * 5000})],
}


@pytest.mark.parametrize("script", PASSING.values(), ids=PASSING)
def test_what_passes(
    script: list[Answer], web: Web, make: Make, tmp_path: Path, pauses: list[float]
) -> None:
    web.files["/file.bin"] = BODY
    web.scripted["/file.bin"] = list(script)
    make().fetch(f"{web.url}/file.bin", tmp_path / "out")
    assert (tmp_path / "out" / "file.bin").read_bytes() == BODY
    assert max(pauses, default=0) <= 300


def _page_in_pieces(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for piece in (b"\n", b"<!-- x --> <!DOC", b"TYPE html><p>", b""):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.flush()
        time.sleep(0.02)


def _called_page(handler: Handler) -> None:
    handler.send(200, b"<title>Log in", {"Content-Type": "text/html; charset=utf-8"})


def _to(location: str) -> Answer:
    return lambda handler: handler.send(302, b"", {"Location": location})


STAYING: dict[str, tuple[list[Answer], str]] = {
    "cut here and there": (
        [_cut(at, ranges=False) for at in (2000, 1000) * 20],
        "closed the connection before all had come (3 attempts)",
    ),
    "no content": ([lambda handler: handler.send(204, b"", {})], "answered 204"),
    "an encoding not asked for": (
        [_encoded(b"\x8b", "br")],
        "sent in an encoding that was not asked for, br",
    ),
    "packed, and always ends early": (
        [_encoded(gzip.compress(BODY)[:500], "gzip")] * 3,
        "sent something compressed that ends early (3 attempts)",
    ),
    "a page in pieces": ([_page_in_pieces], "sent a web page where a file was expected"),
    "what is called a page": ([_called_page], "sent a web page where a file was expected"),
    "to nowhere": ([_to("")], "redirects to nowhere, which is no web address"),
    "to what is no URL": ([_to("http://[x")], "redirects to http://[x, which is no web address"),
}


@pytest.mark.parametrize(("script", "line"), STAYING.values(), ids=STAYING)
def test_what_stays(script: list[Answer], line: str, web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/file.bin"] = BODY
    web.scripted["/file.bin"] = list(script)
    with pytest.raises(InputError) as caught:
        make().fetch(f"{web.url}/file.bin", tmp_path / "out")
    assert str(caught.value).startswith(f"{web.url}/file.bin: {line}; got in another way")
    web.scripted.clear()
    make().fetch(f"{web.url}/file.bin", tmp_path / "out")
    assert (tmp_path / "out" / "file.bin").read_bytes() == BODY


def test_a_file_that_is_packed_itself_is_not_unpacked(web: Web, make: Make, tmp_path: Path) -> None:
    packed = gzip.compress(BODY)
    web.scripted["/x.json.gz"] = [_encoded(packed, "gzip")]
    make().fetch(f"{web.url}/x.json.gz", tmp_path / "out")
    assert (tmp_path / "out" / "x.json.gz").read_bytes() == packed


def test_json_that_is_called_a_page_is_taken(web: Web, make: Make, tmp_path: Path) -> None:
    web.scripted["/x.json"] = [lambda h: h.send(200, b"[1]", {"Content-Type": "text/html"})]
    make().fetch(f"{web.url}/x.json", tmp_path / "out")
    assert (tmp_path / "out" / "x.json").read_bytes() == b"[1]"


def test_a_page_between_does_not_cost_what_had_come(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/file.bin"] = BODY
    web.scripted["/file.bin"] = [_cut(700_000), lambda h: h.send(200, b"<html>Log in")]
    with pytest.raises(InputError, match="sent a web page"):
        make().fetch(f"{web.url}/file.bin", tmp_path / "out")
    web.seen.clear()
    make().fetch(f"{web.url}/file.bin", tmp_path / "out")
    assert [headers["range"] for _, headers in web.seen] == ["bytes=700000-"]
    assert (tmp_path / "out" / "file.bin").read_bytes() == BODY


def test_a_large_file_at_drive_goes_on_behind_another_form(
    web: Web, make: Make, tmp_path: Path
) -> None:
    asked = iter("123")

    def form(handler: Handler) -> None:
        page = (
            '<html><form id="download-form" action="/large">'
            f'<input name="uuid" value="{next(asked)}"></form>'
        )
        handler.send(200, page.encode())

    web.files["/large"] = BODY
    web.scripted["/download"] = [form, form]
    web.scripted["/large"] = [_cut(700_000), *[lambda h: h.send(500, b"")] * 2]
    link = f"https://drive.google.com/file/d/{ID}/view"
    with pytest.raises(InputError, match="answered 500"):
        make().fetch(link, tmp_path / "out")
    web.seen.clear()
    make().fetch(link, tmp_path / "out")
    assert web.seen[-1][0] == "/large?uuid=2"
    assert web.seen[-1][1]["range"] == "bytes=700000-"
    assert (tmp_path / "out" / "file").read_bytes() == BODY


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.json", "[1]" * 5000)
    return packed.getvalue()


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo("a.json")
        info.size = 15_000
        archive.addfile(info, io.BytesIO(b"[1]" * 5000))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "whole", "damaged"),
    [
        ("a.zip", _zip(), _zip()[:9000]),
        ("no-name", _zip(), _zip()[:9000]),
        ("a.zip", _zip(), _zip() + bytes(100_000)),
        ("a.zip", _zip(), b"garbage"),
        ("a.tar.gz", _tar(), _tar()[:-40]),
        ("a.tgz", _tar(), b"\x1f\x8b" + _tar()[50:]),
    ],
    ids=["half a zip", "half, no name", "garbage behind", "garbage", "half a tar", "no begin"],
)
def test_a_damaged_archive_is_fetched_anew(
    name: str, whole: bytes, damaged: bytes, web: Web, make: Make, tmp_path: Path
) -> None:
    address = f"{web.url}/{name}"
    web.files[f"/{name}"] = damaged
    for _ in range(2):
        with pytest.raises(InputError, match=f"^{address}: .*; the next run fetches it anew$"):
            make().fetch(f"{address}#a.json", tmp_path / "out")
    web.files[f"/{name}"] = whole
    make().fetch(f"{address}#a.json", tmp_path / "out")
    assert (tmp_path / "out" / "a.json").read_bytes() == b"[1]" * 5000


def test_folders_in_folders_without_end(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as packed:
        for depth in (400, 800, 1200, 1600):
            packed.addfile(tarfile.TarInfo("a/" * depth + "f"))
    assert is_archive(archive)
    with pytest.raises(InputError, match="has folders in folders, more than 64 deep"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("token", ["hf_se\ncret", "hf_se\x00cret", "hf_secret€"])
def test_a_token_that_no_header_can_have_is_not_shown(
    token: str, web: Web, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The system's environment has no zero bytes.
    monkeypatch.setattr("os.environ", {"HF_TOKEN": token, "HF_ENDPOINT": web.url})
    for address in ("hf://a/b", "hf://datasets/a/b/x.json"):
        with pytest.raises(InputError, match=r"^HF_TOKEN: expected printable ASCII") as caught:
            make().fetch(address, tmp_path / "out")
        assert "hf_se" not in str(caught.value)
    assert web.seen == []


@pytest.mark.parametrize("url", ["https://me:secret@host", "hub.local", "ftp://host", "https://"])
def test_an_endpoint_that_is_none(
    url: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(InputError, match=r"^HF_ENDPOINT: expected a URL") as caught:
        make().fetch("hf://a/b", tmp_path / "out")
    assert "secret" not in str(caught.value)


MEMBERS = ["../x", "a/../../x", "/etc/x", "a\nb", "a" * 300]


@pytest.mark.parametrize("member", MEMBERS)
def test_members_stay_inside(member: str, web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/x.json"] = b"[]"
    with pytest.raises(InputError, match="expected a path inside of it") as caught:
        make().fetch(f"{web.url}/x.json", tmp_path / "in" / "out", [member])
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_where_things_lie_is_inside() -> None:
    for where in (folder_of, lambda address, root: local_path(address, root, "file")):
        with pytest.raises(InputError, match="expected a path inside of it"):
            where("https://host/a.zip#../../etc/passwd", "root")
    assert len(Path(local_path(f"https://host/{'a' * 300}.json", "r", "file")).name) == 128


def test_a_folder_that_is_there_is_left_alone(web: Web, make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(InputError) as caught:
        make().fetch(f"{web.url}/x.json", tmp_path / "out")
    assert str(caught.value) == f"{tmp_path}/out: is there already; remove it to have it fetched"
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_what_killed_runs_left_is_removed(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/x.json"] = b"[]"
    (tmp_path / ".out.4194305.partial" / "half").mkdir(parents=True)
    make().fetch(f"{web.url}/x.json", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out"]


def test_where_nothing_can_be_written(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/x.json"] = b"[]"
    (tmp_path / "results").write_text("a file")
    with pytest.raises(InputError, match="results/sources: Not a directory"):
        make().fetch(f"{web.url}/x.json", tmp_path / "results" / "sources" / "out")


def _repository(web: Web, *names: str) -> None:
    listing = {"sha": "c0ffee", "siblings": [{"rfilename": name} for name in names]}
    web.files["/api/models/a/b/revision/main"] = json.dumps(listing).encode()
    for name in names:
        web.files[f"/a/b/resolve/c0ffee/{name}"] = name.encode()


def test_a_digest_of_a_file_in_a_folder_is_checked(web: Web, make: Make, tmp_path: Path) -> None:
    _repository(web, "x.json", "y.json")
    right, wrong = (hashlib.sha256(data).hexdigest() for data in (b"x.json", b"[1]"))
    with pytest.raises(InputError) as caught:
        make(sha256={"hf://a/b#x.json": wrong}).fetch("hf://a/b", tmp_path / "out")
    assert str(caught.value) == f"hf://a/b#x.json: expected content of sha256 {wrong}, got {right}"
    known = {"hf://a/b#x.json": right, "hf://a/b#y.json": hashlib.sha256(b"y.json").hexdigest()}
    make(sha256=known).fetch("hf://a/b", tmp_path / "out")
    assert (tmp_path / "out" / "x.json").read_bytes() == b"x.json"
    with pytest.raises(InputError, match=r"^sources\.sha256 hf://a/b: a folder; expected"):
        make(sha256={"hf://a/b": right}).fetch("hf://a/b", tmp_path / "other")


def test_a_digest_of_an_archive_stands_with_or_without_member(
    web: Web, make: Make, tmp_path: Path
) -> None:
    address = f"{web.url}/a.zip"
    web.files["/a.zip"] = _zip()
    right, wrong = hashlib.sha256(_zip()).hexdigest(), "0" * 64
    with pytest.raises(InputError, match=f"expected content of sha256 {wrong}, got {right}"):
        make(sha256={f"{address}#a.json": wrong}).fetch(address, tmp_path / "out")
    with pytest.raises(InputError, match="expected one digest of a single file"):
        make(sha256={f"{address}#a.json": wrong, address: right}).fetch(address, tmp_path / "out")
    make(sha256={f"{address}#a.json": right}).fetch(address, tmp_path / "out")


@pytest.mark.parametrize(
    ("members", "said", "put"),
    [
        ([], "put its files into the folder", "in/x.json"),
        (["in"], "put in at", "x.json"),
        (["in/x.json"], "put in/x.json at", ""),
    ],
)
@pytest.mark.parametrize("address", [FOLDER, "hf://a/b@v1"])
def test_folders_may_be_put_there_by_hand(
    address: str, members: list[str], said: str, put: str, web: Web, make: Make, tmp_path: Path
) -> None:
    offline = make(offline=True)
    with pytest.raises(InputError) as caught:
        offline.fetch(address, tmp_path / "out", members)
    line, _, where = str(caught.value).rpartition(" ")
    assert line == f"{address}: not here, and this is offline: {said}"
    (Path(where) / put).parent.mkdir(parents=True)
    (Path(where) / put).write_text("[]")
    assert offline.fetch(address, tmp_path / "out", members) == f"fetch: files 1, of {address}"
    assert (tmp_path / "out" / "in" / "x.json").read_text() == "[]"
    assert web.seen == []


def test_a_file_and_its_folder_are_both_wanted(web: Web, make: Make, tmp_path: Path) -> None:
    _repository(web, "in/x.json", "in/y.json", "z.json")
    for number in range(2):
        out = tmp_path / str(number)
        said = make().fetch("hf://a/b", out, ["in", "in/x.json"])
        assert said == "fetch: files 2, of hf://a/b"
        assert sorted(path.name for path in (out / "in").iterdir()) == ["x.json", "y.json"]
    assert len(web.seen) == 3


def _links(*links: tuple[str, str]) -> bytes:
    anchors = (
        f'<a href="https://drive.google.com/{kind}/{ID}{number}?resourcekey=k{number}">{name}</a>'
        for number, (kind, name) in enumerate(links)
    )
    return f"<html><![x[ y]]>{''.join(anchors)}</html>".encode()


def test_two_files_of_one_name_in_a_folder(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/embeddedfolderview"] = _links(("file/d", "a.json"), ("file/d", "a.json"))
    with pytest.raises(InputError, match=r"expected each name once, there are two files a\.json"):
        make().fetch(FOLDER, tmp_path / "out")


@pytest.mark.parametrize(
    ("links", "line"),
    [
        ([("file/d", "a"), ("drive/folders", "a")], "/a: File exists"),
        ([("file/d", "a" * 300)], "a: File name too long"),
    ],
)
def test_names_that_no_folder_can_have(
    links: list[tuple[str, str]], line: str, web: Web, make: Make, tmp_path: Path
) -> None:
    pages = [_links(*links), _links(("file/d", "b"))]
    web.scripted["/embeddedfolderview"] = [lambda h: h.send(200, pages.pop(0))] * 2
    web.files["/download"] = b"[]"
    with pytest.raises(InputError, match=line):
        make().fetch(FOLDER, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_names_are_of_printable_characters_and_keys_go_along(
    web: Web, make: Make, tmp_path: Path
) -> None:
    web.files["/embeddedfolderview"] = _links(("file/d", "a\x1b[2J\nb"))
    web.files["/download"] = b"[]"
    make().fetch(f"{FOLDER}?resourcekey=0-x", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a-[2J-b"]
    assert [path for path, _ in web.seen] == [
        f"/embeddedfolderview?id={ID}&resourcekey=0-x",
        f"/download?id={ID}0&export=download&confirm=t&resourcekey=k0",
    ]
    link = f"https://drive.google.com/file/d/{ID}/view?resourcekey=0-x"
    assert parse(link) == Drive(ID, False, key="0-x")


def test_a_form_does_not_lead_elsewhere() -> None:
    page = '<form id="download-form" action="{}/download"><input name="id" value="x"></form>'
    assert leads_on("a", page.format("https://a.google.com")) == (
        "https://a.google.com/download?id=x"
    )
    for base in ("http://drive.usercontent.google.com", "https://google.com.evil.com"):
        with pytest.raises(InputError, match="sent a page where a file was expected"):
            leads_on("a", page.format(base))


@pytest.mark.parametrize(
    "answer",
    [b"[" * 100_000, b"{}", b'{"sha": "x", "siblings": [{"rfilename": "a\\ud800"}]}', b"[1]"],
    ids=["nested", "nothing in it", "half a character", "a list"],
)
def test_a_hub_that_sends_no_list(answer: bytes, web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/api/models/a/b/revision/main"] = answer
    with pytest.raises(InputError, match=r"^\S+/revision/main: expected .*$"):
        make().fetch("hf://a/b", tmp_path / "out")


def test_names_in_an_archive_stay_in_one_line(web: Web, make: Make, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a\n\x1b[2Jb", "x")
    web.files["/a.zip"] = packed.getvalue()
    with pytest.raises(InputError, match=r"it has a\?\?\[2Jb \(name one"):
        make().fetch(f"{web.url}/a.zip#c", tmp_path / "out")


def test_a_file_of_a_run_that_was_written_into_is_fetched_anew(
    web: Web, make: Make, tmp_path: Path
) -> None:
    web.files["/x.json"] = b"[1]"
    make().fetch(f"{web.url}/x.json", tmp_path / "one")
    linked = tmp_path / "one" / "x.json"
    linked.chmod(0o644)
    linked.write_bytes(b"[2]")
    make().fetch(f"{web.url}/x.json", tmp_path / "two")
    assert (tmp_path / "two" / "x.json").read_bytes() == b"[1]"
    assert linked.read_bytes() == b"[2]"
    assert len(web.seen) == 2


def test_a_cache_that_was_copied_needs_no_network(web: Web, make: Make, tmp_path: Path) -> None:
    web.files["/x.json"] = b"[1]"
    make().fetch(f"{web.url}/x.json", tmp_path / "one")
    shutil.copytree(tmp_path / "cache", tmp_path / "copy", copy_function=shutil.copyfile)
    for name in ("two", "three"):
        make(cache=str(tmp_path / "copy"), offline=True).fetch(f"{web.url}/x.json", tmp_path / name)
    assert (tmp_path / "three" / "x.json").read_bytes() == b"[1]"


def test_the_command_checks_the_digest_of_a_part(
    web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _repository(web, "x.json")
    right, wrong = hashlib.sha256(b"x.json").hexdigest(), "0" * 64
    given = ["fetch", "hf://a/b#x.json", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main([*given, "--sha256", wrong]) == 1
    assert capsys.readouterr().err == (
        f"citepipe: hf://a/b#x.json: expected content of sha256 {wrong}, got {right}\n"
    )
    assert main([*given, "--sha256", right]) == 0
    assert (tmp_path / "out" / "x.json").read_bytes() == b"x.json"


def test_digests_go_along_with_the_address_of_a_configuration() -> None:
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    raw["model"]["base"] = "hf://a/b#part"
    digests = {"hf://a/b#part/x": "0" * 64, "hf://a/b#y": "1" * 64, "hf://a/c#x": "2" * 64}
    _, sources = localise(load_config({**raw, "sources": {"sha256": digests}}))
    [source] = sources.values()
    assert (source.address, source.members) == ("hf://a/b", ["part"])
    assert sorted(source.sha256) == ["hf://a/b#part/x", "hf://a/b#y"]
