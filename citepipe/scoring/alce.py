"""ALCE's metrics of one answer each, under ALCE's names.

Every metric but `length` and `num_preds` runs from 0 to 100. A metric that an example does not
have (no references, no claims, no statements) is absent from its scores.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from citepipe.data.example import Example
from citepipe.judgement import Judgement, percent, predicted_items
from citepipe.scoring.means import EQUALLY_WEIGHTED, GROUNDED, HARMONIC
from citepipe.text.normalize import normalize_answer
from citepipe.text.sentences import Splitter
from citepipe.text.statements import Answer, is_list, remove_citations
from citepipe.verify.quotes import UNSPACED

Scores = dict[str, float]

CLAIMS = ("claims_nli",)
CITATIONS = ("citation_rec", "citation_prec")
WEIGHTED = ("weighted_citation_rec", "weighted_citation_prec")
READER = ("QA-EM", "QA-F1", "QA-Hit")
MAUVE = ("mauve",)
REFUSALS = ("refused", "refusal_acc")
METRICS = (
    *(
        "length",
        "copied",
        "rougeLsum",
        "str_em",
        "str_hit",
        "num_preds",
        "qampari_prec",
        "qampari_rec",
    ),
    *("qampari_rec_top5", "qampari_f1", "qampari_f1_top5", *CLAIMS, *CITATIONS, *WEIGHTED),
    *(*EQUALLY_WEIGHTED, *HARMONIC, *READER, *MAUVE, *REFUSALS, "grounded_f1"),
)
"""Every metric by ALCE's name (`*_eq_w`: the paper's; `weighted_*`: TREC's; refusals: after
Trust-Align; `copied` and `citation_f1`: ours)."""

CORRECTNESS = {
    "asqa": "str_em",
    "qampari": "qampari_rec_top5",
    "eli5": "claims_nli",
    "expertqa": "claims_nli",
}
"""What counts as the correctness of a dataset's answers."""

AVERAGED = ("asqa", "qampari", "eli5")
"""The datasets of means over datasets; EXPERTQA is for inference only and stays out."""

MEANS = ("citation_f1", "correctness", "copied", "length")
"""What has a mean over datasets."""

# QAMPARI expects no more answers than this in the `_top5` metrics.
_EXPECTED_ITEMS = 5


def computed(metrics: Collection[str]) -> frozenset[str]:
    """The metrics of single examples that some metrics are computed from."""
    parts = {part for name in metrics for part in (GROUNDED if name == "grounded_f1" else (name,))}
    parts = {part for name in parts for part in HARMONIC.get(name, (name,))}
    return frozenset(
        EQUALLY_WEIGHTED[part][0] if part in EQUALLY_WEIGHTED else part for part in parts
    )


def asks_verifier(metric: str) -> bool:
    """Whether a metric depends on the verifier: the citation scores, and what claims decide."""
    return metric.startswith("citation") or metric in (*WEIGHTED, *CLAIMS, "refusal_acc")


def text_scores(
    examples: Sequence[Example],
    answers: Sequence[Answer],
    splitter: Splitter,
    wanted: Collection[str],
) -> list[Scores]:
    """The metrics of answers as texts: `length`, and of answers in sentences `rougeLsum`
    and `copied`, the share of statements that stand word for word in a document of the question
    (both as `normalize_answer` leaves them; titles apart, and `sent` in the place of the text).

    ALCE gives ROUGE as the middle of a bootstrap, which is the mean with noise of some hundredths
    of a point; here every example has its F-measure and the mean is the mean.
    """
    # NLTK, behind it, takes some time to import; the table of systems reads only names here.
    from citepipe.scoring.rouge import Rouge

    rouge = Rouge(splitter)
    scores = []
    for example, answer in zip(examples, answers, strict=True):
        text = answer.bare
        own: Scores = {"length": float(len(text.split()))} if "length" in wanted else {}
        references = example.long_answers or ((example.answer,) if example.answer else ())
        if "rougeLsum" in wanted and references and example.dataset != "qampari":
            own["rougeLsum"] = 100 * rouge.lsum(text, references)
        # Items of lists are names, which are in the documents anyway.
        if "copied" in wanted and not is_list(example.dataset):
            docs = [doc.text if doc.sent is None else doc.sent for doc in example.docs]
            docs = [f" {normalize_answer(remove_citations(doc))} " for doc in docs]
            claims = filter(None, (normalize_answer(s.claim) for s in answer.statements))
            # Scripts without spaces have none around a sentence.
            sought = (c if UNSPACED.search(c) else f" {c} " for c in claims)
            if copied := [any(claim in doc for doc in docs) for claim in sought]:
                own["copied"] = percent(copied)
        scores.append(own)
    return scores


def judged_scores(example: Example, answer: Answer, judgement: Judgement) -> Scores:
    """The metrics that follow from the judgement on an answer: citation scores, and correctness by
    dataset. By ALCE's rules an answer without statements has no citation scores; by the sane ones
    they are 0, but one that declines has none."""
    scores: Scores = {}
    if judgement.claims or (answer.rules == "sane" and not judgement.refused):
        scores["citation_rec"] = judgement.citation_rec
        scores["citation_prec"] = judgement.citation_prec
        if judgement.first is not None:
            # Thakur et al. 2025, arXiv 2504.15205.
            cited = [own for own in judgement.first if own is not None]
            for name, n in zip(WEIGHTED, (len(judgement.first), len(cited)), strict=True):
                scores[name] = 100 * sum(cited) / n if n else 0.0
    hits = judgement.gold
    if not hits:
        return scores
    if example.judged_as == "asqa":
        scores["str_em"] = percent(hits)
        scores["str_hit"] = 100.0 * all(hits)
    elif example.judged_as == "qampari":
        scores |= _list_scores(example, answer, hits)
    else:
        scores["claims_nli"] = percent(hits)
    return scores


def refusal_scores(refused: bool, answerable: bool | None) -> Scores:
    """Whether an answer declines, and whether that is right: exactly where the documents hold no
    gold answer; without gold answers nothing says so."""
    scores = {"refused": 100.0 * refused}
    return (
        scores if answerable is None else scores | {"refusal_acc": 100.0 * (refused != answerable)}
    )


def refusal_counts(refused: bool, answerable: bool | None) -> dict[str, int]:
    """What weighs the precisions and recalls of refusals and answers."""
    counts = {"refused": refused, "answered": not refused}
    counts |= {"unanswerable": answerable is False, "answerable": answerable is True}
    return {name: int(count) for name, count in counts.items()}


def _list_scores(example: Example, answer: Answer, hits: Sequence[bool]) -> Scores:
    """QAMPARI's precision and recall (ALCE `compute_qampari_f1`)."""
    predictions, recall = predicted_items(answer), percent(hits)
    gold = {normalize_answer(alias) for aliases in example.answers for alias in aliases}
    precision = percent([prediction in gold for prediction in predictions])
    top = 100 * min(_EXPECTED_ITEMS, sum(hits)) / min(_EXPECTED_ITEMS, len(hits))
    return {
        "num_preds": float(len(predictions)),
        "qampari_prec": precision,
        "qampari_rec": recall,
        "qampari_rec_top5": top,
        "qampari_f1": _f1(precision, recall),
        "qampari_f1_top5": _f1(precision, top),
    }


def unit_counts(example: Example, answer: Answer, judgement: Judgement) -> dict[str, int]:
    """How much an example has of what weighs the equally weighted metrics."""
    statements, gold = judgement.claims, len(judgement.gold)
    listed = example.dataset == "qampari"
    return {
        "statements": len(statements),
        "citations": sum(len(statement.citations) for statement in statements),
        "gold": gold,
        "gold_top5": min(_EXPECTED_ITEMS, gold),
        "items": len(predicted_items(answer)) if listed else 0,
    }


def _f1(precision: float, recall: float) -> float:
    """The harmonic mean, 0 of two zeros."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
