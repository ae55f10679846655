"""Files of texts become passages, and questions find the best of them by BM25."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest

from citepipe.data.example import Document, Example
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.retrieve import (
    Retriever,
    count_words,
    cut,
    nearest_parts,
    read_markdown,
    read_passages,
    read_plain,
)
from citepipe.text.sentences import load_splitter

Captured = pytest.CaptureFixture[str]


PLAINLY = {"stemmer": None, "stop_words": None}


def _retriever(*texts: str, **options: Any) -> Retriever:
    given = RetrievalOptions(passages=["x"], **PLAINLY | options)
    return Retriever([Document("", text) for text in texts], given)


def _texts(found: list[Document]) -> list[str]:
    return [document.text for document in found]


def test_scores_by_hand():
    retriever = _retriever("river bank river", "bank money", "sky", k1=1, b=0.5)
    # Three passages of 3, 2 and 1 words, 2 on average. `river` is in one of them, `bank` in two.
    river, bank = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    assert retriever.scores(["river", "bank"]) == pytest.approx(
        [river * 2 / (2 + 1.25) + bank * 1 / (1 + 1.25), bank * 1 / (1 + 1), 0]
    )
    assert retriever.scores(["bank", "bank"]) == pytest.approx([2 * bank / 2.25, bank, 0])


def test_ties_stand_as_the_passages_do():
    texts = ["b a", "a b", "c a", "a", "a c b"] * 20
    found = _retriever(*texts, b=0).find(["a b"], 45)[0]
    # `a` and `b` in any order tie: 60 passages; they come before those with `a` alone.
    assert _texts(found) == (["b a", "a b", "a c b"] * 15)


def test_sums_in_another_order_tie():
    # All words are equally rare and passages equally long: the scores are the same three numbers
    # added in another order, which rounding makes different in the last digit for some k1.
    texts = ["a a a b b c", "c c c a a b", "b b b c c a", "a b b c c c"]
    for k1 in (0.3, 0.7, 1.1, 1.2, 1.7):
        assert _texts(_retriever(*texts, k1=k1).find(["a b c"], 4)[0]) == texts


def test_words_are_stemmed_and_stop_words_left_out():
    texts = ["He was directing films.", "The director is here."]
    usual = {name: RetrievalOptions.model_fields[name].default for name in PLAINLY}
    retriever = _retriever(*texts, **usual)
    assert _texts(retriever.find(["Who directed the film?"], 2)[0]) == [texts[0]]
    assert retriever.find(["is the"], 2) == [[]]
    own = _retriever(*texts, **usual | {"stop_words": ["Films"]})
    assert own.find(["films"], 2) == [[]]
    assert _texts(own.find(["is the"], 2)[0]) == [texts[1]]
    with pytest.raises(InputError, match=r"^x: expected passages with words in them to look for"):
        _retriever("?!", "the and", **usual)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Sie wohnt in Zürich.", "zurich"),
        ("Sie wohnt in Zu\u0308rich.", "ZÜRICH"),
        ("Die Straße", "STRASSE"),
        ("Москва́ — столица", "столица москва"),
        ("東京は日本の首都です。", "首都"),
        ("हिन्दी भाषा", "हिन्दी"),
        ("return_policy", "policy"),
        ("C-3PO", "3po"),
    ],
)
def test_words_of_other_scripts_and_forms_are_found(text: str, question: str):
    # The title is searched as the text is.
    passages = [Document("", "something else"), Document(text, "Text.")]
    assert Retriever(passages, RetrievalOptions(passages=["x"], **PLAINLY)).find([question], 1) == [
        passages[1:]
    ]


def test_only_examples_without_documents_get_some(capsys: Captured):
    retriever = _retriever("red house", "green house", "blue sky")
    examples = [
        Example("1", "eli5", "What house?", (Document("T", "own"),)),
        Example("2", "eli5", "What house?", (), answer="A red one."),
        Example("3", "eli5", "Who?", ()),
        Example("4", "eli5", "What sky?", ()),
    ]
    completed = retriever.find_documents(examples, 2)
    # Fewer than wanted where no more share a word.
    found = [["own"], ["red house", "green house"], [], ["blue sky"]]
    assert [_texts(list(e.docs)) for e in completed] == found
    assert (completed[1].id, completed[1].answer) == ("2", "A red one.")
    assert capsys.readouterr().err == (
        "retrieval: 3 of 4 questions had no documents and got up to 2 of 3 passages, 1 of them "
        "fewer and 1 none\n"
    )
    assert retriever.find_documents(examples[:1], 2) == examples[:1]
    assert capsys.readouterr().err == ""


def test_own_documents_are_cut_and_the_nearest_parts_come_first(capsys: Captured):
    oslo = "Oslo has many trams, and they run there until one at night."
    harbour = "Its harbour is deep, and large ships lie there in winter too."
    bergen = "The old harbour of the town is the one which tourists photograph."
    docs = (Document("A", f"{oslo} {harbour}", id="7"), Document("B", f"{bergen}\n\n{oslo[:-1]}!"))
    [found, other] = nearest_parts(
        [Example("1", "eli5", "Which harbour is old?", docs), Example("2", "eli5", "Why?", docs)],
        RetrievalOptions(words=12),
    )
    parts = [(doc.title, doc.text, doc.id) for doc in found.docs]
    assert parts[:3] == [("B", bergen, None), ("A", harbour, "7"), ("A", oslo, "7")]
    assert [doc.text for doc in other.docs[:3]] == [oslo, harbour, bergen]
    assert capsys.readouterr().err == (
        "retrieval: 4 documents of 2 questions were cut into 8 passages\n"
    )


def _read(*paths: Path, **more: Any) -> list[Document]:
    return read_passages(RetrievalOptions(passages=list(map(str, paths)), **more))


def _write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path, capsys: Captured):
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
            "c.txt": b"MZ\0\1",
            "d.md": "# Only a title\n",
            "e.jsonl": '{"text": ""}\n{"text": "Text\\nof b. "}',
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
        "retrieval: passages 6, files 5, files without ending passed over 1, files .png passed "
        "over 1, repeated texts left out 2, binary files passed over 1, files or rows without "
        "text 2\n"
    )


def test_ids_tell_passages_of_several_folders_and_files_apart(tmp_path: Path):
    _write(tmp_path / "one", {"a.txt": "One.", "p.jsonl": '{"id": 1, "text": "Row one."}'})
    _write(tmp_path / "two", {"a.txt": "Two.", "p.jsonl": '{"id": 1, "text": "Row two."}'})
    found = _read(tmp_path / "one", tmp_path / "two", tmp_path / "two" / "a.txt")
    assert [d.id for d in found] == ["one/a.txt#1", "1", "two/a.txt#1", "two/p.jsonl#1"]


def test_rows_are_cut_on_request_only(tmp_path: Path):
    text = "One two three four five. " * 2 + "Six seven eight nine ten. " * 3
    _write(tmp_path, {"a.jsonl": json.dumps({"id": "x", "title": "T", "text": text})})
    assert [d.text for d in _read(tmp_path, words=10)] == [text.strip()]
    assert [d.id for d in _read(tmp_path, words=10, cut="all")] == ["x#1", "x#2", "x#3"]
    _write(tmp_path, {"b.txt": text.replace("One", "Ten")})
    assert [d.id for d in _read(tmp_path / "b.txt", words=10, cut="nothing")] == ["b.txt#1"]


def test_texts_of_windows_are_read(tmp_path: Path):
    _write(
        tmp_path,
        {
            "a.txt": "Title\r\n\r\nÄpfel.\r\n".encode("utf-16"),
            "b.txt": b"\xef\xbb\xbfTitle\r\n\r\nBirnen.\r\n",
            "c.jsonl": b'\xef\xbb\xbf{"text": "Kirschen."}\r\n',
            "d.tsv": b"\xef\xbb\xbfid\ttitle\ttext\r\n1\tT\tTrauben.\r\n",
        },
    )
    found = " ".join(f"{d.title}: {d.text}" for d in _read(tmp_path))
    assert found == "Title: Äpfel. Title: Birnen. c: Kirschen. T: Trauben."


def test_links_in_a_circle_are_followed_once(tmp_path: Path):
    _write(tmp_path / "real", {"a.txt": "Text."})
    (tmp_path / "real" / "back").symlink_to(tmp_path, target_is_directory=True)
    assert [d.text for d in _read(tmp_path)] == ["Text."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", "a.txt: expected UTF-8 text, byte 3 is not"),
        (b"\xff\xfea\x00\x00\xd8", "a.md: expected UTF-16 text, byte 4 is not"),
        ('{"text": "a"}\n{"text": ', "a.jsonl, line 2: expected JSON, EOF while"),
        ('["text"]', "a.jsonl, line 1: expected an object or a string, got a list"),
        ('{"text": ["a"]}', "a.jsonl, line 1, field text: expected a string, got a list"),
        ('{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}', "a.jsonl, line 2, field id: expected"),
        ("1\ta\n2", "a.tsv, line 2: expected 2 columns (id, text), got 1"),
        ("title\ttext\na\tb\tc", "a.tsv, line 2: expected 2 columns (title, text), got 3"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, content: str | bytes, message: str):
    _write(tmp_path, {message.partition(":")[0].partition(",")[0]: content})
    with pytest.raises(InputError) as error:
        _read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(error.value)


def test_paths_that_hold_no_passages_are_one_clear_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"none: expected a folder, or a file that ends"):
        _read(tmp_path / "none")
    with pytest.raises(InputError, match=r"no\.txt: cannot be read: No such file"):
        _read(tmp_path / "no.txt")
    with pytest.raises(InputError, match=r"expected texts in files .*\.txt, .*passages 0"):
        _read(tmp_path)
    _write(tmp_path, {"a.pdf": b"%PDF", "b.txt": b"\0"})
    with pytest.raises(InputError, match=r"files \.pdf passed over 1, binary files passed over 1$"):
        _read(tmp_path)
    with pytest.raises(InputError, match=r"a\.pdf: expected a folder, or a file that ends"):
        _read(tmp_path / "a.pdf")
    with pytest.raises(InputError, match=r"b\.txt: expected text, found a binary file"):
        _read(tmp_path / "b.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_one_clear_line(tmp_path: Path):
    _write(tmp_path, {"a/b.txt": "Text.", "c.txt": "Text.", "d.jsonl": '{"text": "a"}'})
    for path in ("a", "c.txt", "d.jsonl"):
        (tmp_path / path).chmod(0)
        with pytest.raises(InputError, match=f"{path}: cannot be read: Permission denied"):
            _read(tmp_path)
        (tmp_path / path).chmod(0o700)


def _cut(text: str, words: int) -> list[str]:
    (record,) = read_plain(text, Path("a.txt"))
    return cut([" ".join(block.split()) for block in record.blocks], words, load_splitter())


@pytest.mark.parametrize(
    ("text", "words", "passages"),
    [
        # What fits stays whole.
        ("One two.\nThree four.\n\nFive six.", 7, ["One two. Three four. Five six."]),
        ("Mr. Berg came. He saw Dr. Lind.", 4, ["Mr. Berg came.", "He saw Dr. Lind."]),
        # A paragraph ends a passage that has half of its words.
        ("Aa bb cc. Dd ee.\n\nGg hh. Jj kk.", 8, ["Aa bb cc. Dd ee.", "Gg hh. Jj kk."]),
        # Of scripts without spaces every character is a word.
        ("東京は日本の首都です。人口は多い。", 12, ["東京は日本の首都です。", "人口は多い。"]),
        # Items of lists are not torn apart.
        ("Hours:\n- Monday nine\n- Sunday\n  one", 5, ["Hours: - Monday nine", "- Sunday one"]),
    ],
)
def test_texts_are_cut_at_the_ends_of_paragraphs_and_sentences(
    text: str, words: int, passages: list[str]
):
    assert _cut(text, words) == passages


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_nothing_too_long(seed: int):
    rng = random.Random(seed)
    ends = [".", "!", "?", "", ",", ".\n\n", "\n- ", "\n\n"]
    text = "Begin.\n\n" + " ".join(f"{rng.choice('abC')}{i}{rng.choice(ends)}" for i in range(200))
    words = rng.randint(10, 40)
    passages = _cut(text, words)
    assert max(map(count_words, passages)) <= words
    assert " ".join(passages).split() == text.split()


PLAIN = [
    ("A Title\n\nText one.\n\nText\ntwo.", "A Title", ["Text one.", "Text\ntwo."]),
    ("A sentence.\n\nAnother.", None, ["A sentence.", "Another."]),
    ("Two lines\nof it\n\nAnother.", None, ["Two lines\nof it", "Another."]),
]


@pytest.mark.parametrize(("text", "title", "blocks"), PLAIN)
def test_the_title_of_a_plain_text(text: str, title: str | None, blocks: list[str]):
    assert list(read_plain(text, Path("a.txt"))) == [("a.txt", title, blocks, None)]


@pytest.mark.parametrize(
    ("text", "title", "blocks"),
    [
        ("# Top #\nIntro.\n## Part\nBody.\n", "Top", ["Intro.", "Part: Body."]),
        ("Intro.\n\n# Top\nBody.", "Top", ["Intro.", "Body."]),
        ("---\ntitle: 'Front'\ndate: 1\n---\n# Top\nBody.", "Front", ["Top: Body."]),
        ("Top\n===\n\nBody.\n\nPart\n---\nMore.", "Top", ["Body.", "Part: More."]),
        ("# Top\n## Why?\nBecause.\n## Empty\n", "Top", ["Why? Because.", "Empty"]),
        (
            'See [the page](http://a.b "T") and ![a map](m.png).<!-- not\nthis --> **So**\nit is.',
            None,
            ["See the page and a map. So it is."],
        ),
        ("# Top\n## List\n- a b\n- c d", "Top", ["List: a b", "c d"]),
        ("#" + " word" * 31 + "\nBody.", None, ["word " * 30 + "word: Body."]),
    ],
)
def test_markdown(text: str, title: str | None, blocks: list[str]):
    assert list(read_markdown(text, Path("a.md"))) == [("a.md", title, blocks, None)]
