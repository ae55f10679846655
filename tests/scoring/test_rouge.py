import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer, lcs_ind

from citepipe.scoring.rouge import Rouge, common_subsequence
from citepipe.text.sentences import load_splitter

SENTENCES = st.lists(st.sampled_from("abcdexyz"), max_size=14).map(tuple)
WORDS = ["Cats", "cat", "running", "ran", "a", "the", "12", "é", "U.S.", "on.", "Is", "\n", "[x"]


@settings(max_examples=1500, deadline=None)
@given(SENTENCES, SENTENCES)
def test_the_subsequence_is_the_one_that_rouge_score_reads_out(reference, other):
    assert sorted(common_subsequence(reference, other)) == lcs_ind(reference, other)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
    st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1, max_size=2),
)
def test_equal_to_rouge_score(text, references):
    splitter = load_splitter()

    def lines(written):
        lower = written.lower()
        return "\n".join(lower[start:end] for start, end in splitter(lower))

    scorer = RougeScorer(["rougeLsum"], use_stemmer=True)
    expected = max(
        scorer.score(lines(one), lines(text))["rougeLsum"].fmeasure for one in references
    )
    assert Rouge(splitter).lsum(text, references) == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    # The sentence shares `cat sat` and, with the other, `sat down`: three of its four words, and
    # of the five words of the answer no more than three stand in it.
    rouge = Rouge(load_splitter())
    assert rouge.lsum("A cat sat. They sat down.", ["Cats had sat down."]) == pytest.approx(
        2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6)
    )
    assert rouge.lsum("", ["cat"]) == rouge.lsum("dog", ["cat", ""]) == 0
