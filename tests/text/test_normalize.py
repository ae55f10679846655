from hypothesis import given
from hypothesis import strategies as st

from citepipe.text.normalize import clean_output, normalize_answer, raw_char
from citepipe.text.statements import remove_citations
from tests.text.odd_texts import ODD, TEXTS


def test_normalize_answer_drops_case_punctuation_articles_and_spaces():
    assert normalize_answer("The  U.S. and a Theory, an\tend!") == "us and theory end"
    assert normalize_answer("The") == ""


def test_clean_output_takes_the_first_line_and_drops_the_end_mark():
    assert clean_output(" \n Paris [1].<|im_end|>\nRome") == "Paris [1]."
    assert clean_output("\n") == ""


def test_raw_char_counts_what_was_taken_out():
    raw = "  ab<|im_end|>cd"
    assert [raw_char(raw, i) for i in range(4)] == [2, 3, 14, 15]
    # Behind the last one: the first line's end, or that of the text.
    assert [raw_char(raw, 4), raw_char("\na \nb", 9), raw_char("a ", 1)] == [16, 3, 2]
    assert [raw_char(empty, 0) for empty in ("", "\n ", "<|im_end|>")] == [0, 2, 10]


@ODD
@given(
    st.one_of(
        TEXTS, st.lists(st.sampled_from(["a", " ", "\n", "<|im_end|>", "<|im", "é"])).map("".join)
    )
)
def test_every_cleaned_character_is_found_in_the_raw_text(raw: str):
    cleaned = clean_output(raw)
    places = [raw_char(raw, i) for i in range(len(cleaned))]
    assert "".join(raw[place] for place in places) == cleaned
    assert places == sorted(set(places))


@ODD
@given(TEXTS)
def test_what_is_normalised_stays_as_it_is(text: str):
    normalized = normalize_answer(text)
    assert normalize_answer(normalized) == normalized
    assert remove_citations(normalized) == normalized
