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

from citepipe.data.files import read_json
from citepipe.errors import InputError
from citepipe.miniature.language import Fact, parse_list_item, parse_sentence, weaken
from citepipe.verify.base import Pair

_SENTENCE_END = re.compile(r"(?<=\.)\s+")


class Oracle:
    """A verifier over the facts of one world.

    Args:
        facts: for the text of a passage (`Title: ...` and its sentence) its facts.
    """

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
        return [self._entails(premise, hypothesis) for premise, hypothesis in pairs]

    def _entails(self, premise: str, hypothesis: str) -> bool:
        asserted = assertions(hypothesis)
        if not asserted:
            return False
        known = self._known(premise)
        return all(fact in known for fact in asserted)

    def _known(self, premise: str) -> set[Fact]:
        if premise.startswith("Title: "):
            passages = re.split(r"\n(?=Title: )", premise)
            return {fact for passage in passages for fact in self._facts.get(passage, ())}
        sentences = _SENTENCE_END.split(premise)
        stated = [fact for sentence in sentences for fact in parse_sentence(sentence)]
        return set().union(*(weaken(fact) for fact in stated))


def assertions(hypothesis: str) -> list[Fact]:
    """All facts of a hypothesis; empty if any part of it cannot be understood."""
    listed = parse_list_item(hypothesis)
    if listed:
        return listed
    facts: list[Fact] = []
    for sentence in _SENTENCE_END.split(hypothesis.strip()):
        parsed = parse_sentence(sentence)
        if not parsed:
            return []
        facts.extend(parsed)
    return facts


def load_oracle(path: str | Path) -> Oracle:
    """Read the oracle's facts.

    Args:
        path: the world's facts file, `{passage: [[relation, subject, object, year], ...]}`.

    Raises:
        InputError: the file is no such object.
    """
    read = read_json(path)
    if not isinstance(read, dict):
        raise InputError(f"{path}: expected an object of passages and their facts")
    facts = {}
    for passage, listed in read.items():
        if not isinstance(listed, list) or not all(
            isinstance(fact, list) and len(fact) == 4 for fact in listed
        ):
            raise InputError(
                f"{path}, passage {passage!r}: expected a list of [relation, subject, object, year]"
            )
        facts[passage] = frozenset(Fact(*fact) for fact in listed)
    return Oracle(facts)
