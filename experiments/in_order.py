"""A second verifier for scores, which took no part in training: words in their order.

A statement is supported if half of its words stand, in its order, in one sentence of what it cites.
It is plainer than `lexical` and fails elsewhere: it does not look at names, numbers and negation,
and does not put sentences together. On AttributionBench's dev split it agrees with people in 64.8 %
of the judgements (`lexical`: 67.9 %), and 76 % of what it calls supported is. Yet it is of the same
kind as `lexical`: both read words and not meanings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nltk.stem.snowball import SnowballStemmer

from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Pair

SHARE = 0.5


class InOrder:
    """See above; for `verifiers.report`."""

    name = "in order"
    identity = f"in order, {SHARE}"

    def __init__(self) -> None:
        self._split = load_splitter()
        self._stem = SnowballStemmer("english").stem

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order."""
        return [self._entails(*pair) for pair in pairs]

    def _entails(self, premise: str, hypothesis: str) -> bool:
        stated = self._words(hypothesis)
        found = (
            _longest_common(stated, self._words(line[start:end]))
            for line in premise.split("\n")
            for start, end in self._split(line)
        )
        return bool(stated) and max(found, default=0) >= SHARE * len(stated)

    def _words(self, text: str) -> list[str]:
        return [self._stem(word) for word in re.findall(r"\w+", text.lower())]


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before, row = row, [0]
        for place, compared in enumerate(other):
            row.append(before[place] + 1 if word == compared else max(before[place + 1], row[-1]))
    return row[-1]
