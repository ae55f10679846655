"""The miniature's second verifier: it knows the facts behind the documents.

It takes no part in training. A hypothesis is parsed into the facts it asserts, and is entailed if
it asserts something and every fact is among those of the premise. What is not a sentence of the
world's language (a fragment, a bare title) asserts nothing and is never entailed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from citepipe.data.files import read_json
from citepipe.data.validate import validated
from citepipe.miniature.language import Fact, parse_list_item, parse_sentence, weaken
from citepipe.verify.base import Pair

_SENTENCE_END = re.compile(r"(?<=\.)\s+")
_FACTS = TypeAdapter(dict[str, tuple[Fact, ...]])


class Oracle:
    """A verifier over the facts of the passages (`Title: ...` and a sentence) of one world."""

    name = "oracle"

    def __init__(self, facts: Mapping[str, Collection[Fact]]) -> None:
        self._facts = facts
        listed = sorted((passage, sorted(known)) for passage, known in facts.items())
        self.identity = f"oracle {hashlib.sha256(repr(listed).encode()).hexdigest()[:16]}"

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether each hypothesis follows from its premise.

        A premise is made of passages of the world, or is an answer whose sentences are taken as
        true; a passage that is not of this world has no facts.
        """
        asserted = [_assertions(hypothesis) for _, hypothesis in pairs]
        return [
            bool(facts) and self._known(premise).issuperset(facts)
            for (premise, _), facts in zip(pairs, asserted, strict=True)
        ]

    def _known(self, premise: str) -> set[Fact]:
        if premise.startswith("Title: "):
            passages = re.split(r"\n(?=Title: )", premise)
            return {fact for passage in passages for fact in self._facts.get(passage, ())}
        stated = [f for sentence in _SENTENCE_END.split(premise) for f in parse_sentence(sentence)]
        return {known for fact in stated for known in weaken(fact)}


def _assertions(hypothesis: str) -> list[Fact]:
    """All facts of a hypothesis; empty if any part of it cannot be understood."""
    sentences = _SENTENCE_END.split(hypothesis.strip())
    parsed = [parse_sentence(sentence) for sentence in sentences]
    stated = [fact for facts in parsed for fact in facts] if all(parsed) else []
    return parse_list_item(hypothesis) or stated


def load_oracle(path: str | Path) -> Oracle:
    """Read `{passage: [[relation, subject, object, year], ...]}`; InputError for anything else."""
    facts = validated(_FACTS, read_json(path), str(path))
    return Oracle(facts)
