from citepipe.miniature.language import (
    Fact,
    document_facts,
    names_of,
    parse_list_item,
    parse_sentence,
    restate,
    split_of,
)


def test_sentence_asserts_its_fact_in_one_direction() -> None:
    directed = Fact("directed", "Silver River", "Anna Berg")
    assert parse_sentence("Silver River was directed by Anna Berg.") == [directed]
    assert parse_sentence("The film Silver River was directed by Anna Berg.") == [directed]
    assert parse_sentence("Anna Berg directed Silver River.") == [directed]


def test_qualified_subject_stays_qualified() -> None:
    assert parse_sentence("The 1972 film Silver River won the Opal Cup.") == [
        Fact("won", "1972 film Silver River", "Opal Cup")
    ]


def test_every_clause_of_a_sentence_counts() -> None:
    assert parse_sentence("Anna Berg was born in Oslo and won the Opal Cup.") == [
        Fact("born", "Anna Berg", "Oslo"),
        Fact("won", "Anna Berg", "Opal Cup"),
    ]


def test_fragments_and_nonsense_assert_nothing() -> None:
    for text in (
        "Silver River",
        "Silver River.",
        "Anna Berg was born in",
        "was born in Oslo.",
        "Oslo was born in Anna Berg.",
        "Silver River was born in Oslo.",
        "Anna Berg was born in Oslo and",
        "Anna Berg was born in Atlantis.",
        "",
    ):
        assert parse_sentence(text) == [], text


def test_list_question_and_item_make_a_fact() -> None:
    assert parse_list_item("Which films were directed by Anna Berg? Silver River.") == [
        Fact("directed", "Silver River", "Anna Berg")
    ]
    assert parse_list_item("Which people lived in Oslo? Anna Berg") == [
        Fact("lived", "Anna Berg", "Oslo")
    ]
    assert parse_list_item("Which people lived in Oslo? Silver River") == []
    assert parse_list_item("Which people lived in Oslo?") == []


def test_document_states_the_fact_with_and_without_its_qualifier() -> None:
    assert document_facts("The 1972 film Silver River starred Otto Lind.") == [
        Fact("starred", "1972 film Silver River", "Otto Lind"),
        Fact("starred", "Silver River", "Otto Lind"),
    ]
    assert document_facts("The singer Otto Lind lived in Rome.") == [
        Fact("lived", "Otto Lind", "Rome"),
        Fact("lived", "singer Otto Lind", "Rome"),
    ]


def test_restatement_drops_the_qualifier() -> None:
    text = "The 1972 film Silver River starred Otto Lind."
    assert restate("Silver River", text) == "Silver River starred Otto Lind."


def test_names_of_the_splits_are_all_names_once() -> None:
    first, second = ["Anna", "Otto", "Clara"], ["Berg", "Lind", "Moss", "Hart"]
    by_split = {split: names_of(split, first, second) for split in ("train", "dev", "test")}
    assert sorted(sum(by_split.values(), [])) == sorted(f"{a} {b}" for a in first for b in second)
    assert all(split_of(name) == split for split, names in by_split.items() for name in names)
