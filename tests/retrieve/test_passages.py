"""Files and folders of texts become passages; what is wrong with one is said in a line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from citepipe.data.example import Document
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.retrieve.passages import Passages, read_passages


def _read(*paths: Path | str, **more: object) -> Passages:
    options = {"passages": list(map(str, paths)), **more}
    return read_passages(RetrievalOptions.model_validate(options))


def _write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    return folder


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    folder = _write(
        tmp_path,
        {
            "b.txt": "Text of b.",
            "a/z.md": "# Zed\n" + "One two three four five six. " * 4,
            "a/y.jsonl": '{"text": "Row.", "title": "R", "id": 7}\n\n{"passage": "No title."}\n',
            "a.tsv": '1\tSome text.\tT\n2\t"He said ""no""."\tU',
            ".hidden.txt": "Hidden.",
            ".git/x.txt": "Hidden.",
            "photo.png": b"\x89PNG",
            "LICENCE": "Text.",
        },
    )
    found = _read(folder, words=12)
    assert found.documents == [
        Document("T", "Some text.", id="1"),
        Document("U", 'He said "no".', id="2"),
        Document("R", "Row.", id="7"),
        Document("y", "No title.", id="a/y.jsonl#2"),
        Document("Zed", "One two three four five six. One two three four five six.", id="a/z.md#1"),
        Document("b", "Text of b.", id="b.txt#1"),
    ]
    assert found.summary() == (
        "retrieval: passages 6, files 4, repeated texts left out 1, "
        "files passed over 2 (.png 1, without ending 1)"
    )


def test_the_same_folder_gives_the_same_passages_wherever_it_lies(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{name}.txt": f"Text {name}." for name in "cab"}
    one, other = _write(tmp_path / "one", files), _write(tmp_path / "two", files)
    assert _read(one).documents == _read(other).documents


def test_ids_tell_passages_of_several_folders_and_files_apart(tmp_path: Path) -> None:
    _write(tmp_path / "one", {"a.txt": "One.", "p.jsonl": '{"id": 1, "text": "Row one."}'})
    _write(tmp_path / "two", {"a.txt": "Two.", "p.jsonl": '{"id": 1, "text": "Row two."}'})
    found = _read(tmp_path / "one", tmp_path / "two", tmp_path / "two" / "a.txt")
    assert [(d.id, d.text) for d in found.documents] == [
        ("one/a.txt#1", "One."),
        ("1", "Row one."),
        ("two/a.txt#1", "Two."),
        ("two/p.jsonl#1", "Row two."),
    ]


def test_repeated_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"title": "A", "text": "Same  text."}, {"title": "B", "text": "Same\ntext."}]
    _write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, rows)), "b.txt": "Same text.\n"})
    found = _read(tmp_path)
    assert found.documents == [Document("A", "Same text.", id="a.jsonl#1")]
    assert (found.duplicates, found.files) == (2, 2)


def test_rows_are_cut_on_request_only(tmp_path: Path) -> None:
    text = "One two three four five. " * 2 + "Six seven eight nine ten. " * 3
    _write(tmp_path, {"a.jsonl": json.dumps({"id": "x", "title": "T", "text": text})})
    whole = _read(tmp_path, words=10)
    assert [d.text for d in whole.documents] == [text.strip()]
    assert whole.summary() == (
        "retrieval: passages 1, files 1, long rows left whole 1 (`cut: all` cuts them)"
    )
    assert [(d.id, d.text[:3]) for d in _read(tmp_path, words=10, cut="all").documents] == [
        ("x#1", "One"),
        ("x#2", "Six"),
        ("x#3", "Six"),
    ]
    _write(tmp_path, {"b.txt": text.replace("One", "Ten")})
    found = _read(tmp_path / "b.txt", words=10, cut="nothing")
    assert [count.id for count in found.documents] == ["b.txt#1"]


def test_texts_of_windows_are_read(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "a.txt": "Title\r\n\r\nÄpfel.\r\n".encode("utf-16"),
            "b.txt": b"\xef\xbb\xbfTitle\r\n\r\nBirnen.\r\n",
            "c.jsonl": b'\xef\xbb\xbf{"text": "Kirschen."}\r\n',
            "d.tsv": b"\xef\xbb\xbfid\ttitle\ttext\r\n1\tT\tTrauben.\r\n",
        },
    )
    assert [(d.title, d.text) for d in _read(tmp_path).documents] == [
        ("Title", "Äpfel."),
        ("Title", "Birnen."),
        ("c", "Kirschen."),
        ("T", "Trauben."),
    ]


def test_binary_and_empty_files_are_counted(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "a.txt": b"MZ\0\1",
            "b.txt": " \n",
            "c.md": "# Only a title\n",
            "d.jsonl": '{"text": ""}\n{"text": "Text."}',
        },
    )
    found = _read(tmp_path)
    assert found.summary() == (
        "retrieval: passages 1, files 1, files or rows without text 3, files passed over 1 "
        "(binary 1)"
    )


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    _write(tmp_path / "real", {"a.txt": "Text."})
    (tmp_path / "real" / "back").symlink_to(tmp_path, target_is_directory=True)
    found = _read(tmp_path)
    assert [d.text for d in found.documents] == ["Text."]
    assert found.duplicates == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9", "a.txt: expected UTF-8 text, byte 3 is not"),
        ("a.md", b"\xff\xfea\x00\x00\xd8", "a.md: expected UTF-16 text, byte 4 is not"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', "a.jsonl, line 2: expected UTF-8 text"),
        ("a.jsonl", '{"text": "a"}\n{"text": ', "a.jsonl, line 2: expected JSON, Expecting value"),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: expected JSON, "),
        ("a.jsonl", '["text"]', "a.jsonl, line 1: expected an object or a string, got a list"),
        ("a.jsonl", '{"title": "a"}', "a.jsonl, line 1, field text: missing"),
        (
            "a.jsonl",
            '{"text": ["a"]}',
            "a.jsonl, line 1, field text: expected a string, got a list",
        ),
        (
            "a.jsonl",
            '{"text": "a", "title": 5}',
            "a.jsonl, line 1, field title: expected a string, got a number",
        ),
        (
            "a.jsonl",
            '{"text": "a \\ud83d b"}',
            "a.jsonl, line 1, field text: expected Unicode text, got half a character",
        ),
        (
            "a.jsonl",
            '{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}',
            "a.jsonl, line 2, field id: expected another one than ",
        ),
        ("a.tsv", "text alone", "a.tsv, line 1: expected columns id, text and title"),
        ("a.tsv", "1\ta\n2", "a.tsv, line 2: expected 2 columns (id, text), got 1"),
        (
            "a.tsv",
            "title\ttext\na\tb\tc",
            "a.tsv, line 2: expected 2 columns (title, text), got 3",
        ),
    ],
)
def test_a_bad_file_is_one_clear_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    _write(tmp_path, {name: content})
    with pytest.raises(InputError) as error:
        _read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(error.value)


def test_paths_that_hold_no_passages_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: cannot be read: no such file or folder"):
        _read(tmp_path / "none")
    with pytest.raises(
        InputError, match=r"expected texts in files that end in \.txt, .*passages 0"
    ):
        _read(tmp_path)
    _write(tmp_path, {"a.pdf": b"%PDF", "b.txt": b"\0"})
    with pytest.raises(InputError, match=r"files passed over 2 \(\.pdf 1, binary 1\)$"):
        _read(tmp_path)
    with pytest.raises(
        InputError, match=r"a\.pdf: expected a folder, or a file that ends in \.txt"
    ):
        _read(tmp_path / "a.pdf")
    with pytest.raises(InputError, match=r"b\.txt: expected text, found a binary file"):
        _read(tmp_path / "b.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_one_clear_line(tmp_path: Path) -> None:
    _write(tmp_path, {"a/b.txt": "Text.", "c.txt": "Text.", "d.jsonl": '{"text": "a"}'})
    for path in ("a", "c.txt", "d.jsonl"):
        (tmp_path / path).chmod(0)
        with pytest.raises(InputError, match=f"{path}: cannot be read: Permission denied"):
            _read(tmp_path)
        (tmp_path / path).chmod(0o700)
