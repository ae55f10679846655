"""Addresses, and where what they lead to lies."""

from __future__ import annotations

import hashlib

import pytest

from citepipe.errors import InputError
from citepipe.sources.address import Drive, Hub, Web, folder_of, is_remote, local_path, parse

ID = "16YihOAL6sIytNCKtrV7rU8SXAv8hmJVH"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("https://host/a/b.json?x=1", Web("https://host/a/b.json?x=1")),
        (f"https://drive.google.com/file/d/{ID}/view?usp=sharing", Drive(ID, False)),
        (f"https://drive.google.com/open?id={ID}", Drive(ID, False)),
        (f"https://drive.google.com/uc?export=download&id={ID}", Drive(ID, False)),
        (f"https://drive.google.com/drive/folders/{ID}?usp=drive_link", Drive(ID, True)),
        (f"https://drive.google.com/drive/u/0/folders/{ID}", Drive(ID, True)),
        ("hf://datasets/a/b@v1/d/e.json", Hub("datasets", "a/b", "v1", "d/e.json")),
        ("hf://datasets/a/b/e.json", Hub("datasets", "a/b", "main", "e.json")),
        ("hf://a/b", Hub("models", "a/b", "main", "")),
        ("hf://a/b@refs%2Fpr%2F1/x", Hub("models", "a/b", "refs/pr/1", "x")),
    ],
)
def test_addresses(text: str, place: object) -> None:
    assert parse(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host/file",
        "https://",
        "https://host:99999999/x",
        "https://user:secret@host/x",
        "https://ho st/x",
        "https://drive.google.com/drive/my-drive",
        "https://drive.google.com/file/d/short",
        "hf://only",
        "hf://a/b/../../c",
        "hf://datasets/a",
        "https://host/a.zip#../../etc/passwd",
    ],
)
def test_bad_addresses_are_told_in_a_line_without_secrets(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_paths_are_no_addresses() -> None:
    assert not any(map(is_remote, ["data/a.json", "/a", "a:b", "C:/x", "lexical", "x?y=1"]))


def test_where_things_lie() -> None:
    def digest(address: str) -> str:
        return hashlib.sha256(address.encode()).hexdigest()[:8]

    plain = "https://host/some%20file.tar.gz"
    folder = f"r/{digest(plain)}-some-file"
    assert folder_of(plain, "r") == folder_of(f"{plain}#a/b.json", "r") == folder
    assert local_path(f"{plain}#a/b.json", "r", "file") == f"{folder}/a/b.json"
    assert local_path(plain, "r", "folder") == folder
    assert local_path(plain, "r", "file") == f"{folder}/some-file.tar.gz"
    drive = f"https://drive.google.com/file/d/{ID}/view"
    assert local_path(drive, "r", "file") == f"r/{digest(drive)}-drive/file"
