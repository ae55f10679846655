"""Scores by hand, equality with a plain BM25, the order of ties, questions that find nothing."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from citepipe.data.example import Document, Example
from citepipe.errors import InputError
from citepipe.options import RetrievalOptions
from citepipe.retrieve.bm25 import Retriever, words_of


def _options(**more: object) -> RetrievalOptions:
    return RetrievalOptions.model_validate(
        {"passages": ["x"], "stemmer": None, "stop_words": None, **more}
    )


def _retriever(*texts: str, **more: object) -> Retriever:
    return Retriever([Document("", text) for text in texts], _options(**more))


def _texts(found: list[Document]) -> list[str]:
    return [document.text for document in found]


def plain_scores(
    passages: Sequence[Sequence[str]], question: Sequence[str], k1: float, b: float, method: str
) -> list[float]:
    """BM25 as table 1 of Kamphuis et al. (2020) has it; what BM25L and BM25+ give a passage without
    a word is taken off, so that one without any of the words has 0."""
    mean = sum(map(len, passages)) / len(passages)
    counts = [Counter(passage) for passage in passages]
    scores = [0.0] * len(passages)

    def weight(count: int, norm: float) -> float:
        if method == "bm25l":
            shown = count / norm + 0.5
            return (k1 + 1) * shown / (k1 + shown)
        saturated = count / (count + k1 * norm)
        if method == "bm25+":
            return (k1 + 1) * saturated + 0.5
        return (k1 + 1) * saturated if method == "atire" else saturated

    for word in question:
        total, frequency = len(passages), sum(word in count for count in counts)
        if not frequency:
            continue
        odds = (total - frequency + 0.5) / (frequency + 0.5)
        rarity = {
            "lucene": math.log(1 + odds),
            "robertson": max(math.log(odds), 0),
            "atire": math.log(total / frequency),
            "bm25l": math.log((total + 1) / (frequency + 0.5)),
            "bm25+": math.log((total + 1) / frequency),
        }[method]
        for place, count in enumerate(counts):
            norm = 1 - b + b * len(passages[place]) / mean
            scores[place] += rarity * (weight(count[word], norm) - weight(0, norm))
    return scores


def test_scores_by_hand() -> None:
    retriever = _retriever("river bank river", "bank money", "sky", k1=1, b=0.5)
    # Three passages of 3, 2 and 1 words, 2 on average. `river` is in one of them, `bank` in two.
    river, bank = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    assert retriever.scores(["river", "bank"]) == pytest.approx(
        [river * 2 / (2 + 1.25) + bank * 1 / (1 + 1.25), bank * 1 / (1 + 1), 0]
    )
    assert retriever.scores(["bank", "bank"]) == pytest.approx([2 * bank / 2.25, bank, 0])


def test_the_title_is_searched_too() -> None:
    retriever = Retriever([Document("Oslo", "A city."), Document("Rome", "A city.")], _options())
    assert [d.title for d in retriever.find(["The city of Rome?"], 1)[0]] == ["Rome"]


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_scores_and_rankings_are_those_of_a_plain_bm25(method: str) -> None:
    rng = random.Random(method)
    words = [f"w{i}" for i in range(60)]
    weights = [1 / (1 + i) for i in range(60)]
    texts = [rng.choices(words, weights, k=rng.randint(1, 30)) for _ in range(200)]
    questions = [rng.choices([*words, "unknown"], k=rng.randint(1, 8)) for _ in range(40)]
    retriever = _retriever(*(" ".join(text) for text in texts), method=method, k1=1.3, b=0.6)
    numbers = {id(document): i for i, document in enumerate(retriever.passages)}
    for question in questions:
        plain = plain_scores(texts, question, 1.3, 0.6, method)
        assert retriever.scores(question) == pytest.approx(plain, abs=1e-12)
        ranked = sorted(range(200), key=lambda i: (-round(plain[i], 9), i))
        expected = [i for i in ranked if plain[i] > 1e-9][:7]
        assert [numbers[id(d)] for d in retriever.find([" ".join(question)], 7)[0]] == expected


def test_ties_stand_as_the_passages_do() -> None:
    texts = ["b a", "a b", "c a", "a", "a c b"] * 20
    found = _retriever(*texts, b=0).find(["a b"], 45)[0]
    # `a` and `b` in any order tie: 60 passages; they come before those with `a` alone.
    assert _texts(found) == (["b a", "a b", "a c b"] * 15)


def test_sums_in_another_order_tie() -> None:
    # All words are equally rare and passages equally long: the scores are the same three numbers
    # added in another order, which rounding makes different in the last digit for some k1.
    texts = ["a a a b b c", "c c c a a b", "b b b c c a", "a b b c c c"]
    for k1 in (0.3, 0.7, 1.1, 1.2, 1.7):
        assert _texts(_retriever(*texts, k1=k1).find(["a b c"], 4)[0]) == texts


def test_less_than_asked_for_is_found_if_no_more_shares_a_word() -> None:
    retriever = _retriever("red house", "green house", "blue sky")
    assert _texts(retriever.find(["house?"], 3)[0]) == ["red house", "green house"]
    assert retriever.find(["Where?", "", "..."], 3) == [[], [], []]


def test_words_are_stemmed_and_stop_words_left_out() -> None:
    texts = ["He was directing films.", "The director is here."]
    documents = [Document("", text) for text in texts]
    retriever = Retriever(documents, RetrievalOptions(passages=["x"]))
    assert _texts(retriever.find(["Who directed the film?"], 2)[0]) == [texts[0]]
    assert retriever.find(["is the"], 2) == [[]]
    own = Retriever(documents, RetrievalOptions(passages=["x"], stop_words=["Films"]))
    assert own.find(["films"], 2) == [[]]
    assert _texts(own.find(["is the"], 2)[0]) == [texts[1]]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Sie wohnt in Zürich.", "zurich"),
        ("Sie wohnt in Zu\u0308rich.", "ZÜRICH"),
        ("Die Straße", "STRASSE"),
        ("ﬁnal", "final"),
        ("Москва́ — столица", "столица москва"),
        ("東京は日本の首都です。", "首都"),
        ("हिन्दी भाषा", "हिन्दी"),
        ("return_policy", "policy"),
        ("C-3PO", "3po"),
        ("vitamin C", "c"),
    ],
)
def test_words_of_other_scripts_and_forms_are_found(text: str, question: str) -> None:
    retriever = _retriever("something else", text)
    assert _texts(retriever.find([question], 1)[0]) == [text]


def test_marks_belong_to_the_letters_before_them() -> None:
    texts = ["हिन्दी भाषा, Noe\u0308l\u0323 x_y 10%", "東京タワー"]
    words = [["हिन्दी", "भाषा", "noel", "x", "y", "10"], list("東京タワー")]
    assert words_of(texts, _options()) == words


def test_only_examples_without_documents_get_some(capsys: pytest.CaptureFixture[str]) -> None:
    retriever = _retriever("red house", "green house", "blue sky")
    own = Document("T", "own")
    examples = [
        Example("1", "eli5", "What house?", (own,)),
        Example("2", "eli5", "What house?", (), answer="A red one."),
        Example("3", "eli5", "Who?", ()),
        Example("4", "eli5", "What sky?", ()),
    ]
    find_documents = partial(retriever.find_documents, k=2)
    completed = find_documents(examples)
    assert [[d.text for d in e.docs] for e in completed] == [
        ["own"],
        ["red house", "green house"],
        [],
        ["blue sky"],
    ]
    assert [e.id for e in completed] == ["1", "2", "3", "4"]
    assert completed[1].answer == "A red one."
    assert capsys.readouterr().err == (
        "retrieval: 3 of 4 questions had no documents and got up to 2 of 3 passages, 1 fewer as no "
        "more share a word with them, 1 none as no passage has any of their words\n"
    )
    assert find_documents(examples[:1]) == examples[:1]
    assert capsys.readouterr().err == ""


def test_passages_without_words_are_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"^x: expected passages with words in them to look for"):
        Retriever([Document("", "?!"), Document("the", "and")], RetrievalOptions(passages=["x"]))
    with pytest.raises(InputError, match="got 0 passages"):
        Retriever([], RetrievalOptions(passages=["x"]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"passages": []}, "at least 1 item"),
        ({"words": 20, "overlap": 11}, r"at most half of words \(10\)"),
        ({"stemmer": "klingon"}, "Input should be 'danish'"),
        ({"b": 1.5}, "less than or equal to 1"),
    ],
)
def test_options_that_make_no_sense(more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _options(**more)
