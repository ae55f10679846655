import pytest

from citepipe.miniature.language import (
    Fact,
    names_of,
    parse_list_item,
    parse_sentence,
    say,
    split_of,
)

FILM, PERSON = "Silver River", "Anna Berg"


@pytest.mark.parametrize(
    ("form", "fact", "sentence"),
    [
        ("starred", (FILM, PERSON, "1972"), "Silver River starred Anna Berg in 1972."),
        ("starred*", (FILM, PERSON, "1972"), "Anna Berg starred in Silver River in 1972."),
        ("directed*", (FILM, PERSON, "1972"), "Anna Berg directed Silver River in 1972."),
        ("won", (PERSON, "Opal Cup", "1972"), "Anna Berg won the Opal Cup in 1972."),
        ("won*", (FILM, "Opal Cup", "1972"), "The Opal Cup went to Silver River in 1972."),
        ("lived", (PERSON, "Oslo", ""), "Anna Berg lived in Oslo."),
    ],
)
def test_every_form_is_said_and_read_back(
    form: str, fact: tuple[str, str, str], sentence: str
) -> None:
    stated = Fact(form.removesuffix("*"), *fact)
    assert say(form, stated) == sentence
    assert parse_sentence(sentence) == [stated]


def test_every_clause_of_a_sentence_counts() -> None:
    assert parse_sentence("Anna Berg lived in Oslo in 1962 and won the Opal Cup.") == [
        Fact("lived", "Anna Berg", "Oslo", "1962"),
        Fact("won", "Anna Berg", "Opal Cup"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Silver River",
        "Anna Berg lived in",
        "Anna Berg lived in 1972.",
        "Silver River lived in Oslo.",
        "Anna Berg lived in Oslo and Silver River.",
        "Anna Berg lived in Atlantis.",
        "",
    ],
)
def test_fragments_and_nonsense_assert_nothing(text: str) -> None:
    assert parse_sentence(text) == []


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "Which films had Anna Berg directed? Silver River.",
            [Fact("directed", "Silver River", "Anna Berg")],
        ),
        (
            "Which people had the Opal Cup gone to? Anna Berg",
            [Fact("won", "Anna Berg", "Opal Cup")],
        ),
        ("Which films had Anna Berg directed? Otto Lind", []),
        ("Which films had Anna Berg directed?", []),
    ],
)
def test_list_question_and_item_make_a_fact(text: str, facts: list[Fact]) -> None:
    assert parse_list_item(text) == facts


def test_names_of_the_splits_are_all_names_once() -> None:
    first, second = ["Anna", "Otto", "Clara"], ["Berg", "Lind", "Moss", "Hart"]
    by_split = {split: names_of(split, first, second) for split in ("train", "dev", "test")}
    found = [name for names in by_split.values() for name in names]
    assert sorted(found) == sorted(f"{a} {b}" for a in first for b in second)
    assert all(split_of(name) == split for split, names in by_split.items() for name in names)
