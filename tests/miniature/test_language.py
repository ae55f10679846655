from citepipe.miniature.language import (
    Fact,
    names_of,
    parse_list_item,
    parse_sentence,
    say,
    split_of,
    weaken,
)


def test_a_fact_can_be_said_from_both_ends() -> None:
    starred = Fact("starred", "Silver River", "Anna Berg", "1972")
    assert say("starred", starred) == "Silver River starred Anna Berg in 1972."
    assert say("starred*", starred) == "Anna Berg starred in Silver River in 1972."
    assert parse_sentence(say("starred", starred)) == [starred]
    assert parse_sentence(say("starred*", starred)) == [starred]


def test_all_forms_come_back() -> None:
    film, person = "Silver River", "Anna Berg"
    for form, fact in (
        ("directed*", Fact("directed", film, person, "1972")),
        ("opened", Fact("opened", film, "Oslo", "1972")),
        ("won", Fact("won", person, "Opal Cup", "1972")),
        ("won*", Fact("won", film, "Opal Cup", "1972")),
        ("studied", Fact("studied", person, "Oslo")),
        ("lived", Fact("lived", person, "Oslo")),
    ):
        assert parse_sentence(say(form, fact)) == [fact]


def test_every_clause_of_a_sentence_counts() -> None:
    assert parse_sentence("Anna Berg lived in Oslo in 1962 and won the Opal Cup.") == [
        Fact("lived", "Anna Berg", "Oslo", "1962"),
        Fact("won", "Anna Berg", "Opal Cup"),
    ]


def test_fragments_and_nonsense_assert_nothing() -> None:
    for text in (
        "Silver River",
        "Silver River.",
        "Silver River in 1972.",
        "Anna Berg lived in",
        "Anna Berg lived in 1972.",
        "lived in Oslo.",
        "Oslo lived in Anna Berg.",
        "Silver River lived in Oslo.",
        "Anna Berg lived in Oslo and",
        "Anna Berg lived in Oslo and Silver River.",
        "Anna Berg lived in Atlantis.",
        "",
    ):
        assert parse_sentence(text) == [], text


def test_list_question_and_item_make_a_fact() -> None:
    assert parse_list_item("Which films had Anna Berg directed? Silver River.") == [
        Fact("directed", "Silver River", "Anna Berg")
    ]
    assert parse_list_item("Which people had the Opal Cup gone to? Anna Berg") == [
        Fact("won", "Anna Berg", "Opal Cup")
    ]
    assert parse_list_item("Which films had Anna Berg directed? Otto Lind") == []
    assert parse_list_item("Which films had Anna Berg directed?") == []


def test_a_fact_implies_itself_without_its_year() -> None:
    fact = Fact("lived", "Anna Berg", "Oslo", "1972")
    assert weaken(fact) == {fact, Fact("lived", "Anna Berg", "Oslo")}


def test_names_of_the_splits_are_all_names_once() -> None:
    first, second = ["Anna", "Otto", "Clara"], ["Berg", "Lind", "Moss", "Hart"]
    by_split = {split: names_of(split, first, second) for split in ("train", "dev", "test")}
    found = [name for names in by_split.values() for name in names]
    assert sorted(found) == sorted(f"{a} {b}" for a in first for b in second)
    assert all(split_of(name) == split for split, names in by_split.items() for name in names)
