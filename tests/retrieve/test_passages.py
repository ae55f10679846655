"""Files and folders of texts become passages, cut at the ends of paragraphs and sentences."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from citepipe.data.example import Document
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.retrieve.passages import (
    count_words,
    cut,
    read_markdown,
    read_passages,
    read_plain,
)
from citepipe.text.sentences import load_splitter


def _read(*paths: Path | str, **more: object) -> list[Document]:
    options = {"passages": list(map(str, paths)), **more}
    return read_passages(RetrievalOptions.model_validate(options))


def _write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    return folder


def test_a_folder_is_read_in_the_order_of_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert _read(folder, words=12) == [
        Document("T", "Some text.", id="1"),
        Document("U", 'He said "no".', id="2"),
        Document("R", "Row.", id="7"),
        Document("y", "No title.", id="a/y.jsonl#2"),
        Document("Zed", "One two three four five six. One two three four five six.", id="a/z.md#1"),
        Document("b", "Text of b.", id="b.txt#1"),
    ]
    assert capsys.readouterr().err == (
        "retrieval: passages 6, files 4, repeated texts left out 1, "
        "files passed over 2 (.png 1, without ending 1)\n"
    )


def test_ids_tell_passages_of_several_folders_and_files_apart(tmp_path: Path) -> None:
    _write(tmp_path / "one", {"a.txt": "One.", "p.jsonl": '{"id": 1, "text": "Row one."}'})
    _write(tmp_path / "two", {"a.txt": "Two.", "p.jsonl": '{"id": 1, "text": "Row two."}'})
    found = _read(tmp_path / "one", tmp_path / "two", tmp_path / "two" / "a.txt")
    assert [(d.id, d.text) for d in found] == [
        ("one/a.txt#1", "One."),
        ("1", "Row one."),
        ("two/a.txt#1", "Two."),
        ("two/p.jsonl#1", "Row two."),
    ]


def test_repeated_texts_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"title": "A", "text": "Same  text."}, {"title": "B", "text": "Same\ntext."}]
    _write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, rows)), "b.txt": "Same text.\n"})
    assert _read(tmp_path) == [Document("A", "Same text.", id="a.jsonl#1")]
    assert capsys.readouterr().err.endswith("files 2, repeated texts left out 2\n")


def test_rows_are_cut_on_request_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "One two three four five. " * 2 + "Six seven eight nine ten. " * 3
    _write(tmp_path, {"a.jsonl": json.dumps({"id": "x", "title": "T", "text": text})})
    assert [d.text for d in _read(tmp_path, words=10)] == [text.strip()]
    assert capsys.readouterr().err.endswith("long rows left whole (`cut: all` cuts them) 1\n")
    assert [(d.id, d.text[:3]) for d in _read(tmp_path, words=10, cut="all")] == [
        ("x#1", "One"),
        ("x#2", "Six"),
        ("x#3", "Six"),
    ]
    _write(tmp_path, {"b.txt": text.replace("One", "Ten")})
    assert [d.id for d in _read(tmp_path / "b.txt", words=10, cut="nothing")] == ["b.txt#1"]


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
    assert [(d.title, d.text) for d in _read(tmp_path)] == [
        ("Title", "Äpfel."),
        ("Title", "Birnen."),
        ("c", "Kirschen."),
        ("T", "Trauben."),
    ]


def test_binary_and_empty_files_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(
        tmp_path,
        {
            "a.txt": b"MZ\0\1",
            "b.txt": " \n",
            "c.md": "# Only a title\n",
            "d.jsonl": '{"text": ""}\n{"text": "Text."}',
        },
    )
    _read(tmp_path)
    assert capsys.readouterr().err == (
        "retrieval: passages 1, files 1, files or rows without text 3, files passed over 1 "
        "(binary 1)\n"
    )


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    _write(tmp_path / "real", {"a.txt": "Text."})
    (tmp_path / "real" / "back").symlink_to(tmp_path, target_is_directory=True)
    assert [d.text for d in _read(tmp_path)] == ["Text."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", "a.txt: expected UTF-8 text, byte 3 is not"),
        (b"\xff\xfea\x00\x00\xd8", "a.md: expected UTF-16 text, byte 4 is not"),
        ('{"text": "a"}\n{"text": ', "a.jsonl, line 2: expected JSON, Expecting value"),
        ('["text"]', "a.jsonl, line 1: expected an object or a string, got a list"),
        ('{"title": "a"}', "a.jsonl, line 1, field text: missing"),
        ('{"text": ["a"]}', "a.jsonl, line 1, field text: expected a string, got a list"),
        ('{"text": "a \\ud83d b"}', "a.jsonl, line 1: expected Unicode text, got half a"),
        (
            '{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}',
            "a.jsonl, line 2, field id: expected another one than ",
        ),
        ("text alone", "a.tsv, line 1: expected columns id, text and title"),
        ("1\ta\n2", "a.tsv, line 2: expected 2 columns (id, text), got 1"),
        ("title\ttext\na\tb\tc", "a.tsv, line 2: expected 2 columns (title, text), got 3"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    _write(tmp_path, {message.partition(":")[0].partition(",")[0]: content})
    with pytest.raises(InputError) as error:
        _read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(error.value)


def test_paths_that_hold_no_passages_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: cannot be read: no such file or folder"):
        _read(tmp_path / "none")
    with pytest.raises(InputError, match=r"expected texts in files .*\.txt, .*passages 0"):
        _read(tmp_path)
    _write(tmp_path, {"a.pdf": b"%PDF", "b.txt": b"\0"})
    with pytest.raises(InputError, match=r"files passed over 2 \(\.pdf 1, binary 1\)$"):
        _read(tmp_path)
    with pytest.raises(InputError, match=r"a\.pdf: expected a folder, or a file that ends"):
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


def _cut(text: str, words: int, overlap: int = 0) -> list[str]:
    (record,) = read_plain(text, Path("a.txt"))
    return cut(
        [" ".join(block.split()) for block in record.blocks], words, overlap, load_splitter()
    )


@pytest.mark.parametrize(
    ("text", "words", "overlap", "passages"),
    [
        # What fits stays whole.
        ("One two.\nThree four.\n\nFive six.", 7, 0, ["One two. Three four. Five six."]),
        (
            "Mr. A. Berg came. He saw Dr. Lind. They left the U.S. in 1990. It rained.",
            10,
            0,
            ["Mr. A. Berg came. He saw Dr. Lind.", "They left the U.S. in 1990. It rained."],
        ),
        # A paragraph ends a passage that has half of its words.
        (
            "Aa bb cc. Dd ee.\n\nGg hh ii. Jj kk.",
            9,
            0,
            ["Aa bb cc. Dd ee.", "Gg hh ii. Jj kk."],
        ),
        ("Aa bb.\n\nGg hh ii. Jj kk ll.", 7, 0, ["Aa bb. Gg hh ii.", "Jj kk ll."]),
        ("a b c d e f g h i j k l", 10, 0, ["a b c d e f g h i j", "k l"]),
        (
            "Aa bb cc. Dd ee. Ff gg. Hh ii jj. Kk ll mm.",
            8,
            4,
            ["Aa bb cc. Dd ee. Ff gg.", "Dd ee. Ff gg. Hh ii jj.", "Hh ii jj. Kk ll mm."],
        ),
        # After `Bb cc.` there is room for the long sentence only.
        (
            "Aa. Bb cc. Dd ee ff gg hh ii jj kk ll.",
            10,
            5,
            ["Aa. Bb cc.", "Dd ee ff gg hh ii jj kk ll."],
        ),
        # An overlap is never a whole passage.
        (
            "Aa bb cc dd ee.\n\nFf gg hh ii jj. Kk ll mm.",
            10,
            5,
            ["Aa bb cc dd ee.", "Ff gg hh ii jj. Kk ll mm."],
        ),
        # Of scripts without spaces every character is a word.
        (
            "東京は日本の首都です。人口は多いです。京都は古い都です。",
            20,
            0,
            ["東京は日本の首都です。 人口は多いです。", "京都は古い都です。"],
        ),
        # Items of lists are not torn apart.
        (
            "Hours:\n- Monday nine to five\n- Tuesday ten to\n  four\n* Sunday closed",
            10,
            0,
            ["Hours: - Monday nine to five", "- Tuesday ten to four", "* Sunday closed"],
        ),
    ],
)
def test_texts_are_cut_at_the_ends_of_paragraphs_and_sentences(
    text: str, words: int, overlap: int, passages: list[str]
) -> None:
    assert _cut(text, words, overlap) == passages


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_lost_and_nothing_too_long(seed: int) -> None:
    rng = random.Random(seed)
    ends = [".", "!", "?", "", ",", ".\n\n", "\n- ", "\n\n"]
    text = "Begin.\n\n" + " ".join(f"{rng.choice('abC')}{i}{rng.choice(ends)}" for i in range(200))
    words, overlap = rng.randint(10, 40), rng.choice([0, 0, 3, 5])
    passages = _cut(text, words, overlap)
    assert max(map(count_words, passages)) <= words
    if not overlap:
        assert " ".join(passages).split() == text.split()
        return
    done = 0
    for passage in passages:
        got = passage.split()
        # Each goes on from the last, a few words back at most, and further than it.
        back = next(
            back for back in range(overlap + 1) if text.split()[done - back :][: len(got)] == got
        )
        assert len(got) > back
        done += len(got) - back
    assert done == len(text.split())


@pytest.mark.parametrize(
    ("text", "title", "blocks"),
    [
        ("A Title\n\nText one.\n\nText\ntwo.", "A Title", ["Text one.", "Text\ntwo."]),
        ("A sentence.\n\nAnother.", None, ["A sentence.", "Another."]),
        ("Two lines\nof it\n\nAnother.", None, ["Two lines\nof it", "Another."]),
        ("Alone", None, ["Alone"]),
    ],
)
def test_the_title_of_a_plain_text(text: str, title: str, blocks: list[str]) -> None:
    assert list(read_plain(text, Path("a.txt"))) == [("a.txt", title, blocks, None)]


@pytest.mark.parametrize(
    ("text", "title", "blocks"),
    [
        ("# Top #\nIntro.\n## Part\nBody.\n", "Top", ["Intro.", "Part: Body."]),
        ("Intro.\n\n# Top\nBody.", "Top", ["Intro.", "Body."]),
        ("---\ntitle: 'Front'\ndate: 1\n---\n# Top\nBody.", "Front", ["Top: Body."]),
        ("---\ntitle: Same\n---\n# Same\nBody.", "Same", ["Body."]),
        ("Top\n===\n\nBody.\n\nPart\n---\nMore.", "Top", ["Body.", "Part: More."]),
        ("# Top\n## Why?\nBecause.\n## Empty\n", "Top", ["Why? Because.", "Empty"]),
        ("# Top\n```\n# no heading\n```\nBody.", "Top", ["# no heading", "Body."]),
        (
            'See [the page](http://a.b "T") and ![a map](m.png).<!-- not\nthis --> **So**\nit is.',
            None,
            ["See the page and a map. So it is."],
        ),
        ("# Top\n## List\n- a b\n- c d", "Top", ["List: a b", "c d"]),
        ("#" + " word" * 31 + "\nBody.", None, ["word " * 30 + "word: Body."]),
        ("#hashtag is no heading", None, ["#hashtag is no heading"]),
    ],
)
def test_markdown(text: str, title: str | None, blocks: list[str]) -> None:
    assert list(read_markdown(text, Path("a.md"))) == [("a.md", title, blocks, None)]
