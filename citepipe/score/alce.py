"""ALCE's metrics of one answer each, under ALCE's names, and their means over a file.

Every metric but `length` and `num_preds` runs from 0 to 100. A metric that an example does not
have (no references, no claims, no statements) is absent from its scores and from the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from citepipe.data.example import Example
from citepipe.judge.gold import predicted_items
from citepipe.judge.judge import Judgement
from citepipe.text.normalize import normalize_answer, remove_citations
from citepipe.text.sentences import Splitter

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

Scores = dict[str, float]

# QAMPARI expects no more answers than this in the `_top5` metrics.
_EXPECTED_ITEMS = 5


def text_scores(
    examples: Sequence[Example], answers: Sequence[str], splitter: Splitter, rouge: bool
) -> list[Scores]:
    """The metrics that ask nobody: `length`, and `rougeLsum` of answers in sentences.

    ALCE gives ROUGE as the middle of a bootstrap, which is the mean with noise of some hundredths
    of a point; here every example has its F-measure and the mean is the mean.

    Args:
        examples: questions with references.
        answers: cleaned answers (`clean_output`), one per example.
        splitter: finds sentences for rougeLsum.
        rouge: compute rougeLsum.
    """
    scorer = _rouge_scorer() if rouge else None
    scores = []
    for example, answer in zip(examples, answers, strict=True):
        text = remove_citations(answer)
        own: Scores = {"length": float(len(text.split()))}
        references = example.long_answers or ((example.answer,) if example.answer else ())
        if scorer is not None and references and example.dataset != "qampari":
            own["rougeLsum"] = 100 * _rouge(scorer, text, references, splitter)
        scores.append(own)
    return scores


def _rouge_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeLsum"], use_stemmer=True)


def _rouge(scorer: RougeScorer, text: str, references: Sequence[str], splitter: Splitter) -> float:
    """The best F-measure over references (ASQA has two), sentences on lines, in lower case."""

    def lines(written: str) -> str:
        lower = written.lower()
        return "\n".join(lower[start:end] for start, end in splitter(lower))

    return max(
        float(scorer.score(lines(reference), lines(text))["rougeLsum"].fmeasure)
        for reference in references
    )


def judged_scores(
    example: Example, answer: str, judgement: Judgement, skip_empty: bool = True
) -> Scores:
    """The metrics that follow from a judgement: citation scores, and correctness by dataset.

    Args:
        example: what was asked.
        answer: the cleaned answer.
        judgement: the verdicts on it.
        skip_empty: an answer without statements has no citation scores (ALCE); else they are 0.
    """
    scores: Scores = {}
    statements = judgement.statements
    if statements or not skip_empty:
        citations = [c for statement in statements for c in statement.citations]
        scores["citation_rec"] = _percent([s.supported for s in statements])
        scores["citation_prec"] = _percent([c.right for c in citations])
    hits = [gold.hit for gold in judgement.gold]
    if not hits:
        return scores
    if example.dataset == "asqa":
        scores["str_em"] = _percent(hits)
        scores["str_hit"] = 100.0 * all(hits)
    elif example.dataset == "qampari":
        scores |= _list_scores(example, remove_citations(answer), hits)
    else:
        scores["claims_nli"] = _percent(hits)
    return scores


def _list_scores(example: Example, text: str, hits: Sequence[bool]) -> Scores:
    """QAMPARI's precision and recall (ALCE `compute_qampari_f1`)."""
    predictions = predicted_items(text)
    gold = {normalize_answer(alias) for aliases in example.answers for alias in aliases}
    precision = _percent([prediction in gold for prediction in predictions])
    recall = _percent(hits)
    top = 100 * min(_EXPECTED_ITEMS, sum(hits)) / min(_EXPECTED_ITEMS, len(hits))
    return {
        "num_preds": float(len(predictions)),
        "qampari_prec": precision,
        "qampari_rec": recall,
        "qampari_rec_top5": top,
        "qampari_f1": f1(precision, recall),
        "qampari_f1_top5": f1(precision, top),
    }


def mean_scores(scores: Sequence[Mapping[str, float]]) -> Scores:
    """The mean of each metric over the examples that have it, and `citation_f1` of the means.

    ALCE itself has no citation F1; here it is the harmonic mean of the two averages.
    """
    names = dict.fromkeys(name for own in scores for name in own)
    means: Scores = {}
    for name in names:
        values = [own[name] for own in scores if name in own]
        means[name] = sum(values) / len(values)
    if "citation_rec" in means:
        means["citation_f1"] = f1(means["citation_prec"], means["citation_rec"])
    return means


def f1(precision: float, recall: float) -> float:
    """The harmonic mean, 0 of two zeros."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _percent(flags: Sequence[bool]) -> float:
    """The share of true ones in percent, 0 of none."""
    return 100 * sum(flags) / len(flags) if flags else 0.0
