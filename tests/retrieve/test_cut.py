"""Texts are cut at the ends of paragraphs and sentences, and lose nothing."""

from __future__ import annotations

import random

import pytest

from citepipe.retrieve.cut import count_words, cut
from citepipe.retrieve.texts import Paragraph, read_markdown, read_plain
from citepipe.text.sentences import load_splitter

SPLIT = load_splitter()


def _cut(text: str, words: int, overlap: int = 0) -> list[str]:
    return cut(read_plain(text).paragraphs, words, overlap, SPLIT)


def test_what_fits_stays_whole() -> None:
    assert _cut("One two.\nThree four.\n\nFive six seven.", 7) == [
        "One two. Three four. Five six seven."
    ]
    assert _cut(" \n\n ", 7) == []


def test_passages_end_with_sentences() -> None:
    text = "Mr. A. Berg came. He saw Dr. Lind. They left the U.S. in 1990. It rained."
    assert _cut(text, 10) == [
        "Mr. A. Berg came. He saw Dr. Lind.",
        "They left the U.S. in 1990. It rained.",
    ]


def test_a_paragraphs_end_is_preferred_in_the_second_half() -> None:
    text = "Aa bb cc. Dd ee ff.\n\nGg hh ii. Jj kk ll. Mm nn oo."
    # Nine words would fit, but the paragraph ends with the sixth.
    assert _cut(text, 10) == ["Aa bb cc. Dd ee ff.", "Gg hh ii. Jj kk ll. Mm nn oo."]
    # Six are less than half of 14, of which four sentences fill 12.
    assert _cut(text, 14) == ["Aa bb cc. Dd ee ff. Gg hh ii. Jj kk ll.", "Mm nn oo."]


def test_a_sentence_without_end_is_cut_into_equal_parts() -> None:
    text = " ".join(f"w{i}" for i in range(25))
    assert [count_words(part) for part in _cut(text, 10)] == [9, 9, 7]
    assert " ".join(_cut(text, 10)) == text


def test_passages_overlap_by_whole_sentences() -> None:
    text = "Aa bb cc. Dd ee. Ff gg. Hh ii jj. Kk ll mm."
    assert _cut(text, 8, overlap=4) == [
        "Aa bb cc. Dd ee. Ff gg.",
        "Dd ee. Ff gg. Hh ii jj.",
        "Hh ii jj. Kk ll mm.",
    ]
    assert _cut(text, 8, overlap=2) == ["Aa bb cc. Dd ee. Ff gg.", "Ff gg. Hh ii jj. Kk ll mm."]


def test_an_overlap_never_stands_in_the_way() -> None:
    # After `Bb cc.` there is room for the long sentence only.
    assert _cut("Aa. Bb cc. Dd ee ff gg hh ii jj kk ll.", 10, overlap=5) == [
        "Aa. Bb cc.",
        "Dd ee ff gg hh ii jj kk ll.",
    ]


def test_an_overlap_is_never_a_whole_passage() -> None:
    assert _cut("Aa bb cc dd ee.\n\nFf gg hh ii jj. Kk ll mm.", 10, overlap=5) == [
        "Aa bb cc dd ee.",
        "Ff gg hh ii jj. Kk ll mm.",
    ]


def test_scripts_without_spaces_are_cut_by_characters() -> None:
    assert count_words("東京は日本の首都です。") == 11
    text = "東京は日本の首都です。人口は多いです。京都は古い都です。"
    assert _cut(text, 20) == ["東京は日本の首都です。 人口は多いです。", "京都は古い都です。"]


def test_items_of_lists_are_not_torn_apart() -> None:
    text = (
        "Hours:\n- Monday nine to five\n- Tuesday ten to\n  four\n1. First of all\n2. Second of all"
    )
    assert _cut(text, 10) == [
        "Hours: - Monday nine to five",
        "- Tuesday ten to four 1. First of all",
        "2. Second of all",
    ]


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
    ("text", "title", "paragraphs"),
    [
        ("A Title\n\nText one.\n\nText\ntwo.", "A Title", [("Text one.",), ("Text two.",)]),
        ("A sentence.\n\nAnother.", None, [("A sentence.",), ("Another.",)]),
        ("Two lines\nof it\n\nAnother.", None, [("Two lines of it",), ("Another.",)]),
        ("Alone", None, [("Alone",)]),
        ("", None, []),
    ],
)
def test_the_title_of_a_plain_text(text: str, title: str, paragraphs: list[Paragraph]) -> None:
    assert read_plain(text) == (title, paragraphs)


@pytest.mark.parametrize(
    ("text", "title", "paragraphs"),
    [
        ("# Top #\nIntro.\n## Part\nBody.\n", "Top", [("Intro.",), ("Part: Body.",)]),
        ("Intro.\n\n# Top\nBody.", "Top", [("Intro.",), ("Body.",)]),
        ("---\ntitle: 'Front'\ndate: 1\n---\n# Top\nBody.", "Front", [("Top: Body.",)]),
        ("---\ntitle: Same\n---\n# Same\nBody.", "Same", [("Body.",)]),
        ("Top\n===\n\nBody.\n\nPart\n---\nMore.", "Top", [("Body.",), ("Part: More.",)]),
        ("# Top\n## Why?\nBecause.\n## Empty\n", "Top", [("Why? Because.",), ("Empty",)]),
        ("# Top\n```\n# no heading\n```\nBody.", "Top", [("# no heading",), ("Body.",)]),
        (
            'See [the page](http://a.b/c_(d) "T") and ![a map](m.png).<!-- not\nthis -->',
            None,
            [("See the page and a map.",)],
        ),
        ("Text.\n\n---\n\nMore.", None, [("Text.",), ("---",), ("More.",)]),
        ("# Top\n## List\n- a b\n- c d", "Top", [("List: - a b", "- c d")]),
        ("# C#\nBody.", "C#", [("Body.",)]),
        ("#" + " word" * 31 + "\nBody.", None, [("word " * 30 + "word: Body.",)]),
        ("One <!-- two\n\nthree.", None, [("One <!-- two",), ("three.",)]),
        ("#hashtag is no heading", None, [("#hashtag is no heading",)]),
    ],
)
def test_markdown(text: str, title: str | None, paragraphs: list[Paragraph]) -> None:
    assert read_markdown(text) == (title, paragraphs)
