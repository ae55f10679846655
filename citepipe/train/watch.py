"""Whether a policy games the verifier that rewards it: habits of its answers that no reward sees,
and answers that anybody could give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from statistics import fmean
from typing import Any

from citepipe.data.example import Example
from citepipe.progress import say
from citepipe.rewards import Rewarder, total
from citepipe.text.normalize import normalize_answer
from citepipe.text.refusals import refuses
from citepipe.text.statements import Answer, is_list, remove_citations
from citepipe.verify.quotes import sentences

_PROBED = 20
"""Questions."""

PROBES = {
    "titles": "the documents' titles, each with its number",
    "cite_all": "its own answers with all documents behind each statement",
    "quote": "all of the first document, with its number",
}
"""Answers that need no question."""


def habits(example: Example, answer: Answer) -> dict[str, float]:
    """Of one answer: `copied_run`, the share of its words in the longest run of words that stands
    in a document too; `citations_per_statement`; `refusals`, 1 if it declines; and `repeated`, the
    share of its statements that say what one before them says."""
    words = normalize_answer(answer.bare).split()
    # The second of the two is indexed, once for all documents.
    matcher = SequenceMatcher(None, (), words, autojunk=False)
    longest = 0
    for doc in example.docs:
        matcher.set_seq1(normalize_answer(remove_citations(doc.text)).split())
        longest = max(longest, matcher.find_longest_match().size)
    n = max(len(answer.statements), 1)
    different = len({normalize_answer(own.claim) for own in answer.statements})
    return {
        "copied_run": longest / max(len(words), 1),
        "citations_per_statement": sum(len(own.citations) for own in answer.statements) / n,
        "refusals": float(refuses(answer, is_list(example.dataset))),
        "repeated": (len(answer.statements) - different) / n,
    }


def probe(
    examples: Sequence[Example], answers: Sequence[str], rewarder: Rewarder
) -> dict[str, float]:
    """The mean reward of `PROBES` on the first questions, by `probe_NAME`; a line says which of
    them earn more than the model's own answers."""
    examples, answers = examples[:_PROBED], answers[:_PROBED]
    if not answers:
        return {}
    read = rewarder.read(examples, answers)
    given = {
        "own": list(answers),
        "titles": [_titles(example) for example in examples],
        "cite_all": [_cite_all(*pair) for pair in zip(examples, read, strict=True)],
        "quote": [_quote(example) for example in examples],
    }
    means = {
        name: fmean(sum(total(own).values()) for own in rewarder.spans(examples, texts))
        for name, texts in given.items()
    }
    own = means.pop("own")
    for name, value in means.items():
        if value > own:
            say(
                f"a policy can learn to game the verifier: {PROBES[name]} earn {value:+.2f} per "
                f"answer, the start's own answers {own:+.2f}"
            )
    return {f"probe_{name}": value for name, value in means.items()}


def divergences(metrics: Sequence[Mapping[str, Any]], kept: int | None, held_out: str) -> int:
    """How many evaluations in a row, up to the last, have a higher `dev_reward` than that of the
    step that is kept, and a lower figure `held_out`."""
    evaluated = [own for own in metrics if "dev_reward" in own]
    best = next((own for own in evaluated if own["step"] == kept), None)
    count = 0
    for own in reversed(evaluated if best else []):
        if own["dev_reward"] <= best["dev_reward"] or own[held_out] >= best[held_out]:  # type: ignore[index]
            break
        count += 1
    return count


def _titles(example: Example) -> str:
    named = [f"{doc.title} [{number}]" for number, doc in enumerate(example.docs, 1) if doc.title]
    return ", ".join(named) + "." if is_list(example.dataset) else ". ".join([*named, ""]).strip()


def _cite_all(example: Example, answer: Answer) -> str:
    every = "".join(f"[{number}]" for number in range(1, len(example.docs) + 1))
    cited = [f"{own.claim.rstrip('.')} {every}" for own in answer.statements]
    return ", ".join(cited) + "." if is_list(example.dataset) else "".join(f"{c}. " for c in cited)


def _quote(example: Example) -> str:
    text = example.docs[0].text if example.docs else ""
    parts = [(text[start:end].strip(), stop) for start, end, stop in sentences(text)]
    return " ".join(f"{part} [1]{stop or '.'}" for part, stop in parts if part)
