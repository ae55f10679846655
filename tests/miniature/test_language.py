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
    directed = Fact("directed", "Silver River", "Anna Berg", "1972")
    assert say("directed", directed) == "Silver River was directed by Anna Berg in 1972."
    assert say("directed*", directed) == "Anna Berg directed Silver River in 1972."
    assert parse_sentence(say("directed", directed)) == [directed]
    assert parse_sentence(say("directed*", directed)) == [directed]


def test_all_forms_come_back() -> None:
    film, person = "Silver River", "Anna Berg"
    for form, fact in (
        ("starred", Fact("starred", film, person, "1972")),
        ("starred*", Fact("starred", film, person, "1972")),
        ("won", Fact("won", person, "Opal Cup", "1972")),
        ("won*", Fact("won", film, "Opal Cup", "1972")),
        ("born", Fact("born", person, "Oslo", "1972")),
        ("born*", Fact("born", person, "Oslo")),
        ("lived", Fact("lived", person, "Oslo")),
        ("lived*", Fact("lived", person, "Oslo", "1972")),
    ):
        assert parse_sentence(say(form, fact)) == [fact]


def test_every_clause_of_a_sentence_counts() -> None:
    assert parse_sentence("Anna Berg was born in Oslo in 1962 and won the Opal Cup.") == [
        Fact("born", "Anna Berg", "Oslo", "1962"),
        Fact("won", "Anna Berg", "Opal Cup"),
    ]


def test_fragments_and_nonsense_assert_nothing() -> None:
    for text in (
        "Silver River",
        "Silver River.",
        "Silver River in 1972.",
        "Anna Berg was born in",
        "Anna Berg was born in 1972.",
        "was born in Oslo.",
        "Oslo was born in Anna Berg.",
        "Silver River was born in Oslo.",
        "Anna Berg was born in Oslo and",
        "Anna Berg was born in Oslo and Silver River.",
        "Anna Berg was born in Atlantis.",
        "",
    ):
        assert parse_sentence(text) == [], text


def test_list_question_and_item_make_a_fact() -> None:
    assert parse_list_item("Which films did Anna Berg direct? Silver River.") == [
        Fact("directed", "Silver River", "Anna Berg")
    ]
    assert parse_list_item("Whose home was Oslo? Anna Berg") == [Fact("lived", "Anna Berg", "Oslo")]
    assert parse_list_item("Whose home was Oslo? Silver River") == []
    assert parse_list_item("Whose home was Oslo?") == []


def test_a_fact_implies_itself_without_its_year() -> None:
    fact = Fact("lived", "Anna Berg", "Oslo", "1972")
    assert weaken(fact) == {fact, Fact("lived", "Anna Berg", "Oslo")}


def test_names_of_the_splits_are_all_names_once() -> None:
    first, second = ["Anna", "Otto", "Clara"], ["Berg", "Lind", "Moss", "Hart"]
    by_split = {split: names_of(split, first, second) for split in ("train", "dev", "test")}
    found = [name for names in by_split.values() for name in names]
    assert sorted(found) == sorted(f"{a} {b}" for a in first for b in second)
    assert all(split_of(name) == split for split, names in by_split.items() for name in names)
