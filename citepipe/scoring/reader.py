"""QA-EM, QA-F1 and QA-Hit: what an extractive SQuAD reader finds in an answer (ALCE `compute_qa`).

ALCE (with transformers 4.28.1) reads with a question-answering pipeline, which transformers 5 no
longer has. `Reader` takes the spans that it took, up to 4.52: the best one of a window stands for
itself, and those that come to the same words do not add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citepipe.data.example import Example
from citepipe.errors import InputError
from citepipe.judgement import percent
from citepipe.models.pretrained import load_checkpoint
from citepipe.progress import Progress
from citepipe.text.normalize import normalize_answer

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# The pipeline's defaults, in tokens.
_MAX_LENGTH, _STRIDE, _LONGEST_ANSWER = 384, 128, 15
_BATCH = 16

# An answer without a word is a text for the reader all the same.
_BLANK = " "


def qa_scores(
    examples: Sequence[Example], texts: Sequence[str], reader: Reader
) -> list[dict[str, float]]:
    """QA-EM, QA-F1 and QA-Hit, from 0 to 100, of one answer per example.

    The reader looks for the short answer to every reading of the question (`qa_pairs`) in the text,
    cleaned and without citations. QA-EM is the share of readings for which it finds one of the
    aliases, up to normalisation; QA-F1 the mean over readings of the best overlap in words with an
    alias; QA-Hit is 100 if it finds all. Raises InputError for a reading without a question.
    """
    queries: list[tuple[str, str]] = []
    for example, text in zip(examples, texts, strict=True):
        for number, pair in enumerate(example.qa_pairs):
            if not pair.question.strip():
                raise InputError(
                    f"example {example.id}, field qa_pairs[{number}].question: missing; QA-EM, "
                    "QA-F1 and QA-Hit need a question for every reading"
                )
            queries.append((pair.question, text or _BLANK))
    found = iter(reader.answers(queries) if queries else [])
    scores: list[dict[str, float]] = []
    for example in examples:
        exact, overlaps = [], []
        for pair in example.qa_pairs:
            answer = next(found)
            exact.append(normalize_answer(answer) in map(normalize_answer, pair.short_answers))
            overlaps.append(max((word_f1(a, answer) for a in pair.short_answers), default=0.0))
        f1 = 100 * sum(overlaps) / max(len(overlaps), 1)
        own = {"QA-EM": percent(exact), "QA-F1": f1, "QA-Hit": 100.0 * all(exact)}
        scores.append(own if exact else {})
    return scores


def word_f1(gold: str, found: str) -> float:
    """The F-measure of two texts' normalised words (SQuAD's); without words they must be alike."""
    expected, words = normalize_answer(gold).split(), normalize_answer(found).split()
    if not expected or not words:
        return float(expected == words)
    # Twice the words in common over the words of both.
    shared = (Counter(expected) & Counter(words)).total()
    return 2 * shared / (len(expected) + len(words))


class Reader:
    """Finds the answers to questions in texts, or none, with a question-answering model that marks
    spans: `target`, a directory or hub id. Raises InputError if there is no such model."""

    def __init__(self, target: str, device: str = "auto") -> None:
        kind = "AutoModelForQuestionAnswering"
        checkpoint = load_checkpoint(target, kind, device, "float32", None, "reader")
        self._model, self._tokenizer = checkpoint.model, checkpoint.tokenizer
        self._max_length = min(int(self._tokenizer.model_max_length), _MAX_LENGTH)
        self.provenance: dict[str, str | int | float | None] = {
            "kind": "extractive reader",
            "model": target,
            "revision": checkpoint.revision,
            "dtype": checkpoint.dtype,
            "max_length": self._max_length,
            "rule": "best span",
        }

    def answers(self, queries: Sequence[tuple[str, str]]) -> list[str]:
        """The answer to each question in its context (neither of them empty), as it stands there;
        empty for none.

        A context that is too long is read in windows that overlap. None is the answer if the
        probability of none, the smallest over windows, is more than that of the best words.
        Equal queries are read once, similar lengths together.
        """
        known: dict[tuple[str, str], str] = {}
        order = sorted(dict.fromkeys(queries), key=lambda query: len(query[0]) + len(query[1]))
        progress = Progress("reader", len(order), "questions", patient=True)
        for begin in range(0, len(order), _BATCH):
            batch = order[begin : begin + _BATCH]
            known.update(zip(batch, self._read(batch), strict=True))
            progress.advance(len(batch))
        return [known[query] for query in queries]

    def _read(self, queries: Sequence[tuple[str, str]]) -> list[str]:
        import torch

        questions, contexts = map(list, zip(*queries, strict=True))
        encoded = self._tokenizer(
            questions,
            contexts,
            truncation="only_second",
            max_length=self._max_length,
            stride=min(self._max_length // 2, _STRIDE),
            padding=True,
            padding_side="right",
            return_overflowing_tokens=True,
            return_tensors="pt",
        )
        names, device = self._tokenizer.model_input_names, self._model.device
        with torch.inference_mode():
            output = self._model(**{name: encoded[name].to(device) for name in names})
        starts, ends = output.start_logits.cpu().numpy(), output.end_logits.cpu().numpy()
        none = [1.0] * len(queries)
        best = [(0.0, "")] * len(queries)
        for window, number in enumerate(encoded["overflow_to_sample_mapping"].tolist()):
            allowed = np.array([side == 1 for side in encoded.sequence_ids(window)])
            allowed[0] = True
            without, first, last, probability = best_span(starts[window], ends[window], allowed)
            none[number] = min(none[number], without)
            if probability > best[number][0]:
                start, end = _characters(encoded.encodings[window], first, last)
                best[number] = probability, contexts[number][start:end]
        return [
            text if probability >= without else ""
            for (probability, text), without in zip(best, none, strict=True)
        ]


def best_span(start: Floats, end: Floats, allowed: Mask) -> tuple[float, int, int, float]:
    """The probability that there is no answer, and the most probable span of a window.

    The probability of a span is that of its first token as a start times that of its last as an
    end (`start` and `end` are their logits, (T tokens)), each by a softmax over the tokens that
    are allowed (T): the first, which stands for no answer, and those of the context.

    Returns:
        The probability of none; first and last token of a span of at most 15, its probability.
    """
    starts, ends = (
        np.where(allowed, np.exp(logits - logits[allowed].max()), np.float32(0))
        for logits in (start, end)
    )
    starts, ends = starts / starts.sum(), ends / ends.sum()
    none = float(starts[0] * ends[0])
    starts[0] = ends[0] = 0.0
    # By first token and length; behind the last token nothing ends.
    beyond = np.pad(ends, (0, _LONGEST_ANSWER - 1))
    joint = starts[:, None] * np.lib.stride_tricks.sliding_window_view(beyond, _LONGEST_ANSWER)
    first, more = divmod(int(joint.argmax()), _LONGEST_ANSWER)
    return none, first, first + more, float(joint[first, more])


def _characters(encoding: Any, first: int, last: int) -> tuple[int, int]:
    """From the start of the word of the first token to the end of the word of the last one."""
    words: list[Any] = [encoding.token_to_word(token) for token in (first, last)]
    sides: list[Any] = [
        word is not None and encoding.word_to_chars(word, sequence_index=1) for word in words
    ]
    if all(sides):
        return sides[0][0], sides[1][1]
    return encoding.offsets[first][0], encoding.offsets[last][1]
