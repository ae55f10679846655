"""Archives that try to land elsewhere, and damaged ones."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from citepipe.errors import InputError
from citepipe.sources.archive import is_archive, unpack


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def _zip(path: Path, **files: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _zip_named(name: str) -> Callable[[Path], None]:
    return lambda path: _zip(path, **{name: b"x"})


def _tar_of(*infos: tarfile.TarInfo) -> Callable[[Path], None]:
    return lambda path: _tar(path, *((info, b"") for info in infos))


def _zip_link(path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")


def _zip_twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**27))


EVIL: dict[str, tuple[Callable[[Path], None], str]] = {
    "above, zip": (_zip_named("../evil"), "'../evil' would land outside of its folder"),
    "above, tar": (_tar_of(_info("a/../../evil")), "would land outside of its folder"),
    "root, zip": (_zip_named("/tmp/evil"), "'/tmp/evil' would land outside of its folder"),
    "root, tar": (_tar_of(_info("/tmp/evil")), "'/tmp/evil' would land outside of its folder"),
    "another disk": (_zip_named("C:evil"), "'C:evil' would land outside of its folder"),
    "backslashes": (_zip_named("..\\evil"), "would land outside of its folder"),
    "link, zip": (_zip_link, "'link' is a link or device, no file"),
    "link, tar": (_tar_of(_info("l", tarfile.SYMTYPE, "/etc")), "'l' is a link or device, no file"),
    "hard link": (_tar_of(_info("l", tarfile.LNKTYPE, "/etc/passwd")), "is a link or device"),
    "device": (_tar_of(_info("d", tarfile.CHRTYPE)), "'d' is a link or device, no file"),
    "pipe": (_tar_of(_info("p", tarfile.FIFOTYPE)), "'p' is a link or device, no file"),
    "twice": (_zip_twice, "has 'a' twice"),
    "file and folder": (
        _tar_of(_info("a"), _info("a/b")),
        "cannot be unpacked: File exists",
    ),
    "bomb": (_bomb, "unpacks to more than 200 times its size"),
    "empty": (lambda path: _zip(path), "an archive without files"),
}


@pytest.mark.parametrize(("make", "line"), EVIL.values(), ids=EVIL)
def test_what_is_refused(make: Callable[[Path], None], line: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    make(archive)
    assert is_archive(archive)
    with pytest.raises(InputError) as caught:
        unpack(archive, tmp_path / "in" / "out")
    assert str(caught.value).startswith(f"{archive}: ")
    assert line in str(caught.value)
    assert not (tmp_path / "in" / "out").exists()
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_of_any_compression(mode: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    members = [(_info("top/a.json"), b"[1]"), (_info("top/deep/b.json"), b"[2]")]
    _tar(archive, *members, mode=mode)
    assert unpack(archive, tmp_path / "out") == 2
    assert (tmp_path / "out" / "top" / "deep" / "b.json").read_bytes() == b"[2]"


def test_what_only_some_systems_add_is_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    _zip(archive, **{"a": b"1", "__MACOSX/._a": b"?", ".DS_Store": b"?"})
    assert unpack(archive, tmp_path / "out") == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_tar_that_is_cut_off(share: float, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    content = bytes(i * i % 251 for i in range(200_000))
    _tar(archive, (_info("a"), content))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="a damaged archive"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_zip_whose_content_was_changed(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    _zip(archive, a=b"some content")
    archive.write_bytes(archive.read_bytes().replace(b"some content", b"some changes"))
    with pytest.raises(InputError, match="a damaged archive: Bad CRC-32"):
        unpack(archive, tmp_path / "out")


def test_what_is_no_archive(tmp_path: Path) -> None:
    for name, content in {"a.json": b"[]", "b.bin": bytes(1000), "c": b"text PK\x03\x04"}.items():
        (tmp_path / name).write_bytes(content)
        assert not is_archive(tmp_path / name)


def test_a_checkpoint_of_torch_is_no_archive(tmp_path: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(2)}, tmp_path / "a.bin")
    assert not is_archive(tmp_path / "a.bin")
