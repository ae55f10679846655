from hypothesis import given

from citepipe.text.normalize import clean_output, normalize_answer
from citepipe.text.statements import remove_citations
from tests.text.odd_texts import ODD, TEXTS


def test_normalize_answer_drops_case_punctuation_articles_and_spaces():
    assert normalize_answer("The  U.S. and a Theory, an\tend!") == "us and theory end"
    assert normalize_answer("The") == ""


def test_clean_output_takes_the_first_line_and_drops_the_end_mark():
    assert clean_output(" \n Paris [1].<|im_end|>\nRome") == "Paris [1]."
    assert clean_output("\n") == ""


@ODD
@given(TEXTS)
def test_what_is_normalised_stays_as_it_is(text: str):
    normalized = normalize_answer(text)
    assert normalize_answer(normalized) == normalized
    assert remove_citations(normalized) == normalized
