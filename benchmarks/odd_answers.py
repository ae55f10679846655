"""Questions of the miniature with answers as models write them, and as they should not."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from citepipe.data.example import Example, QAPair
from citepipe.miniature.world import build_world, teach
from citepipe.options import FaultOptions, WorldOptions

FRAGMENTS = (
    *("[1]", "[2]", "[3]", "[4][5]", "[0]", "[9]", "[1][1][2]", "[1][2][3][4]", "[1, 2]", "[2012]"),
    *("[1][2][3][4][5]", "[12", "]", " |", ". ", ".", ",", ", ", "! ", "? ", "\n", "\n\n", " "),
    *("<|im_end|>", "U.S. ", "3.5 ", "J. K. Rowling ", "The ", "a ", "an", "the", "é", "日本"),
    *("[١]", "“", "”", "... ", "|", "A, B", " [1]", " [2]. ", "[[1]2]", ""),
)
_ONLY_CITATIONS = ("[1]", "[1][2]", "[2]. [1].", " [3] ")


def odd_examples(dataset: str, count: int, seed: int) -> list[Example]:
    """Questions with outputs: a third well-formed, the others with odd fragments thrown in.

    Some answers are nothing but fragments or citations, some empty, some say everything twice;
    some gold answers have an alias that normalises to nothing, some documents an extract.

    Args:
        dataset: asqa, qampari or eli5.
        count: how many.
        seed: of the questions and the fragments.
    """
    rng = random.Random(f"{seed} {dataset}")
    return [
        replace(_with_odd_gold(example, number), output=_odd(example.output or "", number, rng))
        for number, example in enumerate(taught_examples(dataset, count, seed))
    ]


def taught_examples(dataset: str, count: int, seed: int) -> list[Example]:
    """Questions with the miniature teacher's answers: every statement ends properly and cites
    documents that exist, each at most once."""
    world = build_world(WorldOptions(train=count, dev=1, test=1, expertqa=1), seed)
    drawn = [d for d in world["train"] if d.example.dataset == dataset]
    return teach(drawn, FaultOptions(), seed)


def _odd(text: str, number: int, rng: random.Random) -> str:
    if number % 11 == 0:
        return "".join(rng.choice(FRAGMENTS) for _ in range(rng.randint(0, 12)))
    if number % 23 == 0:
        return rng.choice(_ONLY_CITATIONS)
    if number % 29 == 0:
        return f"{text} {text}"
    if number % 3 == 0:
        return text
    written = []
    for word in text.split(" "):
        if rng.random() < 0.25:
            written.append(rng.choice(FRAGMENTS))
        written.append(word + (" " if rng.random() < 0.9 else ""))
    return "".join(written)


def _with_odd_gold(example: Example, number: int) -> Example:
    if number % 5 == 0:
        first = replace(example.docs[0], sent=example.docs[0].text.partition(" in ")[0])
        example = replace(example, docs=(first, *example.docs[1:]))
    if example.dataset == "qampari" and number % 7 == 0:
        return replace(example, answers=(*example.answers, ("The", "nothing like it")))
    if example.dataset != "asqa":
        return example
    pairs = example.qa_pairs
    if number % 7 == 0:
        pairs = (*pairs, QAPair("Which?", ("The", "nothing like it")))
    # ALCE reads two references.
    references = (*example.long_answers, *[example.answer or "-"] * 2)[:2]
    return replace(example, qa_pairs=pairs, long_answers=references)


def wordy_examples(count: int, words: int, several: float, seed: int) -> list[Example]:
    """ASQA questions with the teacher's answers and passages as long as Wikipedia's in ALCE: each
    goes on with the sentences of other questions' documents.

    Args:
        count: how many.
        words: of each passage, about.
        several: share of the citations that become three, of other documents beside.
        seed: of the questions, the passages and the citations.
    """
    rng = random.Random(seed)
    examples = taught_examples("asqa", count, seed)
    sentences = [document.text for example in examples for document in example.docs]

    def lengthened(text: str) -> str:
        while len(text.split()) < words:
            text += " " + rng.choice(sentences)
        return text

    def cited(match: re.Match[str]) -> str:
        if rng.random() >= several:
            return match[0]
        others = rng.sample([number for number in range(1, 6) if number != int(match[1])], 2)
        return match[0] + "".join(f"[{number}]" for number in others)

    return [
        replace(
            example,
            docs=tuple(replace(doc, text=lengthened(doc.text)) for doc in example.docs),
            output=re.sub(r"\[(\d)\](?!\[)", cited, example.output or ""),
        )
        for example in examples
    ]
