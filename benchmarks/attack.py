"""What hill climbing finds that `lexical` accepts and no document says.

    python benchmarks/attack.py qa_feedback_dev_500.json

Of every question 10,000 statements are tried. One begins as a sentence of a passage and is edited:
a word is left out, put in, or exchanged for another of the passages, two words change places, a
sentence goes on as another one ends, or it is denied. An edited statement is kept if the verifier
accepts it with all passages as its premise and it is not nearer to what they say, by the share of
its pairs of neighbouring words that stand in no passage. After some steps without a better one the
climb begins anew. Printed are the best statement of every question, and how often each edit of a
verbatim sentence is accepted.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from common import Report, argument_parser

from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Pair
from citepipe.verify.load import load_verifier

_PATIENCE = 250  # steps
_WORDS = range(6, 40)  # of a sentence to begin with


class Edits:
    """Edits of a statement, drawn from what the passages of a question say."""

    def __init__(self, texts: list[str], rng: random.Random) -> None:
        split = load_splitter()
        sentences = [text[a:b].split() for text in texts for a, b in split(text)]
        self.sentences = [s for s in sentences if len(s) in _WORDS and s[-1].endswith(".")]
        self.words = [word for sentence in sentences for word in sentence[1:-1]]
        self.known = {pair for text in texts for pair in pairwise(_plain(text))}
        self._rng = rng

    def begin(self) -> list[str]:
        """A sentence of a passage."""
        return list(self._rng.choice(self.sentences))

    def novelty(self, words: list[str]) -> float:
        """The share of pairs of neighbouring words that no passage has."""
        pairs = list(pairwise(_plain(" ".join(words))))
        return sum(pair not in self.known for pair in pairs) / max(len(pairs), 1)

    def edit(self, words: list[str]) -> tuple[str, list[str]]:
        """The name of an edit and the statement behind it."""
        edited, at = list(words), self._rng.randrange(len(words))
        name = self._rng.choice(("drop", "insert", "exchange", "swap", "splice", "deny"))
        word = self._rng.choice(self.words)
        if name == "drop" and len(words) > 4:
            del edited[at]
        elif name == "insert":
            edited.insert(at, word)
        elif name == "exchange":
            number = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), words[at])
            edited[at] = number if number != words[at] else word
        elif name == "swap":
            other = self._rng.randrange(len(words))
            edited[at], edited[other] = edited[other], edited[at]
        elif name == "splice":
            other_end = self.begin()
            edited[at:] = other_end[self._rng.randrange(len(other_end)) :]
        elif name == "deny":
            edited.insert(at, self._rng.choice(("not", "never", "no")))
        return name, edited


def _plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def main() -> int:
    parser = argument_parser(__doc__, "attack.txt")
    parser.add_argument("file", type=Path, help="rows with `question` and `docs`, in JSON")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--tries", type=int, default=10_000, help="statements per question")
    arguments = parser.parse_args()
    rows = json.loads(arguments.file.read_text(encoding="utf-8"))
    verifier, rng = load_verifier("lexical"), random.Random(0)
    tried, accepted, found = Counter[str](), Counter[str](), []
    report = Report(arguments.out)
    for row in rows:
        edits = Edits([doc["text"] for doc in row["docs"]], rng)
        if len(found) == arguments.questions or not edits.sentences:
            continue
        premise = "\n".join(f"Title: {doc['title']}\n{doc['text']}" for doc in row["docs"])
        best, words, first, kept = (0.0, ""), edits.begin(), True, 0
        for step in range(arguments.tries):
            if step - kept > _PATIENCE:
                words, first, kept = edits.begin(), True, step
            name, edited = edits.edit(words)
            (entailed,) = verifier.entails([Pair(premise, " ".join(edited))])
            if first and edited != words:
                tried[name] += 1
                accepted[name] += entailed
            gain = edits.novelty(edited) - edits.novelty(words)
            if entailed and gain >= 0 and edited != words:
                words, first, kept = edited, False, step if gain > 0 else kept
                best = max(best, (edits.novelty(words), " ".join(words)))
        found.append((row["question"], *best))
        report(f"{len(found)}. {best[0]:.2f} {best[1]}\n   ({row['question']})")
    report("\none edit of a verbatim sentence     tried  accepted")
    for name, count in sorted(tried.items()):
        report(f"{name:30}{count:11}{100 * accepted[name] / count:9.1f}%")
    mean = sum(novelty for _, novelty, _ in found) / len(found)
    report(f"mean share of new pairs of words in the best of {len(found)} questions: {mean:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
