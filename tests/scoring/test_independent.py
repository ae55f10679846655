"""Answers as nobody should write them, scored by `score` and by a second scorer: by ALCE's rules
from the text, by the sane ones from what was meant before it was written in some form.

`CITEPIPE_CASES` says how many answers there are of each.
"""

from __future__ import annotations

import os
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from citepipe.data.example import Document, Example
from citepipe.data.files import AnswerFile
from citepipe.options import ScoreOptions
from citepipe.scoring.files import Scorer
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Pair
from tests.text.odd_texts import CITATIONS, ENDS, FOREIGN, SPACES, STOPS, WORDS

CASES = int(os.environ.get("CITEPIPE_CASES", "400"))
DOCS = tuple(Document(f"Title {n}", f"Text {n}.") for n in range(1, 5))
PIECES = [
    *CITATIONS,
    *STOPS,
    *WORDS,
    *SPACES,
    *ENDS,
    *FOREIGN[:9],
    "[1].",
    " [2]. ",
    "The mill is old",
]


class Chance:
    name = identity = "chance"

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        return [entails(pair.premise, pair.hypothesis) for pair in pairs]


def entails(premise: str, hypothesis: str) -> bool:
    return zlib.crc32(f"{premise}|{hypothesis}".encode(errors="replace")) % 5 > 1


def joint(documents: Sequence[int]) -> str:
    return "\n".join(f"Title: {DOCS[d].title}\n{DOCS[d].text}" for d in documents)


def precision(documents: Sequence[int], claim: str) -> list[bool]:
    """Which of the documents that support a claim together are needed, or support it alone."""
    return [
        len(documents) == 1
        or entails(joint([d]), claim)
        or not entails(joint([*documents[: documents.index(d)], *rest]), claim)
        for d in documents
        for rest in [documents[documents.index(d) + 1 :]]
    ]


def shares(supported: list[bool], right: list[bool]) -> tuple[float, float]:
    return tuple(100 * sum(own) / len(own) if own else 0.0 for own in (supported, right))  # type: ignore[return-value]


def by_alces_rules(example: Example, raw: str) -> tuple[float, float] | None:
    line = raw.strip().split("\n")[0].replace("<|im_end|>", "")
    if example.dataset == "qampari":
        items = line.rstrip().rstrip(".").rstrip(",").split(",")
        sentences = [f"{example.question} {item.strip()}" for item in items]
    else:
        sentences = [line[start:end] for start, end in load_splitter()(line)]
    supported, right = list[bool](), list[bool]()
    for sentence in sentences:
        cited = [int(number) - 1 for number in re.findall(r"\[(\d+)", sentence)]
        claim = re.sub(r" ?\[\d+", "", sentence).replace(" |", "").replace("]", "").strip()
        in_range = bool(cited) and max(cited) < len(DOCS)
        supported.append(in_range and entails(joint(cited[:3]), claim))
        if in_range:
            right += precision(cited[:3], claim) if supported[-1] else [False] * len(cited[:3])
    return shares(supported, right) if sentences else None


def score_all(examples: Sequence[Example], rules: str) -> list[tuple[float, float] | None]:
    file = AnswerFile(Path("answers"), "", list(examples), [])
    options = ScoreOptions(rules=rules, metrics=("citation_f1",), resamples=1)  # type: ignore[arg-type]
    rows = Scorer(file, options).under(Chance())["per_example"]
    return [(r["citation_rec"], r["citation_prec"]) if "citation_rec" in r else None for r in rows]


def equal(found: Sequence[object], expected: Sequence[object], texts: Sequence[str]) -> None:
    for own, other, text in zip(found, expected, texts, strict=True):
        assert own == (other and pytest.approx(other)), text


def test_mutated_answers_by_alces_rules():
    rng = random.Random(1)
    texts = ["".join(rng.choices(PIECES, k=rng.randint(0, 16))) for _ in range(CASES)]
    examples = [
        Example(str(i), rng.choice(["eli5", "qampari"]), "What?", DOCS, output=text)
        for i, text in enumerate(texts)
    ]
    expected = [by_alces_rules(example, example.output or "") for example in examples]
    equal(score_all(examples, "alce"), expected, texts)


FORMS: tuple[Callable[[list[int]], str], ...] = (
    lambda cited: "".join(f"[{n}]" for n in cited),
    lambda cited: ", ".join(f"[{n}]" for n in cited),
    lambda cited: f"[{', '.join(map(str, cited))}]",
    lambda cited: f"[{'、'.join(map(str, cited))}]",
    lambda cited: f"[{' and '.join(map(str, cited))}]",
    lambda cited: "".join(f"【{n}†source】" for n in cited),
    lambda cited: "".join(f"[^{n}]" for n in cited),
    lambda cited: f"[Doc {', Doc '.join(map(str, cited))}]",
    lambda cited: f"(Documents {' and '.join(map(str, cited))})",
    lambda cited: f"(see {', '.join(f'[{n}]' for n in cited)})",
    lambda cited: " ".join(f"[{n}](https://example.org/{n})" for n in cited),
)
PLACES = ("{} {}.", "{}. {}", "{}.{}", "{}{}.", "{} {}!", "**{}** {}.", "{}. {}.", "{} {}?")
LAYOUTS = (" {}", "\n\n{}", "\n- {}", "\n{n}. {}", "\n> {}", "\n| {} |", "\n## Part {n}\n{}")
AROUND = ("{}", "<think>It is [3].</think>{}", "So it is.\n</think>\n{}", "{}</s>", "# Answer\n{}")
AROUND += ("{}\n\nSources:\n[1] Title 1\n[2] Title 2", "```\n{}\n```", "The facts:\n\n{}")


def test_what_was_meant_in_any_form_by_the_sane_rules():
    rng = random.Random(2)
    examples, expected = [], []
    for number in range(CASES):
        form, place, layout, around = map(rng.choice, (FORMS, PLACES, LAYOUTS, AROUND))
        text, said = "", list[str]()
        supported, right = list[bool](), list[bool]()
        for n in range(rng.randint(1, 5)):
            claim = f"The {rng.choice(['mill', 'dam'])} was built in part {rng.randint(1, 6)}"
            cited = [rng.choice([0, 1, 2, 3, 4, 4, 9]) for _ in range(rng.randint(0, 4))]
            written = place.format(claim, form(cited) if cited else "").rstrip()
            text += layout.format(written, n=n + 1)
            once = list(dict.fromkeys(cited[:3]))
            good = bool(cited) and claim not in said and set(cited) <= {1, 2, 3, 4}
            sentence = claim + next(mark for mark in place if mark in ".!?")
            supported.append(good and entails(joint([n - 1 for n in once]), sentence))
            needed = precision([n - 1 for n in once], sentence) if supported[-1] else []
            verdicts = dict(zip(once, needed, strict=False))
            right += [verdicts.pop(n, False) for n in cited[:3]]
            said.append(claim)
        text = around.format(text.lstrip())
        examples.append(Example(str(number), "own", "What?", DOCS, output=text))
        expected.append(shares(supported, right))
    found = score_all(examples, "sane")
    equal(found, expected, [example.output or "" for example in examples])
    assert score_all([replace(e, dataset="eli5") for e in examples], "sane") == found
