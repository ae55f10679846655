"""What a verifier is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

Provenance = dict[str, str | int | float | None]


class Pair(NamedTuple):
    """Does the premise (cited passages, or an answer) entail the hypothesis (a statement)?"""

    premise: str
    hypothesis: str


@runtime_checkable
class Verifier(Protocol):
    """Decides entailment for many pairs at once.

    A verifier may also have `identity: str`, all that its decisions depend on, by which they can
    be cached; `provenance: Provenance`, what a file of scores says of it; and
    `question_first: bool`, which says that it was trained on claims with the question in front.
    One that is `graded: bool` has `verdicts` beside `entails`, with None for what is supported in
    part, which is not entailed.
    """

    @property
    def name(self) -> str:
        """What results are labelled with."""

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order."""


class ByVerdict(ABC):
    """A verifier with verdicts; entailed is what has the verdict True."""

    @abstractmethod
    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """One per pair, in order; None for what is undecided, or supported in part."""

    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """See `Verifier.entails`; what is undecided is not entailed."""
        return list(map(bool, self.verdicts(pairs)))


class BySupport(ByVerdict):
    """A verifier that finds how far a pair is supported. Entailed is what has more support than the
    upper of the `bounds`; what has more than the lower only is undecided."""

    bounds: tuple[float, float]

    @abstractmethod
    def supports(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[Pair, float]]]:
        """Support from 0 to 1, batch by batch, equal pairs once."""

    def decisions(self, pairs: Sequence[Pair]) -> Iterator[list[tuple[Pair, bool | None]]]:
        """Verdicts batch by batch, equal pairs once."""
        low, high = self.bounds
        for batch in self.supports(pairs):
            yield [(pair, None if low < own <= high else own > high) for pair, own in batch]

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """See `ByVerdict.verdicts`."""
        known = {pair: own for batch in self.decisions(pairs) for pair, own in batch}
        return [known[pair] for pair in pairs]


def identity_of(verifier: Verifier) -> str:
    """All that the decisions of a verifier depend on, as far as it says."""
    identity: str = getattr(verifier, "identity", verifier.name)
    return identity


def provenance_of(verifier: Verifier) -> Provenance:
    """What a file of scores says of a verifier, as far as it says."""
    provenance: Provenance = getattr(verifier, "provenance", {"kind": verifier.name})
    return provenance


def is_graded(verifier: Verifier | None) -> bool:
    """Whether a verifier has verdicts between supported and not."""
    return getattr(verifier, "graded", False)


def decide(verifier: Any, pairs: Iterable[Pair], known: dict[Pair, bool | None]) -> None:
    """Add to `known` the verdicts on those pairs that it lacks, each queried once; None for what a
    graded verifier finds supported in part."""
    unknown = [pair for pair in dict.fromkeys(pairs) if pair not in known]
    if unknown:
        ask = verifier.verdicts if is_graded(verifier) else verifier.entails
        known.update(zip(unknown, ask(unknown), strict=True))
