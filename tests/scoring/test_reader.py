from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from citepipe.data.example import Example, QAPair
from citepipe.errors import InputError
from citepipe.models.pretrained import Checkpoint
from citepipe.scoring import reader as reader_module
from citepipe.scoring.reader import Reader, best_span, qa_scores, word_f1

Patch = pytest.MonkeyPatch

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "where", "who", "zu", "##rich", "paris", "in"]
PIECES += ["anna", "berg", "film", "##s", "!", "?"]


def log(*probabilities: float) -> Any:
    return np.log(np.array(probabilities, dtype=np.float32))


class Answers:
    """A reader with its answers given."""

    def __init__(self, *answers: str) -> None:
        self.given = list(answers)
        self.queries: list[tuple[str, str]] = []

    def answers(self, queries: Sequence[tuple[str, str]]) -> list[str]:
        self.queries += queries
        return self.given


def asqa(*readings: tuple[str, tuple[str, ...]]) -> Example:
    return Example("7", "asqa", "q", (), qa_pairs=tuple(QAPair(q, a) for q, a in readings))


@pytest.mark.parametrize(
    ("gold", "found", "f1"),
    [
        ("the Silver River", "silver river.", 1),
        # One of two words found is one of three words expected: precision 1/2, recall 1/3.
        ("anna maria berg", "Anna Lee", 2 / 5),
        ("x x y", "x x", 4 / 5),
        ("x", "y", 0),
        # Without words on both sides they agree, with words on one they do not.
        ("The", "", 1),
        ("x", "", 0),
    ],
)
def test_word_f1_by_hand(gold: str, found: str, f1: float):
    assert word_f1(gold, found) == pytest.approx(f1)


def test_scores_by_hand():
    examples = [
        asqa(("who?", ("Anna Berg", "A. Berg")), ("where?", ("Zürich", "Paris"))),
        Example("8", "eli5", "q", ()),
        asqa(("who?", ("Anna Berg",)), ("when?", ("1995", "in 1995")), ("why?", ())),
    ]
    reader = Answers("Berg", "Paris", "Berg", "the 1995", "x")
    scores = qa_scores(examples, ["one", "two", ""], reader)
    # `Berg` has 2/3 in common with `Anna Berg` (1 of 1, 1 of 2), and without its article `A. Berg`
    # is the same. No alias is ever found.
    assert scores == [
        {"QA-EM": 100, "QA-F1": 100, "QA-Hit": 100},
        {},
        pytest.approx({"QA-EM": 100 / 3, "QA-F1": 100 * (2 / 3 + 1 + 0) / 3, "QA-Hit": 0}),
    ]
    # ALCE reads a space where there is no answer.
    blank = [("who?", " "), ("when?", " "), ("why?", " ")]
    assert reader.queries == [("who?", "one"), ("where?", "one"), *blank]
    with pytest.raises(InputError, match=r"example 7, field qa_pairs\[1\]\.question: missing"):
        qa_scores([asqa(("who?", ("x",)), ("", ("y",)))], ["x"], Answers())


def test_spans_by_hand():
    start, end = log(0.2, 0.5, 0.1, 0.2), log(0.4, 0.1, 0.3, 0.2)
    allowed = np.array([True, True, True, False])
    # Without the last token the starts are 2, 5 and 1 in 8, the ends 4, 1 and 3 in 8.
    assert best_span(start, end, allowed) == (pytest.approx(8 / 64), 1, 2, pytest.approx(15 / 64))
    # A span has at most fifteen tokens.
    for last, within in ((15, True), (16, False)):
        start, end = log(*[1e-6] * 20), log(*[1e-6] * 20)
        start[1] = end[last] = 0
        *_, probability = best_span(start, end, np.ones(20, dtype=bool))
        assert (probability > 0.9) == within


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import BertTokenizer

    return BertTokenizer({piece: i for i, piece in enumerate(PIECES)}, model_max_length=16)


class Spotter:
    """A model that knows of every word how likely an answer begins and ends with it."""

    device = "cpu"

    def __init__(self, odds: dict[str, float]) -> None:
        self._table = np.log([odds.get(piece, 1e-9) for piece in PIECES]).astype(np.float32)

    def __call__(self, input_ids: Any, **_: Any) -> Any:
        import torch

        logits = torch.from_numpy(self._table)[input_ids]
        return SimpleNamespace(start_logits=logits, end_logits=logits)


LONG = "in " * 20 + "Paris" + " in" * 20


@pytest.mark.parametrize(
    ("odds", "context", "answer"),
    [
        # Beginning and end on one token: 1 in 1.02 twice, against the longer ones and none.
        ({"anna": 1.0, "berg": 0.01}, "in ANNA berg", "ANNA"),
        ({"anna": 1.0, "berg": 0.01}, "berg in!", "berg"),
        # Pieces of a word stand for the word.
        ({"##rich": 0.9, "paris": 0.1}, "Zurich Paris", "Zurich"),
        # No answer if that is more probable.
        ({"[CLS]": 0.6, "paris": 0.4}, "in Paris", ""),
        ({"[CLS]": 0.4, "paris": 0.6}, " ", ""),
        # The best span stands for itself: three of Zurich's pieces have 0.09 each, Paris has 0.16.
        ({"zu": 0.3, "##rich": 0.3, "paris": 0.4}, "Zurich Paris", "Paris"),
        # Windows of 16 tokens, of which 5 are not of the context. Where Paris is not, there is no
        # answer for certain; where it is, there is one: the smallest probability of none counts.
        ({"[CLS]": 0.1, "paris": 1.0}, LONG, "Paris"),
        ({"[CLS]": 0.1, "paris": 1.0}, LONG.replace("Paris", "in"), ""),
    ],
)
def test_the_most_probable_words_as_they_are_written(
    odds: dict[str, float], context: str, answer: str, tokenizer: Any,
    monkeypatch: Patch,
):  # fmt: skip
    checkpoint = Checkpoint("spotter", None, True, "float32", Spotter(odds), tokenizer)
    monkeypatch.setattr(reader_module, "load_checkpoint", lambda *_: checkpoint)
    assert Reader("spotter", "cpu").answers([("where?", context)]) == [answer]


def test_batches_of_a_real_model_change_no_answer(
    tokenizer: Any, tmp_path: Path, monkeypatch: Patch
):
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(4)
    shape = {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 16}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(PIECES)}
    model = BertForQuestionAnswering(BertConfig(**shape, initializer_range=0.5))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reader = Reader(str(tmp_path), "cpu")
    rng = np.random.default_rng(0)
    words = ["Zurich", "Paris", "Anna", "Berg", "films", "in", "!"]
    contexts = [" ".join(rng.choice(words, size=size)) for size in (1, 2, 5, 9, 20, 30) * 4]
    queries = list(zip(["where?", "who in Paris?"] * 12, contexts, strict=True))
    together = reader.answers(queries)
    assert reader.answers(queries * 2) == together * 2
    monkeypatch.setattr(reader_module, "_BATCH", 1)
    assert reader.answers(queries) == together
    assert len(set(together)) > 5
    assert all(answer in context for answer, context in zip(together, contexts, strict=True))


def test_what_is_not_a_reader(tmp_path: Path):
    with pytest.raises(InputError, match=r"reader .*not a model directory"):
        Reader(str(tmp_path), "cpu")
    with pytest.raises(InputError, match="reader nobody/nothing: neither a local directory"):
        Reader("nobody/nothing", "cpu")
